"""Figures of what bottlenecks preserve, and of how that goes with the Dice lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean

from seg.ablation.report.analysis import Analysis
from seg.ablation.report.document import Figure, Panel
from seg.ablation.report.drawing import COLOURS, LINES, MARKERS, drawing, panel
from seg.ablation.report.numbers import fixed
from seg.ablation.report.preserved import Place, places

PATHS = {"skip": "skip paths", "decoder": "decoder"}


def preserved(analysis: Analysis) -> Figure | None:
    """Draws what bottlenecks keep by stage and width; None where nothing was measured."""
    narrowed = [place for place in places(analysis.records) if place.ratio is not None]
    drawn: list[Panel] = []
    for path, words in PATHS.items():
        here = [place for place in narrowed if place.path == path]
        if here:
            drawn += [_reconstruction(here, path, words), _probe(here, path, words), _cka(here, path, words)]
    if not drawn:
        return None
    return Figure(
        panels=tuple(drawn),
        caption="By stage (0 is full resolution) and share of the stage's channels that is kept; small points are "
        "variants, large ones their mean. First: linear reconstruction of the wide features from the narrow ones "
        "(filled), and the ceiling that principal components set at that width (hollow). Second: Dice of a linear "
        "probe on the narrow features (filled) and on the wide ones (hollow). Third: unbiased linear CKA, which can be "
        "moved at will and is never to be read alone.",
    )


def _stages(here: Sequence[Place]) -> list[int]:
    return sorted({place.stage for place in here})


def _draw(
    here: Sequence[Place],
    file: str,
    title: str,
    label: str,
    sides: Sequence[tuple[str, Callable[[Place], float | None]]],
) -> Panel:
    """Draws one or two measures by width, a line for each stage; the second measure is hollow."""
    said = []
    with drawing(height=3.6) as figure:
        axis = figure.add_subplot()
        for number, stage in enumerate(_stages(here)):
            colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
            for side, (word, measure) in enumerate(sides):
                by_ratio = _by_ratio([place for place in here if place.stage == stage], measure)
                if not by_ratio:
                    continue
                points = [(x, y) for x, values in by_ratio.items() for y in values]
                axis.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=3, linestyle="none")
                axis.plot(
                    list(by_ratio),
                    [fmean(values) for values in by_ratio.values()],
                    color=colour,
                    marker=marker,
                    linestyle=LINES[2 if side else 0],
                    markerfacecolor="white" if side else colour,
                    linewidth=1.0 if side else 1.4,
                    label=", ".join(filter(None, (f"stage {stage}", word))),
                )
                said += [f"stage {stage} {word} at {x:.3g}: {fixed(y, 3)}" for x, y in points]
        axis.set_xscale("log", base=2)
        ticks = sorted({round(place.ratio, 4) for place in here if place.ratio is not None})
        apart = [tick for i, tick in enumerate(ticks) if i == 0 or tick > 1.4 * ticks[i - 1]]
        axis.set_xticks(apart, [_ratio(tick) for tick in apart])
        axis.minorticks_off()
        axis.set_xlabel("channels kept, share of the stage's")
        axis.set_ylabel(label)
        axis.set_title(title)
        figure.legend(loc="outside lower left", ncols=len(sides), fontsize=8, handlelength=2.8)
        return panel(figure, file, f"{title}. {'; '.join(said)}.")


def _by_ratio(here: Sequence[Place], measure: Callable[[Place], float | None]) -> dict[float, list[float]]:
    """Gives the values of the variants that keep the same share, from the narrowest up."""
    found: dict[float, list[float]] = {}
    for place in here:
        value = measure(place)
        if place.ratio is not None and value is not None:
            found.setdefault(place.ratio, []).append(value)
    return dict(sorted(found.items()))


def _ratio(value: float) -> str:
    """Writes a ratio as a fraction where it is one of a whole number."""
    whole = round(1 / value)
    return f"1/{whole}" if value < 1 and abs(1 / value - whole) < 0.01 * whole else f"{value:.2g}"


def _reconstruction(here: Sequence[Place], path: str, words: str) -> Panel:
    sides = (("kept", lambda place: place.values.get("r2")), ("ceiling", lambda place: place.values.get("r2_pca")))
    return _draw(here, f"preserved_r2_{path}", f"Reconstruction, {words}", "R²", sides)


def _probe(here: Sequence[Place], path: str, words: str) -> Panel:
    sides = (
        ("narrow", lambda place: place.values.get("probe_narrow")),
        ("wide", lambda place: place.values.get("probe_wide")),
    )
    return _draw(here, f"preserved_probe_{path}", f"Linear probe, {words}", "Dice of the probe", sides)


def _cka(here: Sequence[Place], path: str, words: str) -> Panel:
    return _draw(here, f"preserved_cka_{path}", f"CKA, {words}", "CKA", (("", lambda place: place.values.get("cka")),))
