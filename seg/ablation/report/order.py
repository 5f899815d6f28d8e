"""Which bottlenecks a variant has and how wide: the order of rows in figures, and the variants that make one line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seg.ablation.report.describe import bottlenecks
from seg.ablation.report.study import VariantRecord

KINDS = ("baseline", "skip", "decoder", "both", "plan", "other")
"""Families in the order in which figures show them."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """What a variant changes of the baseline.

    Attributes:
        kind: ``skip``, ``decoder`` or ``both`` where it sets bottlenecks alone, to one ratio for all stages; ``plan``
            where it changes anything else, such as channels; ``other``, as with a ratio for each stage.
        ratio: The ratio, or None where there is no single one.
        setting: All it sets but the ratio, as a text: variants of one setting differ in width alone.
    """

    kind: str
    ratio: float | None
    setting: str


def family(variant: VariantRecord) -> Family:
    """Tells what a variant changes."""
    sides, rest = bottlenecks(variant.changes)
    settings = {side: given for side, given in sides.items() if given is not None}
    rest |= {side: None for side in sides if side not in settings}  # taken away from the baseline
    ratio = _single([own.get("ratio") for own in settings.values()])
    setting = repr((_without_ratio(settings), sorted(rest.items())))
    if rest:
        return Family(kind="plan", ratio=ratio, setting=setting)
    if not settings:
        return Family(kind="other" if variant.changes else "baseline", ratio=None, setting=setting)
    kind = "other" if ratio is None else "both" if len(settings) > 1 else next(iter(settings))
    return Family(kind=kind, ratio=ratio, setting=setting)


def _single(ratios: Sequence[Any]) -> float | None:
    """Gives the one ratio of all bottlenecks at all stages; None where there are several."""
    flat = {each for ratio in ratios for each in (ratio if isinstance(ratio, list | tuple) else (ratio,))}
    one = flat.pop() if len(flat) == 1 else None
    return float(one) if isinstance(one, int | float) else None


def _without_ratio(settings: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, list[tuple[str, str]]]]:
    return [
        (side, sorted((key, repr(value)) for key, value in settings[side].items() if key != "ratio"))
        for side in sorted(settings)
    ]


def in_order(variants: Sequence[VariantRecord]) -> list[str]:
    """Sorts variants for the rows of a figure: by family, wide to narrow; within the rest as the study has them."""
    found = {variant.name: family(variant) for variant in variants}
    # A plan stands together with itself narrowed.
    plans = [_plan(variant) for variant in variants]
    place = {name: number for number, name in enumerate(found)}

    def key(variant: VariantRecord) -> tuple[int, int, float, int]:
        one = found[variant.name]
        group = plans.index(_plan(variant)) if one.kind == "plan" else 0
        # A plan without a bottleneck is wider than any with one.
        width = -one.ratio if one.ratio is not None else -float("inf")
        return KINDS.index(one.kind), group, width, place[variant.name]

    return [variant.name for variant in sorted(variants, key=key)]


def _plan(variant: VariantRecord) -> str:
    """Gives all that a variant changes beside bottlenecks."""
    return repr(sorted((path, value) for path, value in variant.changes.items() if "_bottleneck" not in path))


def breaks(names: Sequence[str], variants: Sequence[VariantRecord]) -> list[int]:
    """Gives the rows before which another family begins."""
    kinds = {variant.name: family(variant).kind for variant in variants}
    return [row for row in range(1, len(names)) if kinds[names[row]] != kinds[names[row - 1]]]


def line(kind: str, variants: Sequence[VariantRecord]) -> dict[str, float]:
    """Gives the ratios of the variants of a family that differ in width alone, from the narrowest up.

    Where a family came with several settings, such as another activation, the setting with most ratios counts.
    """
    found = {variant.name: family(variant) for variant in variants}
    here = {name: one for name, one in found.items() if one.kind == kind and one.ratio is not None}
    most = Counter(one.setting for one in here.values()).most_common(1)
    ratios = {name: one.ratio for name, one in here.items() if one.setting == most[0][0] and one.ratio is not None}
    return dict(sorted(ratios.items(), key=lambda item: item[1]))
