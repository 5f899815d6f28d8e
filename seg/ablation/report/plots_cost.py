"""Figures of what a variant costs: speed, and how soon it converges."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from seg.ablation.report.analysis import Analysis, step_seconds
from seg.ablation.report.document import Figure, Panel
from seg.ablation.report.drawing import Look, drawing, legend_panel, looks, name_rows, panel
from seg.ablation.report.numbers import counted, fixed, listed, times
from seg.ablation.report.scale import FAR
from seg.ablation.report.study import DeviceSpeed

RATIOS = {
    "latency_ratio": ("network, batch 1", "o", "#0072B2"),
    "training_step_ratio": ("training step", "s", "#D55E00"),
    "prediction_ratio": ("end to end", "^", "#009E73"),
}
"""Ratios of speed by their name in the records, with their words and looks."""

MOST_CURVES = 7
"""Curves of one panel that can still be told apart."""


def speed(device: DeviceSpeed, names: Sequence[str], baseline: str) -> Figure | None:
    """Draws the ratios of speed on one device; None where none was measured."""
    measured = [name for name in names if name != baseline and _ratios(device, name)]
    if not measured:
        return None
    styles = looks(names)
    said = []
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
        for name in measured:
            values = [f"{RATIOS[key][0]} {times(value)}" for key, value in _ratios(device, name).items()]
            said.append(f"{name}: {', '.join(values)}")
        axis.axvline(1, color="0.2", linewidth=1)
        name_rows(axis, measured, styles)
        axis.set_xlabel(f"times as fast as {baseline}")
        figure.legend(loc="outside upper left", ncols=3, handletextpad=0.2, columnspacing=1.0)
        drawn = panel(figure, f"speed_{device.slug}", f"Speed over that of the baseline. {'; '.join(said)}.")
    return Figure(
        panels=(drawn,),
        caption="Speed of each variant over that of the baseline in the same round: medians with quartiles; right of 1 "
        "is faster.",
    )


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
    drawn = [_curves(means, styles, "convergence_steps", "training steps", floor)]
    seconds = {name: step_seconds(analysis.device, name) for name in names}
    timed = {name: (means[name][0] * value, means[name][1]) for name, value in seconds.items() if value is not None}
    note = "The time of a step was not measured, so there is no figure against seconds."
    if timed and analysis.device is not None:
        drawn.append(_curves(timed, styles, "convergence_seconds", "seconds of training steps", floor))
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
        caption=f"Validation Dice during training, mean over the trials of a variant.{which} {note}",
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
    means: Mapping[str, tuple[np.ndarray, np.ndarray]],
    styles: Mapping[str, Look],
    file: str,
    unit: str,
    floor: float | None,
) -> Panel:
    with drawing() as figure:
        axis = figure.add_subplot()
        for name, (x, y) in means.items():
            look = styles[name]
            axis.plot(
                x,
                y,
                color=look.colour,
                marker=look.marker,
                linestyle=look.line,
                markevery=max(1, len(x) // 8),
                markersize=5,
                linewidth=1.4,
            )
        axis.set_xlabel(unit)
        axis.set_ylabel("validation Dice")
        axis.set_title(f"Dice against {unit}")
        if floor is not None:
            top = max(float(y.max()) for _, y in means.values() if len(y))
            axis.set_ylim(floor, top + 0.06 * (top - floor))
        ends = "; ".join(f"{name} ends at {fixed(float(y[-1]), 3)}" for name, (_, y) in means.items() if len(y))
        return panel(figure, file, f"Validation Dice against {unit}. {ends}.")
