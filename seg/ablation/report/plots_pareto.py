"""The figure of Dice against what a variant costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from seg.ablation.report.analysis import Analysis
from seg.ablation.report.document import Figure, Panel
from seg.ablation.report.drawing import Look, drawing, legend_panel, looks, number_points, panel
from seg.ablation.report.numbers import NOT_MEASURED, fixed, listed
from seg.ablation.report.scale import Scale, beyond_words, choose_scale
from seg.ablation.report.study import DeviceSpeed

Cost = Mapping[str, tuple[float, float, float]]
"""Value, lower and upper end by variant."""

LOG_FROM = 6.0
"""Ratio of the largest cost to the smallest from which the axis is logarithmic."""


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
        "estimates). The dashed line is the margin. Upper left is better."
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
            low, high = one.ci95 or (one.difference, one.difference)
            found[name] = (one.difference, low, high)
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


def _pareto(analysis: Analysis, styles: Mapping[str, Look], file: str, title: str, unit: str, cost: Cost) -> Panel:
    from matplotlib.ticker import LogLocator

    heights = _heights(analysis)
    names = [name for name in heights if name in cost]
    points = {name: (cost[name][0], heights[name][0]) for name in names}
    best = front(points)
    scale = _scale(analysis)
    places = {name: (x, y if scale is None else scale.place(y)) for name, (x, y) in points.items()}
    with drawing() as figure:
        axis = figure.add_subplot()
        for name in names:
            (x, left, right), (_, low, high) = cost[name], heights[name]
            look = styles[name]
            at = places[name][1]
            axis.errorbar(
                x,
                at,
                xerr=[[max(0.0, x - left)], [max(0.0, right - x)]],
                yerr=[[max(0.0, at - low)], [max(0.0, high - at)]],
                color=look.colour,
                marker=look.marker,
                markersize=10 if look.number == 0 else 6,
                elinewidth=0.9,
            )
        axis.step(
            [points[name][0] for name in best],
            [places[name][1] for name in best],
            "-",
            where="post",
            color="0.45",
            linewidth=1.1,
            zorder=1,
        )
        axis.axhline(-analysis.records.study.margin, color="0.3", linestyle="--", linewidth=1)
        if max(cost[name][0] for name in names) > LOG_FROM * min(cost[name][0] for name in names):
            axis.set_xscale("log")
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_major_formatter("{x:g}")
            axis.minorticks_off()
        axis.margins(x=0.12, y=0.12)
        if scale is not None:
            axis.set_ylim(scale.low, scale.high)
        axis.set_xlabel(f"{title.split(',')[0]} ({unit})")
        axis.set_ylabel("Dice, difference from baseline")
        axis.set_title(title if len(title) < 48 else title.replace(", ", ",\n", 1), fontsize=9.5)
        base = analysis.mean_dice[analysis.baseline].difference
        right_axis = axis.secondary_yaxis("right", functions=(_shifted(base), _shifted(-base)))
        right_axis.set_ylabel("Dice")
        number_points(axis, places, styles)
        values = "; ".join(
            f"{name}: {cost[name][0]:.4g} {unit}, Dice {fixed(heights[name][0], 4, sign=True)}" for name in names
        )
        return panel(figure, file, f"Dice difference against {title}. {values}. On the Pareto front: {listed(best)}.")


def _shifted(by: float) -> Callable[[Any], Any]:
    """Gives the map from one scale of Dice to the other."""
    return lambda value: value + by
