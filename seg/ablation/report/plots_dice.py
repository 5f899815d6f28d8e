"""Figures of Dice: differences with the margin, and ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from seg.ablation.report.analysis import Analysis
from seg.ablation.report.document import Figure, Panel
from seg.ablation.report.drawing import WIDTH_INCH, Look, drawing, looks, name_rows, panel
from seg.ablation.report.numbers import MINUS, NOT_MEASURED, fixed, listed
from seg.ablation.report.order import breaks, in_order
from seg.ablation.report.scale import Scale, Spread, beyond_words, choose_scale, possible
from seg.ablation.statistics import MetricEffect

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEW = 10
"""Variants whose ranks fit into a panel of common size."""


def forest(analysis: Analysis) -> Figure | None:
    """Draws the differences with their intervals and the margin; None where no variant could be compared."""
    variants = analysis.records.study.variants
    compared = [one for one in analysis.comparisons.values() if one.dice.effect is not None]
    if not compared:
        return None
    # By family and width, whatever the order in which the study ran them.
    compared = [analysis.comparisons[name] for name in in_order(variants) if name in {one.variant for one in compared}]
    names = [one.variant for one in compared]
    styles = looks(analysis.records.study.names)
    base = analysis.mean_dice[analysis.baseline].difference
    means = [_spread(one.dice, base) for one in compared]
    rows = [_Rows("forest_mean", "mean over classes", names, means, "table of variants")]
    for number, first in enumerate(compared[0].by_class):
        of_class = analysis.class_dice[analysis.baseline].get(first.index)
        floor = None if of_class is None else of_class.difference
        spreads = [_spread(one.by_class[number].dice, floor) for one in compared]
        rows.append(_Rows(f"forest_class_{first.index}", first.name, names, spreads, "table of differences by class"))
    absent = [name for name in analysis.comparisons if name not in names]
    passed = {one.variant for one in compared if one.non_inferior}
    margin = analysis.records.study.margin
    scales = [choose_scale(one.known, (0.0, -margin)) for one in rows]
    separate = breaks(names, variants)
    return Figure(
        panels=tuple(
            _forest(one, styles, passed, margin, scale, separate) for one, scale in zip(rows, scales, strict=True)
        ),
        caption="Paired difference in Dice from the baseline with its 95 % interval over training runs and patients. "
        f"The dashed line is the margin ({MINUS}{margin:g}), named before the study ran. Filled: not inferior in "
        "any class after Holm's correction; hollow: not shown to be."
        + beyond_words(scales)
        + (f" {NOT_MEASURED.capitalize()}: {', '.join(absent)}." if absent else ""),
    )


@dataclass(frozen=True)
class _Rows:
    """What one panel of a forest shows.

    Attributes:
        file: Name of its file.
        title: What the differences are of.
        names: Variants from top to bottom.
        spreads: Their differences with intervals; None where not measured.
        table: Where the values stand.
    """

    file: str
    title: str
    names: Sequence[str]
    spreads: Sequence[Spread | None]
    table: str

    @property
    def known(self) -> dict[str, Spread]:
        """The differences that were measured, by variant."""
        return {name: one for name, one in zip(self.names, self.spreads, strict=True) if one is not None}


def _spread(one: MetricEffect, base: float | None) -> Spread | None:
    if one.effect is None:
        return None
    middle = one.effect.difference
    return possible((middle, *(one.effect.ci95 or (middle, middle))), base)


def _forest(
    rows: _Rows,
    styles: Mapping[str, Look],
    passed: set[str],
    margin: float,
    scale: Scale | None,
    separate: Sequence[int],
) -> Panel:
    with drawing(height=0.9 + 0.27 * len(rows.names)) as figure:
        axis = figure.add_subplot()
        for row, (name, spread) in enumerate(zip(rows.names, rows.spreads, strict=True)):
            if spread is None:
                axis.text(0, row, NOT_MEASURED, va="center", fontsize=8)
            else:
                draw_row(axis, row, spread, styles[name], scale, filled=name in passed)
        axis.axvline(0, color="0.2", linewidth=1)
        axis.axvline(-margin, color="0.2", linestyle="--", linewidth=1.1)
        name_rows(axis, rows.names, styles, breaks=separate)
        if scale is not None:
            axis.set_xlim(scale.low, scale.high)
        axis.locator_params(axis="x", nbins=5)
        axis.set_xlabel("difference in Dice from baseline")
        axis.set_title(rows.title)
        return panel(figure, rows.file, _forest_alt(rows, passed, margin))


def draw_row(axis: Axes, row: int, spread: Spread, look: Look, scale: Scale | None, *, filled: bool) -> None:
    """Draws a difference with its interval; one that lies off the scale at its edge, with its value."""
    middle, low, high = spread
    at = middle if scale is None else scale.place(middle)
    if at != middle:
        axis.annotate(
            fixed(middle, 3, sign=True),
            (at, row),
            (7 if middle < 0 else -7, 0),
            textcoords="offset points",
            fontsize=7.5,
            va="center",
            ha="left" if middle < 0 else "right",
        )
    axis.errorbar(
        at,
        row,
        # An interval that reaches over the whole scale says nothing but that.
        xerr=None if at != middle else [[max(0.0, at - low)], [max(0.0, high - at)]],
        color=look.colour,
        marker=look.marker if at == middle else "<" if middle < 0 else ">",
        markerfacecolor=look.colour if filled else "white",
        capsize=2.5,
        elinewidth=1.3,
    )


def _forest_alt(rows: _Rows, passed: set[str], margin: float) -> str:
    """Says what a panel of a forest shows."""
    known = sorted(rows.known.items(), key=lambda item: item[1][0])
    ends = " to ".join(
        f"{fixed(middle, 4, sign=True)} ({name})" for name, (middle, _, _) in dict((known[0], known[-1])).items()
    )
    good = listed([name for name in rows.names if name in passed]) or "none"
    return (
        f"Differences in Dice, {rows.title}, margin {margin:g}: from {ends}. Not inferior in any class: {good}. The "
        f"values stand in the {rows.table}."
    )


def ranks(analysis: Analysis) -> Figure | None:
    """Draws how probable each rank of each variant is; None where variants could not be ranked."""
    found = analysis.ranks
    if found is None or len(found.ranked) < 2:
        return None
    styles = looks(analysis.records.study.names)
    count = len(found.ranked)
    large = count > FEW
    with drawing(6.4 if large else WIDTH_INCH, 1.0 + 0.27 * count) as figure:
        axis = figure.add_subplot()
        shares = [found.probability[name] for name in found.ranked]
        edges = [rank - 0.5 for rank in range(count + 1)]
        # A mesh, as an image would be pixels within the SVG.
        axis.pcolormesh(edges, edges, shares, cmap="Greys", vmin=0, vmax=1.25)
        for row, line in enumerate(shares):
            for column, share in enumerate(line):
                if share >= 0.01:
                    axis.text(
                        column,
                        row,
                        f"{100 * share:.0f}",
                        ha="center",
                        va="center",
                        fontsize=8,
                        color="white" if share > 0.7 else "black",
                    )
        axis.grid(visible=False)
        name_rows(axis, found.ranked, styles)
        axis.set_xticks(range(count), [str(rank + 1) for rank in range(count)])
        axis.set_xlabel("rank by mean Dice (1 is best)")
        axis.set_title("Probability of each rank (%)")
        likely = {name: line.index(max(line)) + 1 for name, line in zip(found.ranked, shares, strict=True)}
        first, last = found.ranked[0], found.ranked[-1]
        drawn = panel(
            figure,
            "ranks",
            f"Probability of each rank of {len(likely)} variants: {first} is most often rank {likely[first]} "
            f"({100 * max(shares[0]):.0f} %), {analysis.baseline} rank {likely[analysis.baseline]}, {last} rank "
            f"{likely[last]}. Rows stand in the order of mean Dice, which the table of variants gives.",
        )
    return Figure(
        panels=(drawn,),
        caption="Share of resamples of training runs and patients in which a variant has a rank, in percent; empty "
        "cells are below 1 %. The darker the surer.",
        whole=large,
    )
