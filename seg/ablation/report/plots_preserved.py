"""Figures of what bottlenecks preserve, by stage and width."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from seg.ablation.report.analysis import Analysis
from seg.ablation.report.document import Figure, Panel
from seg.ablation.report.drawing import COLOURS, LINES, MARKERS, drawing, panel
from seg.ablation.report.failures import split
from seg.ablation.report.numbers import counted, fixed
from seg.ablation.report.order import line
from seg.ablation.report.preserved import Place, places

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PATHS = {"skip": "skip paths", "decoder": "decoder"}
Measure = Callable[[Place], float | None]
Sides = Sequence[tuple[str, Measure]]


@dataclass(frozen=True, kw_only=True)
class _Path:
    """What is drawn of one path.

    Attributes:
        name: ``skip`` or ``decoder``.
        ratios: Ratio of the variants that a line joins, from the narrowest up.
        places: Places of the path with a bottleneck, without runs that failed to learn.
        failed: The same of runs that failed to learn.
    """

    name: str
    ratios: Mapping[str, float]
    places: Sequence[Place]
    failed: Sequence[Place]

    @property
    def stages(self) -> list[int]:
        """Stages that have a bottleneck."""
        return sorted({place.stage for place in (*self.places, *self.failed)})


def preserved(analysis: Analysis) -> Figure | None:
    """Draws what bottlenecks keep by stage and width; None where nothing was measured."""
    sound, failed = (
        [place for place in places(records) if place.ratio is not None] for records in split(analysis.records)
    )
    variants = analysis.records.study.variants
    drawn: list[Panel] = []
    for name in PATHS:
        path = _Path(
            name=name,
            ratios=line(name, variants) or line("both", variants),
            places=[place for place in sound if place.path == name],
            failed=[place for place in failed if place.path == name],
        )
        if path.places:
            drawn += [_reconstruction(path), _probe(path), _cka(path)]
    if not drawn:
        return None
    lost = " Crosses are runs that failed to learn; no line counts them." if failed else ""
    return Figure(
        panels=tuple(drawn),
        caption="By stage (0 is full resolution) and share of the stage's channels that is kept, means over runs. "
        "Lines join the variants that narrow this path alone (a ratio above 1 expands: nothing need be lost); small "
        f"points are all other variants.{lost} First: linear reconstruction of the wide features from the narrow ones "
        "(filled), and the ceiling that principal components set at that width (hollow). Second: Dice of a linear "
        "probe on the narrow features (filled) and on the wide ones (hollow). Third: unbiased linear CKA, which can be "
        "moved at will and is never to be read alone.",
    )


def _draw(path: _Path, file: str, title: str, label: str, sides: Sides) -> Panel:
    """Draws one or two measures by width, a line for each stage; the second measure is hollow."""
    shown: list[float] = []
    with drawing(height=3.6) as figure:
        axis = figure.add_subplot()
        for number, stage in enumerate(path.stages):
            colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
            here = [place for place in path.places if place.stage == stage]
            for side, (word, measure) in enumerate(sides):
                points = _line(here, path.ratios, measure)
                shown += [x for x, _ in points]
                axis.plot(
                    [x for x, _ in points],
                    [y for _, y in points],
                    color=colour,
                    marker=marker,
                    linestyle=LINES[2 if side else 0],
                    markerfacecolor="white" if side else colour,
                    linewidth=1.0 if side else 1.5,
                    zorder=2 if side else 3,
                    label=", ".join(filter(None, (f"stage {stage}", word))),
                )
            # Of other variants the first measure alone: its ceiling hardly differs from the one that is drawn.
            others = [place for place in here if place.variant not in path.ratios]
            failed = [place for place in path.failed if place.stage == stage]
            for group, shape, size in ((others, marker, 3.0), (failed, "x", 4.5)):
                loose = _loose(group, sides[0][1])
                shown += [x for x, _ in loose]
                axis.plot(
                    [x for x, _ in loose],
                    [y for _, y in loose],
                    color=colour,
                    marker=shape,
                    markersize=size,
                    linestyle="none",
                    alpha=0.55,
                    zorder=1.5,
                )
        _set_ratios(axis, shown)
        axis.set_ylabel(label)
        axis.set_title(title)
        figure.legend(loc="outside lower left", ncols=len(sides), fontsize=8, handlelength=2.8)
        return panel(figure, file, _alt(path, title, label, sides[0][1]))


def _line(here: Sequence[Place], ratios: Mapping[str, float], measure: Measure) -> list[tuple[float, float]]:
    """Gives the points of the variants that a line joins, from the narrowest up."""
    found = {place.variant: measure(place) for place in here}
    return [(ratio, value) for name, ratio in ratios.items() if (value := found.get(name)) is not None]


def _loose(here: Sequence[Place], measure: Measure) -> list[tuple[float, float]]:
    values = [(place.ratio, measure(place)) for place in here]
    return [(x, y) for x, y in values if x is not None and y is not None]


def _set_ratios(axis: Axes, shown: Sequence[float]) -> None:
    """Makes the scale of ratios logarithmic with powers of two alone as ticks."""
    low, high = (math.log2(end) for end in (min(shown, default=1.0), max(shown, default=1.0)))
    axis.set_xscale("log", base=2)
    axis.set_xlim(2 ** (low - 0.25), 2 ** (high + 0.25))
    powers = range(math.ceil(low - 0.25), math.floor(high + 0.25) + 1)
    axis.set_xticks([2.0**power for power in powers], [ratio_words(power) for power in powers])
    axis.minorticks_off()
    if high > 0:
        axis.axvline(1, color="0.6", linewidth=0.8, zorder=1)
    axis.set_xlabel("channels kept, share of the stage's")


def ratio_words(power: int) -> str:
    """Writes a power of two as a ratio."""
    return str(2**power) if power >= 0 else f"1/{2**-power}"


def _alt(path: _Path, title: str, label: str, measure: Measure) -> str:
    """Says how far a measure falls from the widest variant of the line to the narrowest."""
    said = []
    for stage in path.stages:
        points = _line([place for place in path.places if place.stage == stage], path.ratios, measure)
        if points:
            ends = " to ".join(fixed(y, 2) for _, y in dict((points[-1], points[0])).items())
            said.append(f"stage {stage} {ends}")
    widths = list(path.ratios.values())
    over = f" from ratio {widths[-1]:g} to {widths[0]:g}: {', '.join(said)}" if said else ""
    return (
        f"{title}: {label} at {counted(len(path.stages), 'stage')}{over}. The values stand in the table of all "
        "measures by variant and place."
    )


def _reconstruction(path: _Path) -> Panel:
    sides: Sides = (
        ("kept", lambda place: place.values.get("r2")),
        ("ceiling", lambda place: place.values.get("r2_pca")),
    )
    return _draw(path, f"preserved_r2_{path.name}", f"Reconstruction, {PATHS[path.name]}", "R²", sides)


def _probe(path: _Path) -> Panel:
    sides: Sides = (
        ("narrow", lambda place: place.values.get("probe_narrow")),
        ("wide", lambda place: place.values.get("probe_wide")),
    )
    return _draw(path, f"preserved_probe_{path.name}", f"Linear probe, {PATHS[path.name]}", "Dice of the probe", sides)


def _cka(path: _Path) -> Panel:
    sides: Sides = (("", lambda place: place.values.get("cka")),)
    return _draw(path, f"preserved_cka_{path.name}", f"CKA, {PATHS[path.name]}", "CKA", sides)
