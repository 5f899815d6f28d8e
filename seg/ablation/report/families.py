"""Families of variants that differ in a width alone: of the skips, of the decoder, and of both together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from seg.ablation.report.describe import bottlenecks
from seg.ablation.report.study import StudyRecord

WORDS = {
    ("skip",): ("Skips", "skip"),
    ("decoder",): ("Decoder", "decoder"),
    ("skip", "decoder"): ("Both together", "pair of skip and decoder bottlenecks"),
}


@dataclass(frozen=True, kw_only=True)
class Family:
    """Variants that change the baseline in the width of one path, or of both, by one ratio at every stage.

    Attributes:
        sides: ``skip``, ``decoder`` or both.
        ratios: Channels kept over channels of the stage by variant, at most 1, in the order of the study.
    """

    sides: tuple[str, ...]
    ratios: Mapping[str, float]

    @property
    def title(self) -> str:
        """Names the family at the beginning of a sentence."""
        return WORDS[self.sides][0]

    @property
    def one(self) -> str:
        """Names one of its members."""
        return WORDS[self.sides][1]

    @property
    def control(self) -> str | None:
        """The variant of full width, which has the block of the others and all channels; None without one."""
        return next((name for name, ratio in self.ratios.items() if ratio == 1), None)


def families(study: StudyRecord) -> tuple[Family, ...]:
    """Gives the families of a study, skips first; those without a variant are left out.

    A variant belongs to one where it changes bottlenecks alone, each by a single number of at most 1, the same in both
    paths. Where bottlenecks of one path came with several settings, such as another activation, the setting with most
    ratios counts.
    """
    found: dict[tuple[str, ...], dict[str, dict[str, float]]] = {}
    for variant in study.variants:
        sides, others = bottlenecks(variant.changes)
        if others or not sides or None in sides.values():
            continue
        settings = [{key: value for key, value in (one or {}).items() if key != "ratio"} for one in sides.values()]
        ratios = [(one or {}).get("ratio") for one in sides.values()]
        if not all(isinstance(ratio, int | float) and 0 < ratio <= 1 and ratio == ratios[0] for ratio in ratios):
            continue
        key = repr([sorted(one.items()) for one in settings])
        found.setdefault(tuple(sides), {}).setdefault(key, {})[variant.name] = float(ratios[0])  # type: ignore[arg-type]
    return tuple(
        Family(sides=sides, ratios=max(found[sides].values(), key=lambda one: len(set(one.values()))))
        for sides in WORDS
        if sides in found
    )
