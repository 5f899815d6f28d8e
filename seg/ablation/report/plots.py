"""The figures of a report."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

import pandas as pd

from seg.ablation.report.labels import FAMILIES, Label
from seg.ablation.report.metrics import BY_NAME
from seg.ablation.report.views import ValueWithEnds
from seg.ablation.statistics import Verdict
from seg.figures.svg import FAINT, INK, Picture, drawing, to_picture
from seg.words import NOT_MEASURED, fixed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DICE = BY_NAME["dice_difference"]
COLOURS = {
    "baseline": "#6b7480",
    "skip": "#2f7fc1",
    "decoder": "#d9731a",
    "both": "#2c9a62",
    "channels": "#9257cf",
    "other": "#a0526b",
}
STUDIES_ALT = "Differences in mean Dice of"
"""How the figure of several studies begins to say what it shows."""
WIDTH = 9.6
"""Width of a figure, in inch."""
FOREST_COLUMNS = {
    "difference (95 % interval)": 1.03,
    "deciding bound and class": 1.69,
    "verdict": 2.28,
    "speed": 2.5,
}
"""Headings of the texts beside a forest plot, and where they stand, in widths of the plot."""
FAR = 4.0
"""Intervals that reach so many times the median reach, or the margin, leave the scale."""


def forest(
    labels: Mapping[str, Label],
    differences: Mapping[str, ValueWithEnds],
    verdicts: Mapping[str, Verdict],
    speeds: Mapping[str, float],
    margin: float,
) -> Picture | None:
    """Draws the difference in mean Dice of each variant with the bound that decides, and values beside it.

    Args:
        labels: Labels of the variants, in order.
        differences: Difference with its 95 % interval by variant.
        verdicts: Verdict by variant.
        speeds: Speed of the network on the first device, times the baseline's.
        margin: Loss of Dice that still counts as not inferior.
    """
    names = [name for name in labels if name in differences]
    if not names:
        return None
    titles: dict[str, str] = {}
    with drawing(WIDTH, 0.75 + 0.25 * len(names), layout=None) as figure:
        axis = figure.subplots()
        beside: dict[str, Any] = {"transform": axis.get_yaxis_transform(), "va": "center", "fontsize": 8}
        limits = robust_limits([differences[name] for name in names], margin)
        titles |= _draw_rows(axis, {name: labels[name] for name in names}, differences, limits, margin)
        for row, name in enumerate(names):
            verdict = verdicts.get(name)
            bound, where = (verdict.bound, verdict.class_name or "mean") if verdict else (None, "")
            if bound is not None and limits[0] <= bound <= limits[1]:
                colour = COLOURS[labels[name].family]
                axis.plot([bound] * 2, [row - 0.3, row + 0.3], color=colour, linewidth=2.4, gid=f"bound{row}")
                titles[f"bound{row}"] = f"deciding bound {DICE.write(bound)} in {where}"
            texts = (
                _written(differences[name]),
                NOT_MEASURED if bound is None else f"{DICE.write(bound)} {shortened(where, 18)}",
                verdict.word if verdict else "",
                f"{speeds[name]:.2f}×" if name in speeds else "",
            )
            for place, text in zip(FOREST_COLUMNS.values(), texts, strict=True):
                axis.text(place, row, text, **beside)
        for head, place in FOREST_COLUMNS.items():
            axis.text(place, -1, head, fontweight="bold", **beside)
        axis.set_ylim(len(names) - 0.4, -1.4)
        axis.set_xlabel("difference in mean Dice; upright ticks are the bounds that decide")
        figure.subplots_adjust(left=0.2, right=0.5, top=0.99, bottom=min(0.4, 0.55 / figure.get_figheight()))
        alt = f"Forest plot: difference in Dice from the baseline of {len(names)} variants, with the values beside."
        return to_picture(figure, "forest", alt, titles)


def classes(
    labels: Mapping[str, Label], differences: Mapping[str, Mapping[str, ValueWithEnds]], margin: float
) -> Picture | None:
    """Draws the differences of each class as small multiples on one scale.

    Args:
        labels: Labels of the variants, in order.
        differences: Difference with its 95 % interval by name of the class, then by variant.
        margin: Loss of Dice that still counts as not inferior.
    """
    shown = {name: label for name, label in labels.items() if any(name in own for own in differences.values())}
    if not shown or len(differences) < 2:
        return None
    limits = robust_limits([one for own in differences.values() for one in own.values()], margin)
    scales = dict.fromkeys(differences, (limits, margin))
    alt = f"Differences in Dice by class: {', '.join(differences)}."
    label = "difference in Dice from the baseline, 95 % intervals"
    return _multiples(shown, differences, scales, (0.5, 0.17), "classes", label, alt)


def compare_studies(
    labels: Mapping[str, Label],
    differences: Mapping[str, Mapping[str, ValueWithEnds]],
    margins: Mapping[str, float],
    name: str,
) -> Picture:
    """Draws the differences of several studies, each on a scale of its own.

    Args:
        labels: Labels of the variants, in order.
        differences: Difference with its 95 % interval by study, then by variant.
        margins: Margin by study.
        name: Name of the file.
    """
    scales = {
        study: (robust_limits(list(own.values()), margins[study]), margins[study]) for study, own in differences.items()
    }
    alt = f"{STUDIES_ALT} {len(labels)} variants in {len(differences)} studies."
    label = "difference in mean Dice from the study's baseline, 95 % intervals"
    return _multiples(labels, differences, scales, (0.65, 0.2), name, label, alt)


def _multiples(
    labels: Mapping[str, Label],
    differences: Mapping[str, Mapping[str, ValueWithEnds]],
    scales: Mapping[str, tuple[tuple[float, float], float]],
    heights: tuple[float, float],
    name: str,
    x_label: str,
    alt: str,
) -> Picture:
    """Draws a panel for each class or study, with limits and margin of its own; heights are of a panel and of a row."""
    titles: dict[str, str] = {}
    columns = min(3, len(differences))
    rows = math.ceil(len(differences) / columns)
    with drawing(WIDTH, 0.35 + rows * (heights[0] + heights[1] * len(labels))) as figure:
        shared = len(set(scales.values())) == 1
        axes = figure.subplots(rows, columns, sharey=True, sharex=shared, squeeze=False)
        for number, (axis, (title, own)) in enumerate(zip(axes.flat, differences.items(), strict=False)):
            titles |= _draw_rows(axis, labels, own, *scales[title], f"panel{number}", 8)
            axis.set_title(shortened(title))
            axis.set_ylim(len(labels) - 0.4, -0.6)
        for axis in list(axes.flat)[len(differences) :]:
            axis.set_visible(False)
        figure.supxlabel(x_label, fontsize=9)
        return to_picture(figure, name, alt, titles)


def _draw_rows(
    axis: Axes,
    labels: Mapping[str, Label],
    differences: Mapping[str, ValueWithEnds],
    limits: tuple[float, float],
    margin: float,
    prefix: str = "",
    size: float = 9,
) -> dict[str, str]:
    """Draws a row for each variant that has a difference, on a scale with the margin; returns titles by mark."""
    titles = {}
    for row, (name, label) in enumerate(labels.items()):
        if name in differences:
            gid = f"{prefix}row{row}"
            draw_interval(axis, row, differences[name], limits, COLOURS[label.family], gid=gid)
            titles[gid] = f"{label.text}: {_written(differences[name])}"
    axis.set_yticks(range(len(labels)), [shortened(label.text) for label in labels.values()], fontsize=size)
    axis.tick_params(axis="y", length=0)
    families = [label.family for label in labels.values()]
    for tick, family in zip(axis.get_yticklabels(), families, strict=False):
        tick.set_color(COLOURS[family])
    for row, (before, after) in enumerate(pairwise(families)):
        if before != after:
            axis.axhline(row + 0.5, color=FAINT, linewidth=0.8)
    axis.axvline(0, color=INK, linewidth=0.8)
    axis.axvline(-margin, color=INK, linewidth=1, linestyle="--")
    axis.set_xlim(*limits)
    axis.locator_params(axis="x", nbins=5, steps=[1, 2, 5, 10])
    axis.spines["left"].set_visible(False)
    axis.xaxis.set_major_formatter(lambda value, _: fixed(value, 3))
    return titles


def pareto(
    labels: Mapping[str, Label],
    differences: Mapping[str, ValueWithEnds],
    speeds: Mapping[str, float],
    device: str,
    margin: float,
    name: str,
) -> Picture | None:
    """Draws Dice against speed on a device: families as lines from wide to narrow, labels at their points.

    Args:
        labels: Labels of the variants, in order; the baseline lies at speed 1 and difference 0.
        differences: Difference with its 95 % interval by variant.
        speeds: Speed of the network, times the baseline's, by variant.
        device: Name of the device.
        margin: Loss of Dice that still counts as not inferior.
        name: Name of the file.
    """
    baseline = next((label.name for label in labels.values() if label.family == "baseline"), None)
    shown = {key: differences[key] for key in labels if key in differences and key in speeds}
    if not shown:
        return None
    limits = robust_limits([(middle, middle, middle) for middle, _, _ in shown.values()], margin)
    points = {key: (speeds[key], clipped(middle, limits)) for key, (middle, _, _) in shown.items()}
    if baseline is not None:
        points = {baseline: (1.0, 0.0)} | points
    titles: dict[str, str] = {}
    with drawing(WIDTH, 4.6) as figure:
        axis = figure.subplots()
        lines: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for number, (key, (x, y)) in enumerate(points.items()):
            label, colour = labels[key], COLOURS[labels[key].family]
            inside = key == baseline or limits[0] <= shown[key][0] <= limits[1]
            axis.plot(x, y, marker="o" if inside else "v", color=colour, markersize=7, gid=f"point{number}", zorder=3)
            value = 0.0 if key == baseline else shown[key][0]
            titles[f"point{number}"] = f"{label.text}: {DICE.write(value)} Dice at {x:.2f} times the speed"
            if label.width is not None and label.family != "other":
                lines.setdefault((label.family, label.group), []).append((x, y))
        for (family, _), corners in lines.items():
            axis.plot(*zip(*corners, strict=True), color=COLOURS[family], linewidth=1.6, alpha=0.75, zorder=2)
        axis.axhline(0, color=INK, linewidth=0.8)
        axis.axhline(-margin, color=INK, linewidth=1, linestyle="--")
        axis.set_ylim(*limits)
        axis.set_xlabel(f"speed of the network, times the baseline ({shortened(device, 60)})")
        axis.set_ylabel("difference in mean Dice")
        axis.margins(x=0.12)
        axis.grid(color=FAINT, linewidth=0.6)
        axis.text(0.995, -margin, "margin", transform=axis.get_yaxis_transform(), ha="right", va="bottom", fontsize=8)
        place_labels(
            axis,
            {key: shortened(labels[key].text) for key in points},
            points,
            lambda key: COLOURS[labels[key].family],
            lines=[*lines.values(), *([(x, y) for x in axis.get_xlim()] for y in (0.0, -margin))],
        )
        _add_legend(axis, [labels[key] for key in points], "o", loc="upper center", ncols=6, bbox_to_anchor=(0.5, 1.1))
        return to_picture(figure, name, f"Difference in Dice against speed on {device}, one line a family.", titles)


def case_differences(frame: pd.DataFrame, label: str, marked: Sequence[str]) -> Picture | None:
    """Draws what each case gains or loses, against its Dice with the baseline.

    Args:
        frame: A row for each case, with columns case, baseline and difference.
        label: Label of the variant.
        marked: Cases to name.
    """
    if frame.empty:
        return None
    titles: dict[str, str] = {}
    with drawing(WIDTH, 3.2) as figure:
        axis = figure.subplots()
        points = {}
        for number, row in enumerate(frame.itertuples()):
            points[row.case] = row.baseline, row.difference
            colour = COLOURS["decoder"] if row.case in marked else COLOURS["skip"]
            axis.plot(*points[row.case], "o", color=colour, markersize=5.5, alpha=0.85, gid=f"case{number}")
            titles[f"case{number}"] = f"{row.case}: Dice {row.baseline:.3f}, difference {DICE.write(row.difference)}"
        axis.axhline(0, color=INK, linewidth=0.8)
        axis.grid(color=FAINT, linewidth=0.6)
        axis.margins(x=0.08, y=0.12)
        axis.set_xlabel("Dice of the case with the baseline, mean over runs and classes")
        axis.set_ylabel(f"{shortened(label)} less baseline")
        place_labels(axis, {case: case for case in marked if case in points}, points, lambda _: INK)
        return to_picture(figure, "cases", f"Difference in Dice of each of {len(frame)} cases.", titles)


def convergence(labels: Mapping[str, Label], curves: pd.DataFrame) -> Picture | None:
    """Draws the validation Dice during training, means over runs.

    Args:
        labels: Labels of the variants, in order.
        curves: A row for each validation, with columns variant, step and value.
    """
    if curves.empty:
        return None
    titles: dict[str, str] = {}
    with drawing(WIDTH, 3.6) as figure:
        axis = figure.subplots()
        for number, (name, label) in enumerate(labels.items()):
            means = curves[curves.variant == name].groupby("step")["value"].mean()
            if means.empty:
                continue
            wide = 2.4 if label.family == "baseline" else 1.3
            colour = COLOURS[label.family]
            line: dict[str, Any] = {
                "color": colour,
                "linewidth": wide,
                "marker": "o",
                "markersize": 3,
                "gid": f"run{number}",
            }
            axis.plot(means.index, means.to_numpy(), **line)
            titles[f"run{number}"] = f"{label.text}: {means.iloc[-1]:.4f} at the end"
        axis.grid(color=FAINT, linewidth=0.6)
        axis.set_xlabel("training step")
        axis.set_ylabel("validation Dice, mean over runs")
        _add_legend(axis, labels.values(), "", loc="lower right", ncols=2)
        return to_picture(figure, "convergence", "Validation Dice of each variant during training.", titles)


def _add_legend(axis: Axes, labels: Collection[Label], marker: str, **place: Any) -> None:
    families = [family for family in FAMILIES if any(label.family == family for label in labels)]
    handles = [axis.plot([], [], color=COLOURS[family], marker=marker)[0] for family in families]
    axis.legend(handles, [FAMILIES[family] for family in families], **place)


def robust_limits(intervals: Sequence[ValueWithEnds], margin: float) -> tuple[float, float]:
    """Chooses limits of a scale of differences that hold most intervals, 0 and the margin."""
    ends = [abs(end) for interval in intervals for end in interval]
    limit = max(FAR / 2 * margin, FAR * median(ends)) if ends else FAR * margin
    kept = [0.0, -1.6 * margin, 0.6 * margin, *(end for one in intervals for end in one if abs(end) <= limit)]
    room = 0.06 * (max(kept) - min(kept))
    return min(kept) - room, max(kept) + room


def clipped(value: float, limits: tuple[float, float]) -> float:
    """Returns where a value is drawn: itself, or just inside the edge of the scale."""
    inset = 0.02 * (limits[1] - limits[0])
    return min(max(value, limits[0] + inset), limits[1] - inset)


def draw_interval(
    axis: Axes, row: float, interval: ValueWithEnds, limits: tuple[float, float], colour: str, *, gid: str
) -> None:
    """Draws a value and its interval; an arrowhead stands where the interval leaves the scale."""
    middle, low, high = interval
    ends = clipped(low, limits), clipped(high, limits)
    axis.plot(ends, [row, row], color=colour, linewidth=2, alpha=0.6, solid_capstyle="butt")
    if low < limits[0]:
        axis.plot(ends[0], row, marker="<", color=colour, markersize=5)
    if high > limits[1]:
        axis.plot(ends[1], row, marker=">", color=colour, markersize=5)
    if limits[0] <= middle <= limits[1]:
        axis.plot(middle, row, "o", color=colour, markersize=6, gid=gid)


def shortened(text: str, most: int = 36) -> str:
    """Cuts a long text, which would leave no room for the plot."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _written(interval: ValueWithEnds) -> str:
    """Formats a difference in Dice with its interval."""
    return f"{DICE.write(interval[0])} ({DICE.write_interval(*interval[1:])})"


def place_labels(
    axis: Axes,
    texts: Mapping[str, str],
    points: Mapping[str, tuple[float, float]],
    colour: Callable[[str], str],
    *,
    lines: Sequence[Sequence[tuple[float, float]]] = (),
) -> None:
    """Writes a text beside each point, on the side where it hides no point, no other text and least of the lines."""
    figure = axis.figure
    figure.draw_without_rendering()  # type: ignore[union-attr]
    unit = figure.dpi / 72
    marks = [axis.transData.transform(point) for point in points.values()]
    along = [point for line in lines for point in _along(axis.transData.transform(line).tolist())]
    frame = axis.get_window_extent()
    taken: list[tuple[float, float, float, float]] = []
    sides = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1)]
    for key, text in texts.items():
        width, height = 4.9 * len(text) * unit, 10 * unit
        x, y = axis.transData.transform(points[key])
        best, least = (7.0, 0.0, "left"), math.inf
        for reach in (7, 13, 22, 34):
            for across, up in sides:
                left = x + reach * unit * across - (width if across < 0 else width / 2 if across == 0 else 0)
                lower = y + reach * unit * up - height / 2
                box = left, lower, left + width, lower + height
                cost = reach / 10 + 30 * sum(_overlap(box, other) for other in taken)
                cost += 10 * sum(box[0] - 3 < px < box[2] + 3 and box[1] - 3 < py < box[3] + 3 for px, py in marks)
                cost += min(3.0, 0.5 * sum(box[0] < px < box[2] and box[1] < py < box[3] for px, py in along))
                cost += 100 * (left < frame.x0 or box[2] > frame.x1 or lower < frame.y0 or box[3] > frame.y1)
                if cost < least:
                    least, chosen = cost, box
                    best = (reach * across, reach * up, "left" if across > 0 else "right" if across < 0 else "center")
        taken.append(chosen)
        axis.annotate(
            text,
            points[key],
            best[:2],
            textcoords="offset points",
            ha=best[2],
            va="center",
            fontsize=8,
            color=colour(key),
            arrowprops={"arrowstyle": "-", "color": FAINT, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 4},
        )


def _along(corners: Sequence[Sequence[float]]) -> Iterator[tuple[float, float]]:
    """Gives points along a line, in pixels, so dense that no text fits between two of them."""
    for (x, y), (right, upper) in pairwise(corners):
        count = max(1, round(math.hypot(right - x, upper - y) / 6))
        yield from ((x + (right - x) * k / count, y + (upper - y) * k / count) for k in range(count + 1))


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
