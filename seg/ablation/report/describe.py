"""What a variant is, in words made from its changes of the baseline."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from seg.ablation.report.numbers import figures, fixed, listed

SIDES = {"network.skip_bottleneck": "skip", "network.decoder_bottleneck": "decoder"}
SETTING = {"skip": ("activation", "none"), "decoder": ("activation", "leaky_relu")}
"""What a bottleneck has unless it is said."""
UPSAMPLING = {"linear": "linear upsampling", "transposed": "upsampling by transposed convolutions"}
MERGE = {"add": "skips added to the decoder's features", "concat": "skips concatenated with the decoder's features"}
HEAD = (
    "Names of variants, which differ from the baseline in this alone. A skip bottleneck is a 1x1 convolution before "
    "the merge; a decoder bottleneck puts 1x1 - 3x3 - 1x1 in the place of a stage's two 3x3 convolutions"
)
OF_STAGE = "of the stage's channels"
Settings = dict[str, Any]


def describe(changes: Mapping[str, Any], *, whole: bool = False) -> str:
    """Says what a variant is.

    Args:
        changes: Values by dotted path in which it differs from the baseline.
        whole: Whether to say also what a bottleneck in the decoder puts in the place of what.

    Returns:
        Words without a full stop, such as ``skips keep 1/4 of the channels``; fields without words of their own are
        given as ``path = value``.
    """
    sides, others = bottlenecks(changes)
    said = [_plan(others.pop("network.channels"))] if "network.channels" in others else []
    ratios = [None if settings is None else settings.get("ratio") for settings in sides.values()]
    plain = all(settings is not None and not _apart(side, settings) for side, settings in sides.items())
    if len(sides) == 2 and plain and ratios[0] == ratios[1] and isinstance(ratios[0], int | float):
        said.append(f"bottlenecks in skips and decoder at {_share(ratios[0], OF_STAGE)}")
    else:
        said += [_bottleneck(side, settings, whole=whole) for side, settings in sides.items()]
    for path, words in (("network.merge", MERGE), ("network.upsample", UPSAMPLING)):
        if others.get(path) in words:
            said.append(words[others.pop(path)])
    said += [f"{path} = {value}" for path, value in others.items()]
    return listed(said)


def bottlenecks(changes: Mapping[str, Any]) -> tuple[dict[str, Settings | None], dict[str, Any]]:
    """Splits changes into settings of each bottleneck, skip first (None where it was taken away), and the others."""
    found: dict[str, Settings | None] = {}
    others: dict[str, Any] = {}
    for path, value in changes.items():
        parts = path.split(".")
        side = SIDES.get(".".join(parts[:2]))
        settings = value if len(parts) == 2 else {".".join(parts[2:]): value}
        if side is None or not (settings is None or isinstance(settings, Mapping)):
            others[path] = value
        elif settings is None:
            found[side] = None
        else:
            found[side] = {**(found.get(side) or {}), **settings}
    return {side: found[side] for side in SIDES.values() if side in found}, others


def fraction(ratio: float) -> str:
    """Writes a ratio as a fraction where it is a plain one."""
    plain = Fraction(ratio).limit_denominator(64)
    return str(plain) if abs(plain - ratio) < 1e-6 else figures(ratio)


def legend(variants: Mapping[str, Mapping[str, Any]]) -> str:
    """Says what the names of variants mean; those that differ in a ratio alone are put together.

    Args:
        variants: Changes by name, without the baseline.
    """
    groups: dict[str, list[tuple[str, str, str]]] = {}
    for name, changes in variants.items():
        words = describe(changes)
        ratios = re.findall(r"\b\d+/\d+", words)
        one = ratios[0] if len(ratios) == 1 else ""
        groups.setdefault(words.replace(one, "{}", 1) if one else words, []).append((name, one, words))
    said = [_group(template, members) for template, members in groups.items()]
    return f"{HEAD}. {'; '.join(said)}." if said else ""


def _group(template: str, members: Sequence[tuple[str, str, str]]) -> str:
    names = listed([name for name, _, _ in members])
    ratios = [ratio for _, ratio, _ in members]
    together = f"{', '.join(ratios[:-1])} or {ratios[-1]}" if len(ratios) > 1 else ratios[0]
    return f"{names}: {template.replace('{}', together, 1) if ratios[0] else template}"


def _plan(channels: Any) -> str:
    if not isinstance(channels, Sequence):
        return f"network.channels = {channels}"
    if len(set(channels)) == 1:
        return f"{channels[0]} channels at every stage"
    return f"{', '.join(map(str, channels))} channels from full resolution down"


def _bottleneck(side: str, settings: Settings | None, *, whole: bool) -> str:
    if settings is None:
        return f"no {side} bottleneck"
    ratio = settings.get("ratio")
    words = _skip(ratio) if side == "skip" else _decoder(ratio, whole=whole)
    return words + _apart(side, settings)


def _apart(side: str, settings: Settings) -> str:
    """Says in what a bottleneck is not as bottlenecks of its path are by themselves."""
    key, usual = SETTING[side]
    kind = settings.get(key, usual)
    parts = [] if kind == usual else [f"{'no' if kind == 'none' else str(kind).replace('_', ' ')} activation"]
    norm = settings.get("norm", side == "decoder")
    if norm != (side == "decoder"):
        parts.append("normalisation" if norm else "no normalisation")
    parts += [f"{name} {value}" for name, value in settings.items() if name not in ("ratio", "activation", "norm")]
    return f" ({', '.join(parts)})" if parts else ""


def _skip(ratio: Any) -> str:
    if isinstance(ratio, int | float):
        if ratio == 1:
            return "a 1x1 at full width on every skip"
        if ratio > 1:
            return f"skips expand to {ratio:g} times the channels and are projected back"
    return f"skips keep {_share(ratio, 'of the channels')}"


def _decoder(ratio: Any, *, whole: bool) -> str:
    words = "each decoder stage's two 3x3 convolutions become 1x1 - 3x3 - 1x1" if whole else "decoder bottleneck"
    return f"{words} at {_share(ratio, OF_STAGE)}"


def _share(ratio: Any, of: str) -> str:
    """Says which share of its channels a stage keeps; one for each stage where they differ."""
    if ratio is None:
        return f"the baseline's share {of}"
    if isinstance(ratio, Sequence):
        return f"{listed([fixed(one, 2) for one in ratio])} {of} (full resolution first)"
    return "full width" if ratio == 1 else f"{ratio:g} times the width" if ratio > 1 else f"{fraction(ratio)} {of}"
