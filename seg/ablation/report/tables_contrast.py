"""The table of contrasts: two variants that differ in one change, compared with each other."""

from __future__ import annotations

from seg.ablation.report.analysis import Analysis
from seg.ablation.report.document import Cell, Table, row
from seg.ablation.report.further import Contrast
from seg.ablation.report.numbers import NOT_MEASURED, figures, fixed, interval
from seg.ablation.statistics import MetricEffect


def contrast_table(analysis: Analysis) -> Table:
    """Gives the difference of each contrast, its work and its speed."""
    classes = analysis.records.study.class_names[1:]
    return Table(
        columns=(
            "Variant",
            "Against",
            "Mean Dice, difference",
            *(f"{name}, difference" for name in classes),
            "GMAC",
            "Latency",
        ),
        rows=tuple(
            row(
                one.variant,
                one.against,
                *_differences(one, len(classes)),
                _work(analysis, one),
                _latency(analysis, one),
            )
            for one in analysis.contrasts
        ),
        caption="Paired differences of two variants, the first less the second, with 95 % intervals. They tell one "
        "change from another; they are neither corrected for their number nor tested at the margin. GMAC is the share "
        "of the second's; latency (batch 1) is times as fast as the second, by medians of the ratios to the baseline.",
        wide=True,
    )


def _differences(one: Contrast, classes: int) -> list[Cell]:
    if one.found is None:
        return [Cell(text=NOT_MEASURED)] * (1 + classes)
    return [_cell(one.found.dice), *(_cell(each.dice) for each in one.found.by_class)]


def _cell(one: MetricEffect) -> Cell:
    if one.effect is None:
        return Cell(text=NOT_MEASURED)
    return Cell(text=fixed(one.effect.difference, 4, sign=True), note=interval(one.effect.ci95, 4, sign=True))


def _work(analysis: Analysis, one: Contrast) -> str:
    own, other = analysis.macs(one.variant), analysis.macs(one.against)
    return NOT_MEASURED if own is None or not other else f"{100 * own / other:.0f} %"


def _latency(analysis: Analysis, one: Contrast) -> str:
    if analysis.device is None:
        return NOT_MEASURED
    ratios = [analysis.device.spread(name, "latency_ratio") for name in (one.variant, one.against)]
    return NOT_MEASURED if None in ratios else figures(ratios[0][0] / ratios[1][0])  # type: ignore[index]
