"""Figures of what a variant costs: speed, and how soon it converges."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from seg.ablation.report.analysis import Analysis, step_seconds
from seg.ablation.report.document import Figure, Panel
from seg.ablation.report.drawing import drawing, legend_panel, looks, name_rows, panel
from seg.ablation.report.labels import label_points
from seg.ablation.report.numbers import counted, fixed, listed, times
from seg.ablation.report.order import breaks, in_order
from seg.ablation.report.scale import FAR, within
from seg.ablation.report.study import DeviceSpeed, StudyRecord

RATIOS = {
    "latency_ratio": ("network, batch 1", "o", "#0072B2"),
    "training_step_ratio": ("training step", "s", "#D55E00"),
    "prediction_ratio": ("end to end", "^", "#009E73"),
}
"""Ratios of speed by their name in the records, with their words and looks."""

MOST_CURVES = 7
"""Curves of one panel that can still be told apart."""


def speed(device: DeviceSpeed, study: StudyRecord) -> Figure | None:
    """Draws the ratios of speed on one device; None where none was measured."""
    measured = [name for name in in_order(study.variants) if name != study.baseline and _ratios(device, name)]
    if not measured:
        return None
    styles = looks(study.names)
    with drawing(height=1.1 + 0.36 * len(measured)) as figure:
        axis = figure.add_subplot()
        for shift, (key, (words, marker, colour)) in zip((-0.22, 0.0, 0.22), RATIOS.items(), strict=True):
            points = [(row, device.spread(name, key)) for row, name in enumerate(measured)]
            known = [(row, spread) for row, spread in points if spread is not None]
            if known:
                middle = np.array([spread[0] for _, spread in known])
                low, high = (np.array([spread[side] for _, spread in known]) for side in (1, 2))
                axis.errorbar(
                    middle,
                    [row + shift for row, _ in known],
                    xerr=[np.maximum(middle - low, 0), np.maximum(high - middle, 0)],
                    linestyle="none",
                    color=colour,
                    marker=marker,
                    label=words,
                    elinewidth=1.1,
                )
        axis.axvline(1, color="0.2", linewidth=1)
        name_rows(axis, measured, styles, breaks=breaks(measured, study.variants))
        axis.set_xlabel(f"times as fast as {study.baseline}")
        figure.legend(loc="outside upper left", ncols=3, handletextpad=0.2, columnspacing=1.0)
        drawn = panel(figure, f"speed_{device.slug}", _speed_alt(device, measured))
    return Figure(
        panels=(drawn,),
        caption="Speed of each variant over that of the baseline in the same round: medians with quartiles; right of 1 "
        "is faster.",
    )


def _speed_alt(device: DeviceSpeed, measured: Sequence[str]) -> str:
    """Says which variants are fastest and slowest by each measure."""
    said = []
    for key, (words, _, _) in RATIOS.items():
        found = sorted((ratios[key], name) for name in measured if key in (ratios := _ratios(device, name)))
        ends = dict.fromkeys(f"{times(value)} ({name})" for value, name in (*found[:1], *found[-1:]))
        said += [f"{words} {' to '.join(ends)}"] if ends else []
    return f"Speed over that of the baseline: {'; '.join(said)}. The values stand in the table of variants."


def _ratios(device: DeviceSpeed, name: str) -> dict[str, float]:
    found = {key: device.spread(name, key) for key in RATIOS}
    return {key: spread[0] for key, spread in found.items() if spread is not None}


def curves(analysis: Analysis) -> Figure | None:
    """Draws validation Dice against steps, and against seconds where a step was timed; None without a curve."""
    names = chosen(analysis)
    if not names:
        return None
    styles = looks(analysis.records.study.names)
    means = {name: _mean_curve(analysis, name) for name in names}
    floor = curve_floor([y for _, y in means.values() if len(y)])
    drawn = [_curves(analysis, means, "convergence_steps", "training steps", floor)]
    seconds = {name: step_seconds(analysis.device, name) for name in names}
    timed = {name: (means[name][0] * value, means[name][1]) for name, value in seconds.items() if value is not None}
    note = "The time of a step was not measured, so there is no figure against seconds."
    if timed and analysis.device is not None:
        drawn.append(_curves(analysis, timed, "convergence_seconds", "seconds of training steps", floor))
        note = f"Seconds are steps times the measured time of a step on {analysis.device.label}."
        if untimed := [name for name in names if name not in timed]:
            note += f" Not timed: {', '.join(untimed)}."
    if floor is not None:
        below = [name for name, (_, y) in means.items() if len(y) and y[-1] < floor]
        note += " The scale is cut where the ends can be told apart" + (
            f"; below it ends {listed(below)}." if below else "."
        )
    every = len(analysis.convergence)
    which = (
        ""
        if len(names) == every
        else (
            f" Shown are {len(names)} of {counted(every, 'variant')}: baseline, recommended ones, and others spread "
            "over the multiply-accumulates; the table has all."
        )
    )
    return Figure(
        panels=(*drawn, legend_panel(names, styles, "convergence_key", lines=True)),
        caption=f"Validation Dice during training, mean over the trials of a variant.{which} Thick: the baseline and "
        f"the recommended variant. {note}",
    )


def chosen(analysis: Analysis) -> list[str]:
    """Gives the variants whose curves are drawn, in the order of the study."""
    names = list(analysis.convergence)
    if len(names) <= MOST_CURVES:
        return names
    recommendation = analysis.recommendation
    first = [analysis.baseline]
    if recommendation is not None:
        first += [name for name in (recommendation.fastest, recommendation.narrowest) if name is not None]
    kept = dict.fromkeys(name for name in first if name in names)
    rest = sorted((name for name in names if name not in kept), key=lambda name: (analysis.macs(name) or 0, name))
    room = MOST_CURVES - len(kept)
    # From the narrowest to the widest at even distances.
    kept |= dict.fromkeys(rest[round(index * (len(rest) - 1) / max(1, room - 1))] for index in range(room))
    return [name for name in names if name in kept]


def _mean_curve(analysis: Analysis, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Averages the curves of a variant at the steps that all of its trials validated."""
    found = [trial.curve for trial in analysis.records.finished(name) if trial.curve is not None]
    common = sorted(set.intersection(*(set(curve.steps) for curve in found)))
    dice = [[dict(zip(curve.steps, curve.dice, strict=True))[step] for step in common] for curve in found]
    return np.array(common, dtype=float), np.mean(dice, axis=0)


def curve_floor(curves: Sequence[np.ndarray]) -> float | None:
    """Gives the lowest Dice that is drawn: so low that the ends take a third of the scale; None where nothing is cut.

    Ends that lie far below the others, as where a variant failed, do not count.
    """
    ends = [float(y[-1]) for y in curves]
    top = max(ends, default=0.0)
    behind = sorted(top - end for end in ends)[1:]
    reach = max((gap for gap in behind if gap <= FAR * statistics.median(behind)), default=0.0)
    floor = top - 3 * reach
    return floor if reach > 0 and floor > min(float(y.min()) for y in curves) else None


def _curves(
    analysis: Analysis,
    means: Mapping[str, tuple[np.ndarray, np.ndarray]],
    file: str,
    unit: str,
    floor: float | None,
) -> Panel:
    styles = looks(analysis.records.study.names)
    known = {name: curve for name, curve in means.items() if len(curve[1])}
    strong = _strong(analysis)
    with drawing(height=3.7) as figure:
        axis = figure.add_subplot()
        for number, (name, (x, y)) in enumerate(known.items()):
            look = styles[name]
            every = max(2, len(x) // 4)
            axis.plot(
                x,
                y,
                color=look.colour,
                marker=look.marker,
                linestyle=look.line if name != analysis.baseline else "-",
                # Curves that coincide show their marks in turn; all show where they end.
                markevery=sorted({*range(number % every, len(x), every), len(x) - 1}),
                markersize=6.5 if name in strong else 5.5,
                markeredgecolor="white",
                markeredgewidth=0.4,
                linewidth=strong.get(name, 1.0),
                zorder=2 + list(strong).index(name) if name in strong else 1.5,
            )
        axis.set_xlabel(unit)
        axis.set_ylabel("validation Dice")
        axis.set_title(f"Dice against {unit}")
        top = max(float(y.max()) for _, y in known.values())
        if floor is not None:
            axis.set_ylim(floor, top + 0.06 * (top - floor))
        axis.set_ylim(*within(axis.get_ylim(), 0.0))
        longest = max(float(x[-1]) for x, _ in known.values())
        axis.set_xlim(right=longest + 0.3 * (longest - axis.get_xlim()[0]))  # room for names
        low = axis.get_ylim()[0]
        ends = {name: (float(x[-1]), float(y[-1])) for name, (x, y) in known.items() if y[-1] >= low}
        if ends:
            lines = [list(zip(x, y, strict=True)) for x, y in known.values()]
            label_points(axis, {name: name for name in ends}, ends, lines=lines)
        return panel(figure, file, _curves_alt(analysis, known, unit))


def _strong(analysis: Analysis) -> dict[str, float]:
    """Gives the widths of the lines that stand out: the baseline, and above it the recommended variant."""
    name = analysis.recommended
    return {analysis.baseline: 3.2} | ({name: 2.0} if name is not None else {})


def _curves_alt(analysis: Analysis, known: Mapping[str, tuple[np.ndarray, np.ndarray]], unit: str) -> str:
    """Says where the curves of interest end."""
    ends = {name: float(y[-1]) for name, (_, y) in known.items()}
    order = sorted(ends, key=lambda name: (-ends[name], name))
    shown = dict.fromkeys([*(name for name in _strong(analysis) if name in ends), order[0], order[-1]])
    said = ", ".join(f"{name} at {fixed(ends[name], 3)}" for name in shown)
    return (
        f"Validation Dice against {unit}, {counted(len(ends), 'curve')}: {said} at the end, of which {order[0]} is the "
        f"highest and {order[-1]} the lowest. How soon each variant gets there stands in the table of convergence."
    )
