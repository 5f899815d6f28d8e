"""Tables of what bottlenecks preserve, of the law, and of predicted widths beside those found."""

from __future__ import annotations

from seg.ablation.report.analysis import Analysis
from seg.ablation.report.document import Cell, Table, row
from seg.ablation.report.laws import WORST, Law
from seg.ablation.report.numbers import NOT_MEASURED, NOTHING, counted, fixed, interval, listed
from seg.ablation.report.plots_law import WORDS
from seg.ablation.report.preserved import THRESHOLD, Place, places
from seg.ablation.statistics.correlation import MIN_POINTS


def place_table(analysis: Analysis) -> Table:
    """Gives what is preserved at every place of every variant."""
    rows = [
        row(
            place.variant,
            place.name.replace("_", " "),
            f"{place.wide} to {place.narrow}" if place.narrow is not None else f"{place.wide}, all kept",
            *(_value(place, key, 3) for key in ("r2", "r2_pca")),
            *(_value(place, key, 1) for key in ("effective_rank", "participation_ratio")),
            *(_value(place, key, 3) for key in ("cka", "probe_wide", "probe_narrow", "amplified", "suppressed")),
            _position(place),
        )
        for place in places(analysis.records)
    ]
    return Table(
        columns=(
            "Variant",
            "Place",
            "Channels",
            "R²",
            "R² ceiling",
            "Effective rank",
            "Participation ratio",
            "CKA",
            "Probe Dice, wide",
            "Probe Dice, narrow",
            "Amplified",
            "Suppressed",
            "Position kept",
        ),
        rows=tuple(rows),
        caption="What each bottleneck preserves of the features that enter it, over all voxels of the held-out cases, "
        "means over trials. R²: share of variance that a linear map gets back from the narrow features; its ceiling is "
        "that of the best linear code of the same width. Position kept: the whole Jacobian of an output voxel is zero "
        "at every other voxel, with the statistics of an instance norm held fixed.",
        wide=True,
    )


def _value(place: Place, key: str, digits: int) -> str:
    value = place.values.get(key)
    # Without a bottleneck there is nothing narrow: that is no gap in the measurement.
    if value is None and place.narrow is None and key not in ("effective_rank", "participation_ratio", "probe_wide"):
        return NOTHING
    return fixed(value, digits)


def _position(place: Place) -> str:
    if place.position_preserved is None:
        return NOTHING if place.narrow is None else NOT_MEASURED
    return "yes" if place.position_preserved else "no"


def law_table(analysis: Analysis) -> Table:
    """Gives the correlation of each measure with the Dice lost."""
    rows = []
    for law in analysis.worst_laws:
        found = law.correlation
        if found is None:
            none = _no_correlation(law)
            rows.append(row(WORDS[law.measure], none, none, none, str(law.num_points), NOTHING))
            continue
        rows.append(
            row(
                WORDS[law.measure],
                Cell(text=fixed(found.spearman, 2, sign=True), note=interval(found.spearman_ci95, 2, sign=True)),
                Cell(text=fixed(found.pearson, 2, sign=True), note=interval(found.pearson_ci95, 2, sign=True)),
                NOTHING
                if found.partial is None
                else Cell(text=fixed(found.partial, 2, sign=True), note=interval(found.partial_ci95, 2, sign=True)),
                str(found.num_points),
                str(found.num_clusters),
            )
        )
    return Table(
        columns=("Measure", "Spearman", "Pearson", "Spearman given the width", "Trials", "Variants"),
        rows=tuple(rows),
        caption="Correlation of each measure, at the worst bottleneck of a trial, with the Dice that the trial lost "
        "against the baseline of its fold and seed, or against the variant that has its other changes and no "
        "bottleneck; 95 % intervals resample variants, and need four of them. Given the width means a partial "
        "correlation: what the measure tells beyond the channels kept. Below four trials nothing is correlated.",
    )


def _no_correlation(law: Law) -> str:
    """Says why there is none: too few points, or a measure that is the same in all of them."""
    return NOT_MEASURED if law.num_points < MIN_POINTS else "does not vary"


def place_law_table(analysis: Analysis) -> Table:
    """Gives Spearman's correlation of each measure with the Dice lost, for each path and each stage alone."""
    laws = {(law.measure, law.where): law for law in analysis.laws if law.where != WORST}
    sides = list(dict.fromkeys(where for _, where in laws))
    heads = {"skip": "Skips", "decoder": "Decoder"}
    return Table(
        columns=("Measure", *(heads.get(side, side.replace("_", " ").capitalize()) for side in sides)),
        rows=tuple(
            row(WORDS[measure], *(_place_law(laws[measure, side]) for side in sides))
            for measure in dict.fromkeys(measure for measure, _ in laws)
        ),
        caption="Spearman's correlation of each measure with the Dice that the trial lost, over the bottlenecks of one "
        "path at all stages, or of one stage in both paths; below it the 95 % interval, which resamples variants, and "
        "the number of bottlenecks. A trial loses Dice as a whole, so bottlenecks of other places take their part in "
        "it. Pearson's correlations stand in results.csv.",
        wide=True,
    )


def _place_law(law: Law) -> Cell:
    found = law.correlation
    if found is None:
        return Cell(text=_no_correlation(law), note=f"{law.num_points} points")
    reach = interval(found.spearman_ci95, 2, sign=True) or "no interval"
    return Cell(text=fixed(found.spearman, 2, sign=True), note=f"{reach}; {found.num_points} points")


def width_table(analysis: Analysis) -> Table:
    """Gives predicted widths beside those that the study found."""
    rows = [
        row(
            one.name.replace("_", " "),
            str(one.channels),
            fixed(one.effective_rank, 1),
            f"{one.width} of {one.channels}",
            "none found" if one.found is None else Cell(text=f"{one.found} of {one.channels}", note=one.variant or ""),
            NOT_MEASURED if one.tried is None else str(one.tried),
        )
        for one in analysis.predictions
    ]
    return Table(
        columns=(
            "Place",
            "Channels",
            "Effective rank of the baseline",
            "Predicted safe width",
            "Narrowest not inferior",
            "Narrowest tried",
        ),
        rows=tuple(rows),
        caption=f"Widths that the spectrum of the trained baseline predicts to be safe: the fewest principal "
        f"components that keep {100 * THRESHOLD:.0f} % of the variance of the features that enter. Beside them the "
        "narrowest width of a variant that was not inferior in any class, and the narrowest that was tried there.",
    )


def width_sentences(analysis: Analysis) -> list[str]:
    """Says how prediction and finding compare, and what became of a variant that trains the predicted widths."""
    if not analysis.predictions:
        return [f"Safe widths were not predicted: {analysis.unpredicted}."]
    found = [one for one in analysis.predictions if one.found is not None]
    below = [one.name.replace("_", " ") for one in found if one.found is not None and one.found < one.width]
    said = []
    if below:
        said.append(
            f"The prediction asks for more than was needed at {counted(len(below), 'place')} of {len(found)} with a "
            f"finding: {listed(below)}."
        )
    elif found:
        said.append(
            f"At no place of {len(found)} with a finding did a width below the predicted one prove not inferior."
        )
    # A variant is made from one trained baseline alone, so each trial of the baseline makes a prediction of its own.
    by_trial = zip(*(one.widths for one in analysis.predictions), strict=True)
    names = [one.name for one in analysis.predictions]
    predicted = [dict(zip(names, widths, strict=True)) for widths in by_trial]
    widths: dict[str, dict[str, int | None]] = {}
    for place in places(analysis.records):
        widths.setdefault(place.variant, {})[place.name] = place.narrow
    trained = [name for name, own in widths.items() if own in predicted]
    for name in trained:
        one = analysis.comparisons.get(name)
        if one is not None and one.difference is not None:
            verdict = "not inferior in any class" if one.non_inferior else "not shown to be not inferior"
            said.append(
                f"{name} has just the widths that one trial of the baseline predicts: its Dice differs by "
                f"{fixed(one.difference, 4, sign=True)} "
                f"({interval(one.ci95, 4, sign=True) or 'no interval'}), {verdict}."
            )
    if not trained:
        said.append("A variant of just the predicted widths at every place: not measured.")
    return said
