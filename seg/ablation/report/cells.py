"""Cells of tables that show a difference with its interval."""

from __future__ import annotations

from seg.ablation.report.document import Cell
from seg.ablation.report.numbers import NOT_MEASURED, fixed, interval
from seg.ablation.statistics import MetricEffect
from seg.evaluation.scores import Interval

CUT = "(cut)"
"""Marks an interval that was cut at what is possible."""


def effect_cell(one: MetricEffect, digits: int, *, share: bool = True) -> Cell:
    """Writes a difference, below it its interval.

    Args:
        one: The difference.
        digits: Decimals.
        share: Whether it is of scores between 0 and 1, so that intervals are cut to -1 to 1 and marked where they were.
    """
    if one.effect is None:
        return Cell(text=NOT_MEASURED)
    cut = cut_mark(one.effect.ci95, -1.0, 1.0) if share else ""
    reach = f"{interval(one.effect.ci95, digits, sign=True)}{cut}"
    return Cell(text=fixed(one.effect.difference, digits, sign=True), note=reach)


def cut_mark(ci95: Interval | None, low: float, high: float) -> str:
    """Marks an interval that was cut at the lowest or the highest value there can be; empty where it was not."""
    return f" {CUT}" if ci95 is not None and (ci95[0] <= low or ci95[1] >= high) else ""
