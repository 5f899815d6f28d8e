"""Where a narrow bottleneck starts to cost: the ratios at which Dice is lost, for skips, decoder and both together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from seg.ablation.report.analysis import Analysis
from seg.ablation.report.numbers import NOT_MEASURED, figures, fixed, interval
from seg.ablation.statistics import Comparison
from seg.evaluation.scores import Interval

SIDES = {"network.skip_bottleneck": "skip", "network.decoder_bottleneck": "decoder"}
AXES = {("skip",): "Skips", ("decoder",): "Decoder", ("skip", "decoder"): "Both together"}
HEAD = "Where a narrow bottleneck starts to cost, by 95 % intervals of the difference in mean Dice"


@dataclass(frozen=True, kw_only=True)
class Width:
    """One width of an axis.

    Attributes:
        ratio: Channels kept over channels of the stage, above 0 and at most 1, the same at every stage.
        difference: Mean Dice less the baseline's.
        ci95: Its 95 % interval over training runs and patients.
    """

    ratio: float
    difference: float
    ci95: Interval

    @property
    def loses(self) -> bool:
        """Whether the interval lies below 0."""
        return self.ci95[1] < 0

    @property
    def words(self) -> str:
        """The difference with its interval."""
        return f"{fixed(self.difference, 4, sign=True)}, {interval(self.ci95, 4, sign=True)}"


def onset(analysis: Analysis) -> str:
    """Says where each axis starts to cost, or that no such place was found; nothing without such an axis.

    An axis has the variants that differ from the baseline in one bottleneck's ratio alone, a single number of at most
    1. Where bottlenecks of one path came with several settings, such as another activation, the setting with most
    ratios counts.
    """
    said = [f"{words}: {_sentence(names, analysis)}" for words, names in _axes(analysis).items()]
    return f"{HEAD}. {' '.join(said)}" if said else ""


def _axes(analysis: Analysis) -> dict[str, dict[str, float]]:
    """Gives the ratio of each variant by axis, in the order of `AXES`."""
    settings: dict[tuple[str, ...], dict[str, dict[str, float]]] = {}
    for variant in analysis.records.study.variants:
        found = _bottlenecks(variant.changes)
        ratios = {each.get("ratio") for each in found.values()} if found else set()
        ratio = ratios.pop() if len(ratios) == 1 else None
        if ratio is not None and 0 < ratio <= 1:
            others = repr([sorted((key, each[key]) for key in each if key != "ratio") for each in found.values()])
            settings.setdefault(tuple(found), {}).setdefault(others, {})[variant.name] = ratio
    return {
        words: max(settings[axis].values(), key=lambda names: len(set(names.values())))
        for axis, words in AXES.items()
        if axis in settings
    }


def _bottlenecks(changes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Gives the settings of each bottleneck, skip first; nothing where something else was changed too."""
    found: dict[str, dict[str, Any]] = {}
    for path, value in changes.items():
        parts = path.split(".")
        side = SIDES.get(".".join(parts[:2]))
        settings = value if len(parts) == 2 else {".".join(parts[2:]): value}
        if side is None or not isinstance(settings, Mapping) or isinstance(settings.get("ratio"), list):
            return {}
        found.setdefault(side, {}).update(settings)
    return {side: found[side] for side in SIDES.values() if side in found}


def _sentence(names: Mapping[str, float], analysis: Analysis) -> str:
    """Says of one axis which of its widths lose Dice."""
    widths = [_width(ratio, analysis.comparisons.get(name)) for name, ratio in names.items()]
    known = sorted((width for width in widths if width is not None), key=lambda width: -width.ratio)
    if not known:
        return f"{NOT_MEASURED}."
    losing, others = [one for one in known if one.loses], [one for one in known if not one.loses]
    if not losing:
        return f"no width tried shows a loss, down to ratio {_ratio(known[-1])} ({known[-1].words})."
    widest = losing[0]
    wider = [one for one in others if one.ratio > widest.ratio]
    narrower = [one for one in others if one.ratio < widest.ratio]
    first = "from ratio {} on" if not narrower else "at ratio {}, the widest that shows it"
    above = f"{_ratio(wider[-1])} shows no loss" if wider else "no wider one was tried"
    said = f"Dice falls {first.format(_ratio(widest))} ({widest.words}); {above}."
    # A narrower width whose seeds differ much, such as by one that failed, is no evidence that nothing is lost there.
    unclear = [f" At the narrower {_ratio(one)} the interval reaches 0 ({one.words})." for one in narrower]
    return said + "".join(unclear)


def _width(ratio: float, one: Comparison | None) -> Width | None:
    """Gives the difference of one width; None where it was not measured, or in a single training run."""
    effect = one.dice.effect if one is not None else None
    if effect is None or effect.ci95 is None or not effect.over_runs:
        return None
    return Width(ratio=ratio, difference=effect.difference, ci95=effect.ci95)


def _ratio(width: Width) -> str:
    """Writes a ratio as a fraction where it is a plain one."""
    plain = Fraction(width.ratio).limit_denominator(64)
    return str(plain) if abs(plain - width.ratio) < 1e-6 else figures(width.ratio)
