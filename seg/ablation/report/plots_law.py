"""Figures of how preservation goes with the Dice lost, and of the widths that a spectrum predicts."""

from __future__ import annotations

from collections.abc import Sequence

from seg.ablation.report.analysis import Analysis
from seg.ablation.report.document import Figure
from seg.ablation.report.drawing import drawing, panel
from seg.ablation.report.numbers import counted, fixed, interval, listed

WORDS = {
    "ratio": "channels kept",
    "r2": "R² of linear reconstruction",
    "r2_pca": "R² of the best code (PCA)",
    "cka": "CKA, wide to narrow",
    "probe_dice_lost": "probe Dice lost",
    "amplified": "channels amplified",
    "suppressed": "channels suppressed",
}
"""Measures of the law by their name in the records."""


def laws(analysis: Analysis) -> Figure | None:
    """Draws the correlations of measures with the Dice lost; None where none could be taken."""
    known = [(law.measure, law.correlation) for law in analysis.worst_laws if law.correlation is not None]
    if not known:
        return None
    with drawing(height=1.1 + 0.34 * len(known)) as figure:
        axis = figure.add_subplot()
        for row, (_, found) in enumerate(known):
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
        axis.axvline(0, color="0.2", linewidth=1)
        axis.set_xlim(-1.05, 1.05)
        axis.set_yticks(range(len(known)), [WORDS[measure] for measure, _ in known], fontsize=8.5)
        axis.set_ylim(len(known) - 0.4, -0.6)
        axis.set_xlabel("correlation with the Dice lost")
        figure.legend(loc="outside upper left", ncols=2)
        measure, best = max(known, key=lambda item: abs(item[1].spearman))
        ends = interval(best.spearman_ci95, 2, sign=True) or "no interval"
        drawn = panel(
            figure,
            "law",
            f"Correlations of {len(known)} measures with the Dice lost: farthest from 0 is Spearman's of "
            f"{WORDS[measure]}, {fixed(best.spearman, 2, sign=True)} ({ends}). The values stand in the table below.",
        )
    return Figure(
        panels=(drawn,),
        caption="How each measure of the worst bottleneck of a network goes with the Dice that the variant lost, over "
        "all trials with bottlenecks; 95 % intervals resample variants. A measure that foretells a loss is far from 0 "
        "with an interval that does not reach it.",
    )


def widths(analysis: Analysis) -> Figure | None:
    """Draws effective rank, predicted width and the narrowest that lost nothing; None without a prediction."""
    known = analysis.predictions
    if not known:
        return None
    sides = (
        ("effective rank of the baseline", "D", "#CC79A7", [one.effective_rank for one in known]),
        ("predicted safe width", "o", "#0072B2", [one.width for one in known]),
        ("narrowest not inferior", "^", "#D55E00", [one.found for one in known]),
    )
    with drawing(height=1.5 + 0.3 * len(known)) as figure:
        axis = figure.add_subplot()
        for words, marker, colour, values in sides:
            points = [
                (100 * value / one.channels, row)
                for row, (one, value) in enumerate(zip(known, values, strict=True))
                if value is not None
            ]
            hollow = marker == "^"
            axis.plot(
                [x for x, _ in points],
                [row for _, row in points],
                color=colour,
                marker=marker,
                markerfacecolor="white" if hollow else colour,
                linestyle="none",
                label=words,
            )
        axis.set_yticks(range(len(known)), [one.name.replace("_", " ") for one in known])
        axis.set_ylim(len(known) - 0.5, -0.5)
        axis.margins(x=0.08)
        axis.set_xlim(left=0)
        axis.set_xlabel("channels, % of the stage's")
        figure.legend(loc="outside upper left", ncols=1, handletextpad=0.2)
        both = [one for one in known if one.found is not None]
        more = [one.name.replace("_", " ") for one in both if one.found is not None and one.width > one.found]
        drawn = panel(
            figure,
            "widths",
            f"Widths at {counted(len(known), 'place')} as shares of the stage's channels: predicted to be safe are "
            f"{_span([100 * one.width / one.channels for one in known])}; of {len(both)} with a finding the prediction "
            f"is wider than that at {listed(more) or 'none'}. The values stand in the table below.",
        )
    return Figure(
        panels=(drawn,),
        caption="The width that the baseline's spectrum predicts to be safe at each place, its effective rank, and the "
        "narrowest width there of a variant that was not inferior in any class.",
    )


def _span(values: Sequence[float]) -> str:
    """Writes the least and the largest share."""
    return " to ".join(dict.fromkeys(f"{value:.0f} %" for value in (min(values), max(values))))
