"""Names of variants that people understand, made from what a variant changes of the baseline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

PATHS_OF_SECTIONS = {"network.skip_bottleneck": "skip", "network.decoder_bottleneck": "decoder"}
FAMILIES = {
    "baseline": "Baseline",
    "skip": "Skips",
    "decoder": "Decoder",
    "both": "Skips and decoder",
    "channels": "Channel plan",
    "other": "Other",
}
"""Families in the order of tables and figures, with their headings."""
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "skip": {"activation": "none", "norm": False},
    "decoder": {"activation": "leaky_relu", "norm": True},
}
"""Settings of a bottleneck that a label leaves out."""
HELP = {
    "baseline": "The plain U-Net that all variants are compared with.",
    "skip": "A 1x1 convolution on every skip connection keeps the given share of the channels.",
    "decoder": "1x1 - 3x3 - 1x1 replaces the two 3x3 convolutions of every decoder stage; the 3x3 has the given share "
    "of the stage's channels.",
    "both": "Bottlenecks on the skip connections and in the decoder, at the given share of the channels.",
    "channels": "Other numbers of channels per stage, with or without bottlenecks.",
    "other": "Differs from the baseline in more than the width of bottlenecks or the channels.",
}

Settings = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Label:
    """How a variant is shown.

    Attributes:
        name: Name of the variant in the study.
        text: Label for people, such as ``decoder ×1/2``; unique within a study.
        family: Key of `FAMILIES`.
        width: Bottleneck ratio where every stage and path has the same; None elsewhere.
        group: Variants of one group differ in the width alone, so a line may join them.
    """

    name: str
    text: str
    family: str
    width: float | None
    group: str


def label_variants(variants: Mapping[str, Mapping[str, Any]]) -> dict[str, Label]:
    """Labels the variants of a study, in the order of tables: by family, channel plan and falling width.

    Args:
        variants: Values that a variant changes, by dotted path, by name of the variant. The variant without changes is
            the baseline.

    Returns:
        Labels by name of the variant.
    """
    labels = [_label(name, changes) for name, changes in variants.items()]
    count = Counter(label.text for label in labels)
    plans = list(dict.fromkeys(_plan(variants[label.name]) for label in labels))

    def order(label: Label) -> tuple[int, int, float]:
        width = float("inf") if label.width is None else label.width
        return list(FAMILIES).index(label.family), plans.index(_plan(variants[label.name])), -width

    return {
        label.name: label if count[label.text] == 1 else replace(label, text=f"{label.text} ({label.name})")
        for label in sorted(labels, key=order)
    }


def bottlenecks(changes: Mapping[str, Any]) -> tuple[dict[str, Settings | None], dict[str, Any]]:
    """Splits the changes of a variant.

    Returns:
        Settings of the bottleneck by path (``skip``, ``decoder``), None where the variant removes the bottleneck; and
        all other changes.
    """
    found: dict[str, Settings | None] = {}
    others: dict[str, Any] = {}
    for path, value in changes.items():
        parts = path.split(".")
        side = PATHS_OF_SECTIONS.get(".".join(parts[:2]))
        settings = value if len(parts) == 2 else {".".join(parts[2:]): value}
        if side is None or not (settings is None or isinstance(settings, Mapping)):
            others[path] = value
        elif settings is None:
            found[side] = None
        else:
            found[side] = {**(found.get(side) or {}), **settings}
    return {side: found[side] for side in PATHS_OF_SECTIONS.values() if side in found}, others


def write_ratio(ratio: Any) -> str:
    """Formats a bottleneck ratio as ``×1/4``; of a ratio for each stage, the lowest and the highest."""
    if isinstance(ratio, int | float) and not isinstance(ratio, bool):
        plain = Fraction(ratio).limit_denominator(64)
        return f"×{plain}" if abs(plain - ratio) < 1e-6 else f"×{ratio:.2f}"
    if isinstance(ratio, Sequence) and not isinstance(ratio, str):
        numbers = [float(each) for each in ratio if isinstance(each, int | float)]
        if len(set(numbers)) == 1:
            return write_ratio(numbers[0])
        return f"×{min(numbers):.2f}–{max(numbers):.2f} by stage" if numbers else f"×{ratio}"
    return "" if ratio is None else f"×{ratio}"


def _label(name: str, changes: Mapping[str, Any]) -> Label:
    sides, others = bottlenecks(changes)
    ratios = {side: settings.get("ratio") for side, settings in sides.items() if settings is not None}
    extras = {side: _extras(side, settings) for side, settings in sides.items()}
    parts = [_channels(others["network.channels"])] if "network.channels" in others else []
    plain = len(ratios) == 2 and not any(extras.values())
    if plain and ratios["skip"] == ratios["decoder"]:
        parts.append(f"both {write_ratio(ratios['skip'])}")
    elif plain and all(isinstance(ratio, list | tuple) for ratio in ratios.values()):
        several = [each for ratio in ratios.values() for each in (ratio or ())]
        parts.append(f"both {write_ratio(several)}")
    else:
        for side in sides:
            words = "skips" if side == "skip" else "decoder"
            text = f"{words} {write_ratio(ratios[side])}" if side in ratios else f"no {side} bottleneck"
            parts.append(" ".join(filter(None, (text.strip(), extras[side]))))
    parts += [f"{path} = {value}" for path, value in others.items() if path != "network.channels"]
    return Label(
        name=name,
        text=" + ".join(parts) or "baseline",
        family=_family(sides, others),
        width=_single(ratios.values()),
        group=repr((sorted(extras.items()), sorted(others.items(), key=str), sorted(set(sides) - set(ratios)))),
    )


def _family(sides: Mapping[str, Settings | None], others: Mapping[str, Any]) -> str:
    if set(others) - {"network.channels"} or None in sides.values():
        return "other"
    if others:
        return "channels"
    return "both" if len(sides) == 2 else next(iter(sides), "baseline")


def _single(ratios: Iterable[Any]) -> float | None:
    """Returns the only ratio of all bottlenecks at all stages; None where ratios differ."""
    flat = {each for ratio in ratios for each in (ratio if isinstance(ratio, list | tuple) else (ratio,))}
    only = flat.pop() if len(flat) == 1 else None
    return float(only) if isinstance(only, int | float) else None


def _extras(side: str, settings: Settings | None) -> str:
    """Names the settings of a bottleneck that differ from the usual: ``(relu)``."""
    usual = DEFAULTS[side]
    found = []
    for key, value in (settings or {}).items():
        if key == "ratio" or usual.get(key) == value:
            continue
        if key == "activation":
            found.append("no activation" if value == "none" else str(value).replace("_", " "))
        elif key == "norm":
            found.append("normalised" if value else "not normalised")
        else:
            found.append(f"{key} {value}")
    return f"({', '.join(found)})" if found else ""


def _channels(channels: Any) -> str:
    if not isinstance(channels, Sequence) or isinstance(channels, str):
        return f"channels {channels}"
    if len(set(channels)) == 1:
        return f"flat {channels[0]}"
    return f"channels {'-'.join(map(str, channels))}"


def _plan(changes: Mapping[str, Any]) -> str:
    """Returns all that a variant changes beside bottlenecks, as a key."""
    return repr(sorted((path, repr(value)) for path, value in changes.items() if "_bottleneck" not in path))
