"""The table of differences by class."""

from __future__ import annotations

from seg.ablation.report.analysis import Analysis
from seg.ablation.report.cells import effect_cell
from seg.ablation.report.document import Cell, Table, row
from seg.ablation.statistics import MetricEffect

NO_DISTANCES = "HD95 and NSD are left out: voxel spacing in the headers is nominal, so distances mean nothing."


def class_table(analysis: Analysis) -> Table:
    """Gives the differences of Dice, HD95 and NSD in every class; where spacing is nominal, of Dice alone."""
    study = analysis.records.study
    compared = [one for one in analysis.comparisons.values() if one.dice.effect is not None]
    empty = any(each.dice.left_out for one in compared for each in one.by_class)
    tolerance = study.data.get("nsd_tolerance_mm")
    at = f" at {tolerance:g} mm" if tolerance is not None else ""
    distances = not study.nominal_spacing
    rows = []
    for one in compared:
        for each in (None, *one.by_class):
            scores = one if each is None else each
            cells = [effect_cell(scores.dice, 4)]
            cells += [Cell(text=str(scores.dice.left_out))] if empty else []
            if distances:
                cells += [
                    effect_cell(scores.nsd, 4),
                    effect_cell(scores.hd95_mm, 3, share=False),
                    _absent(scores.hd95_mm),
                ]
            rows.append(row(one.variant, "mean over classes" if each is None else each.name, *cells))
    caption = "Paired differences from the baseline with 95 % intervals. "
    if distances:
        caption += (
            "Dice and NSD above 0 are better, HD95 below 0 is. An HD95 is infinite where one of two masks is empty: "
            "such cases are left out of its mean and counted."
        )
    else:
        caption += f"Above 0 is better. {NO_DISTANCES}"
    if empty:
        caption += " Both empty: cases left out as both masks are empty in some run, counted once."
    return Table(
        columns=(
            "Variant",
            "Class",
            "Dice",
            *(("Both empty",) if empty else ()),
            *((f"NSD{at}", "HD95 (mm)", "HD95 infinite") if distances else ()),
        ),
        rows=tuple(rows),
        caption=caption,
    )


def _absent(one: MetricEffect) -> Cell:
    """Counts the infinite scores of both sides."""
    if not one.infinite_baseline and not one.infinite_variant:
        return Cell(text="0")
    return Cell(text=str(one.infinite_variant), note=f"baseline {one.infinite_baseline}")
