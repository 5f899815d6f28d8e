"""Figures of what bottlenecks preserve, and of how that goes with the Dice lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from seg.ablation.report.analysis import Analysis
from seg.ablation.report.document import Figure, Panel
from seg.ablation.report.drawing import COLOURS, LINES, MARKERS, drawing, panel
from seg.ablation.report.numbers import fixed, interval
from seg.ablation.report.preserved import Place, places

WORDS = {
    "ratio": "channels kept",
    "r2": "R² of linear reconstruction",
    "r2_pca": "R² of the best code (PCA)",
    "cka": "CKA, wide to narrow",
    "probe_dice_lost": "probe Dice lost",
    "amplified": "directions amplified",
    "suppressed": "directions suppressed",
}
"""Measures of the law by their name in the records."""

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
        caption="By stage (0 is full resolution) and share of the stage's channels that is kept; each point is a "
        "variant, the mean over its trials. First: linear reconstruction of the wide features from the narrow ones "
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
                points = sorted(
                    (place.ratio, value)
                    for place in here
                    if place.stage == stage and place.ratio is not None and (value := measure(place)) is not None
                )
                if not points:
                    continue
                axis.plot(
                    [x for x, _ in points],
                    [y for _, y in points],
                    color=colour,
                    marker=marker,
                    linestyle=LINES[side + (1 if side else 0)],
                    markerfacecolor="white" if side else colour,
                    linewidth=1.0 if side else 1.4,
                    label=f"stage {stage}, {word}",
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


def laws(analysis: Analysis) -> Figure | None:
    """Draws the correlations of measures with the Dice lost; None where none could be taken."""
    known = [(law.measure, law.correlation) for law in analysis.laws if law.correlation is not None]
    if not known:
        return None
    said = []
    with drawing(6.4, 1.1 + 0.34 * len(known)) as figure:
        axis = figure.add_subplot()
        for row, (measure, found) in enumerate(known):
            pairs = (
                (found.spearman, found.spearman_ci95, "o", "#0072B2", "Spearman", -0.13),
                (found.pearson, found.pearson_ci95, "s", "#D55E00", "Pearson", 0.13),
            )
            for value, reach, marker, colour, word, shift in pairs:
                low, high = reach or (value, value)
                axis.errorbar(
                    value,
                    row + shift,
                    xerr=[[max(0.0, value - low)], [max(0.0, high - value)]],
                    color=colour,
                    marker=marker,
                    markerfacecolor=colour if marker == "o" else "white",
                    capsize=2.5,
                    label=word if row == 0 else None,
                )
            ends = interval(found.spearman_ci95, 2, sign=True) or "no interval"
            said.append(f"{WORDS[measure]}: {fixed(found.spearman, 2, sign=True)} ({ends})")
        axis.axvline(0, color="0.2", linewidth=1)
        axis.set_xlim(-1.05, 1.05)
        axis.set_yticks(range(len(known)), [WORDS[measure] for measure, _ in known], fontsize=8.5)
        axis.set_ylim(len(known) - 0.4, -0.6)
        axis.set_xlabel("correlation with the Dice lost")
        figure.legend(loc="outside upper left", ncols=2)
        drawn = panel(figure, "law", f"Spearman correlations with the Dice lost. {'; '.join(said)}.")
    return Figure(
        panels=(drawn,),
        caption="How each measure of the worst bottleneck of a network goes with the Dice that the variant lost, over "
        "all trials with bottlenecks; 95 % intervals resample variants. A measure that foretells a loss is far from 0 "
        "with an interval that does not reach it.",
        whole=True,
    )
