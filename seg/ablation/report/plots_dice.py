"""Figures of Dice: differences with the margin, and ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from seg.ablation.report.analysis import Analysis
from seg.ablation.report.document import Figure, Panel
from seg.ablation.report.drawing import WIDTH_INCH, Look, drawing, looks, name_rows, panel
from seg.ablation.report.numbers import MINUS, NOT_MEASURED, fixed, interval
from seg.ablation.report.scale import Scale, beyond_words, choose_scale
from seg.ablation.statistics import MetricEffect

FEW = 10
"""Variants whose ranks fit into a panel of common size."""


def forest(analysis: Analysis) -> Figure | None:
    """Draws the differences with their intervals and the margin; None where no variant could be compared."""
    compared = [one for one in analysis.comparisons.values() if one.dice.effect is not None]
    if not compared:
        return None
    names = [one.variant for one in compared]
    styles = looks(analysis.records.study.names)
    groups: list[tuple[str, str, list[MetricEffect]]] = [
        ("forest_mean", "mean over classes", [one.dice for one in compared])
    ]
    for number, first in enumerate(compared[0].by_class):
        groups.append((f"forest_class_{first.index}", first.name, [one.by_class[number].dice for one in compared]))
    absent = [name for name in analysis.comparisons if name not in names]
    passed = {one.variant for one in compared if one.non_inferior}
    margin = analysis.records.study.margin
    scales = [_scale(names, effects, margin) for _, _, effects in groups]
    return Figure(
        panels=tuple(
            _forest(names, styles, passed, margin, scale, *group) for group, scale in zip(groups, scales, strict=True)
        ),
        caption="Paired difference in Dice from the baseline with its 95 % interval over training runs and patients. "
        f"The dashed line is the margin ({MINUS}{margin:g}), named before the study ran. Filled: not inferior in "
        "any class after Holm's correction; hollow: not shown to be."
        + beyond_words(scales)
        + (f" {NOT_MEASURED.capitalize()}: {', '.join(absent)}." if absent else ""),
    )


def _scale(names: Sequence[str], effects: Sequence[MetricEffect], margin: float) -> Scale | None:
    found = [(name, one.effect) for name, one in zip(names, effects, strict=True) if one.effect is not None]
    spreads = {name: (one.difference, *(one.ci95 or (one.difference, one.difference))) for name, one in found}
    return choose_scale(spreads, (0.0, -margin))


def _forest(
    names: Sequence[str],
    styles: Mapping[str, Look],
    passed: set[str],
    margin: float,
    scale: Scale | None,
    file: str,
    title: str,
    effects: Sequence[MetricEffect],
) -> Panel:
    said = []
    with drawing(height=0.9 + 0.27 * len(names)) as figure:
        axis = figure.add_subplot()
        for row, (name, one) in enumerate(zip(names, effects, strict=True)):
            if one.effect is None:
                axis.text(0, row, NOT_MEASURED, va="center", fontsize=8)
                said.append(f"{name}: {NOT_MEASURED}")
                continue
            x = one.effect.difference
            low, high = one.effect.ci95 or (x, x)
            look = styles[name]
            at = x if scale is None else scale.place(x)
            if at != x:
                axis.annotate(fixed(x, 3, sign=True), (at, row), (0, 6), textcoords="offset points", fontsize=7)
            axis.errorbar(
                at,
                row,
                xerr=[[max(0.0, at - low)], [max(0.0, high - at)]],
                color=look.colour,
                marker=look.marker,
                markerfacecolor=look.colour if name in passed else "white",
                capsize=2.5,
                elinewidth=1.3,
            )
            said.append(f"{name}: {fixed(x, 4, sign=True)} ({interval((low, high), 4, sign=True)})")
        axis.axvline(0, color="0.2", linewidth=1)
        axis.axvline(-margin, color="0.2", linestyle="--", linewidth=1.1)
        name_rows(axis, names, styles)
        if scale is not None:
            axis.set_xlim(scale.low, scale.high)
        axis.locator_params(axis="x", nbins=5)
        axis.set_xlabel("difference in Dice from baseline")
        axis.set_title(title)
        return panel(figure, file, f"Differences in Dice, {title}, margin {margin:g}. {'; '.join(said)}.")


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
        likely = "; ".join(
            f"{name} is most often rank {line.index(max(line)) + 1}"
            for name, line in zip(found.ranked, shares, strict=True)
        )
        drawn = panel(figure, "ranks", f"Probability of each rank of each variant. {likely}.")
    return Figure(
        panels=(drawn,),
        caption="Share of resamples of training runs and patients in which a variant has a rank, in percent; empty "
        "cells are below 1 %. The darker the surer.",
        whole=large,
    )
