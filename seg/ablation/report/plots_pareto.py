"""The figure of Dice against what a variant costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from seg.ablation.report.analysis import Analysis
from seg.ablation.report.document import Figure, Panel
from seg.ablation.report.drawing import Look, drawing, legend_panel, looks, panel
from seg.ablation.report.labels import label_points
from seg.ablation.report.numbers import NOT_MEASURED, figures, fixed, listed
from seg.ablation.report.scale import Scale, beyond_words, choose_scale, log_ticks, possible, within
from seg.ablation.report.study import DeviceSpeed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Cost = Mapping[str, tuple[float, float, float]]
"""Value, lower and upper end by variant."""

MOST_NAMES = 11
"""Points of a panel that can have their names beside them."""

LOG_FROM = 1.5
"""Ratio of the largest cost to the smallest from which the axis is logarithmic: costs are compared as ratios."""


def pareto(analysis: Analysis) -> Figure | None:
    """Draws Dice against latency, memory and parameters; None where no variant could be compared."""
    study = analysis.records.study
    costs: list[tuple[str, str, str, Cost]] = []
    for device in analysis.records.speed:
        costs.append((f"pareto_latency_{device.slug}", f"latency, {device.label}", "ms", _latency(device)))
        memory = {name: device.value(name, "peak_memory_inference_mib") for name in study.names}
        costs.append(
            (f"pareto_memory_{device.slug}", f"peak memory of inference, {_short(device)}", "MiB", _exact(memory))
        )
    parameters = {v.name: None if v.parameters is None else v.parameters / 1e6 for v in study.variants}
    costs.append(("pareto_parameters", "parameters", "million", _exact(parameters)))
    styles = looks(study.names)
    drawn = [_pareto(analysis, styles, *cost) for cost in costs if len(set(cost[3]) & set(_heights(analysis))) > 1]
    if not drawn:
        return None
    shown = [name for name in study.names if name in _heights(analysis)]
    absent = [f"{name} (Dice)" for name in study.names if name not in shown]
    absent += [f"{name} ({title})" for _, title, _, cost in costs for name in shown if name not in cost]
    return Figure(
        panels=(*drawn, legend_panel(shown, styles, "pareto_key")),
        caption="Difference in mean Dice from the baseline (0; right scale: added to the baseline's mean) against what "
        "a variant costs. Vertical bars are 95 % intervals of the paired difference, horizontal ones quartiles of "
        "rounds. The stepped line joins the variants that no other beats in both (the Pareto front, by point "
        "estimates); names stand beside its points, the baseline and recommended variants, and the key has all. The "
        "dashed line is the margin. Upper left is better."
        + beyond_words([_scale(analysis)])
        + (f" {NOT_MEASURED.capitalize()}: {', '.join(absent)}." if absent else ""),
    )


def _latency(device: DeviceSpeed) -> Cost:
    found = {name: device.spread(name, "latency_ms") for name in device.variants}
    return {name: spread for name, spread in found.items() if spread is not None}


def _exact(values: Mapping[str, float | None]) -> Cost:
    return {name: (value, value, value) for name, value in values.items() if value is not None}


def _short(device: DeviceSpeed) -> str:
    return str(device.about["device"])


def _heights(analysis: Analysis) -> dict[str, tuple[float, float, float]]:
    """Gives the difference in Dice with its interval by variant; the baseline is 0."""
    found = {analysis.baseline: (0.0, 0.0, 0.0)} if analysis.comparisons else {}
    for name, one in analysis.comparisons.items():
        if one.difference is not None:
            found[name] = possible(
                (one.difference, *(one.ci95 or (one.difference, one.difference))),
                analysis.mean_dice[analysis.baseline].difference,
            )
    return found


def _scale(analysis: Analysis) -> Scale | None:
    return choose_scale(_heights(analysis), (0.0, -analysis.records.study.margin))


def front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Gives the variants that no other equals or beats in cost and Dice both, from the cheapest up.

    Args:
        points: Cost, of which less is better, and Dice, of which more is better, by variant.
    """
    kept: list[str] = []
    for name in sorted(points, key=lambda name: (points[name][0], -points[name][1])):
        if not kept or points[name][1] > points[kept[-1]][1]:
            kept.append(name)
    return kept


def named(best: Sequence[str], analysis: Analysis) -> list[str]:
    """Gives the variants whose names stand beside their points: the baseline, recommended ones, and the front.

    A front of very many leaves out those in the middle of it.
    """
    recommendation = analysis.recommendation
    first = [analysis.baseline]
    if recommendation is not None:
        first += [name for name in (recommendation.fastest, recommendation.narrowest) if name is not None]
    kept = dict.fromkeys(first)
    rest = [name for name in best if name not in kept]
    # From both ends of the front inwards.
    ends = [name for pair in zip(rest, reversed(rest), strict=True) for name in pair]
    return list(dict.fromkeys([*kept, *ends]))[:MOST_NAMES]


def _pareto(analysis: Analysis, styles: Mapping[str, Look], file: str, title: str, unit: str, cost: Cost) -> Panel:
    heights = _heights(analysis)
    names = [name for name in heights if name in cost]
    points = {name: (cost[name][0], heights[name][0]) for name in names}
    best = front(points)
    scale = _scale(analysis)
    beyond = () if scale is None else scale.beyond
    places = {name: (x, y if scale is None else scale.place(y)) for name, (x, y) in points.items()}
    told = [name for name in named(best, analysis) if name in points and name not in beyond]
    bars: list[list[tuple[float, float]]] = []
    with drawing(height=3.9) as figure:
        axis = figure.add_subplot()
        for name in names:
            (x, left, right), (_, low, high) = cost[name], heights[name]
            look, at = styles[name], places[name][1]
            # The interval of a variant that lies off the scale would cross the whole panel.
            reach = None if name in beyond else [[max(0.0, at - low)], [max(0.0, high - at)]]
            axis.errorbar(
                x,
                at,
                xerr=[[max(0.0, x - left)], [max(0.0, right - x)]],
                yerr=reach,
                color=look.colour,
                marker=look.marker,
                markersize=10 if look.number == 0 else 6.5 if name in told else 5,
                elinewidth=0.9,
                alpha=1.0 if name in told else 0.6,
                zorder=3 if name in told else 2,
            )
            bars += [] if name in beyond else [[(x, low), (x, high)]]
        corners = _stairs([places[name] for name in best])
        axis.plot(*zip(*corners, strict=True), "-", color="0.45", linewidth=1.1, zorder=1)
        axis.axhline(-analysis.records.study.margin, color="0.3", linestyle="--", linewidth=1)
        _set_cost_axis(axis, [cost[name] for name in names])
        base = analysis.mean_dice[analysis.baseline].difference
        axis.margins(y=0.12)
        axis.set_ylim(*within((scale.low, scale.high) if scale is not None else axis.get_ylim(), base))
        axis.set_xlabel(f"{title.split(',')[0]} ({unit})")
        axis.set_ylabel("Dice, difference from baseline")
        axis.set_title(title if len(title) < 48 else title.replace(", ", ",\n", 1), fontsize=9.5)
        axis.secondary_yaxis("right", functions=(_shifted(base), _shifted(-base))).set_ylabel("Dice")
        texts = {name: name for name in told} | {
            name: f"{name} {fixed(heights[name][0], 3, sign=True)}" for name in beyond if name in points
        }
        label_points(axis, texts, places, lines=[*bars, corners])
        return panel(figure, file, _alt(analysis, title, unit, points, best))


def _stairs(front: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Gives the corners of the line that joins the front: what is reached at a cost stays reached at more."""
    corners = list(front[:1])
    for (_, before), (x, y) in pairwise(front):
        corners += [(x, before), (x, y)]
    return corners


def _set_cost_axis(axis: Axes, costs: Sequence[tuple[float, float, float]]) -> None:
    low, high = min(cost[1] for cost in costs), max(cost[2] for cost in costs)
    if max(cost[0] for cost in costs) > LOG_FROM * min(cost[0] for cost in costs):
        axis.set_xscale("log")
        room = (high / low) ** 0.1
        axis.set_xlim(low / room, high * room)
        axis.set_xticks(ticks := log_ticks(low / room, high * room), [f"{tick:g}" for tick in ticks])
        axis.minorticks_off()
    else:
        axis.margins(x=0.12)


def _alt(
    analysis: Analysis, title: str, unit: str, points: Mapping[str, tuple[float, float]], best: Sequence[str]
) -> str:
    """Says what a panel shows: the front, and the recommended variant beside the baseline."""
    said = [
        f"{name} {figures(points[name][0])} {unit}"
        + (f" with {fixed(points[name][1], 4, sign=True)}" if name != analysis.baseline else "")
        for name in (analysis.baseline, analysis.recommended)
        if name is not None and name in points
    ]
    return (
        f"Dice difference against {title}: {' and '.join(said)}. On the Pareto front: {listed(best)}. The values stand "
        "in the table of variants."
    )


def _shifted(by: float) -> Callable[[Any], Any]:
    """Gives the map from one scale of Dice to the other."""
    return lambda value: value + by
