"""Tables of what bottlenecks preserve, and of how that goes with the Dice lost."""

from __future__ import annotations

from collections.abc import Mapping

from seg.ablation.report.analysis import Analysis
from seg.ablation.report.document import Cell, Table, row
from seg.ablation.report.laws import WORST, Law
from seg.ablation.report.numbers import NOT_MEASURED, NOTHING, counted, fixed, interval, listed
from seg.ablation.report.plots_law import WORDS
from seg.ablation.report.preserved import Place, places
from seg.ablation.statistics import Correlation
from seg.ablation.statistics.correlation import MIN_POINTS
from seg.evaluation.scores import Interval

PATHS = {"skip": "skips", "decoder": "decoder"}


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
    """Gives the correlation of each measure with the Dice lost, and what it tells beyond the width within each path."""
    laws = {(law.measure, law.where): law for law in analysis.laws}
    paths = [path for path in PATHS if any(where == path for _, where in laws)]
    rows = []
    for law in analysis.worst_laws:
        found = law.correlation
        cells = [Cell(text=_no_correlation(law))] * 2
        if found is not None:
            cells = [
                Cell(text=fixed(found.spearman, 2, sign=True), note=interval(found.spearman_ci95, 2, sign=True)),
                Cell(text=fixed(found.pearson, 2, sign=True), note=interval(found.pearson_ci95, 2, sign=True)),
            ]
        partial = [_partial(laws[law.measure, path]) for path in paths]
        clusters = NOTHING if found is None else str(found.num_clusters)
        rows.append(row(WORDS[law.measure], *cells, *partial, str(law.num_points), clusters))
    return Table(
        columns=(
            "Measure",
            "Spearman",
            "Pearson",
            *(f"Spearman given the width, {PATHS[path]}" for path in paths),
            "Trials",
            "Variants",
        ),
        rows=tuple(rows),
        caption="Correlation of each measure, at the worst bottleneck of a trial, with the Dice that the trial lost "
        "against the baseline of its fold and seed, or against the variant that has its other changes and no "
        "bottleneck. Given the width means a partial correlation: what the measure tells beyond the channels kept. It "
        "is taken over the bottlenecks of one path alone, as skips and decoder of one width differ in what they cost. "
        "Intervals (95 %) resample variants, need four of them, and are uncorrected. Below four trials nothing is "
        "correlated.",
    )


def _partial(law: Law) -> str | Cell:
    found = law.correlation
    if law.measure == "ratio" or found is None or found.partial is None:
        return NOTHING
    return Cell(text=fixed(found.partial, 2, sign=True), note=interval(found.partial_ci95, 2, sign=True))


def result_sentences(analysis: Analysis) -> list[str]:
    """Says what the measures show, in one paragraph: of position, of the Dice lost, and beyond width and path."""
    said = []
    checked = [place for place in places(analysis.records) if place.position_preserved is not None]
    if checked:
        kept = sum(bool(place.position_preserved) for place in checked)
        said.append(f"Position was kept exactly at {kept} of {counted(len(checked), 'bottleneck')} that were checked.")
    laws = {(law.measure, law.where): law.correlation for law in analysis.laws if law.correlation is not None}
    correlated = _with_loss({measure: found for (measure, where), found in laws.items() if where == WORST})
    beyond = {
        path: _beyond({measure: found for (measure, where), found in laws.items() if where == path}) for path in PATHS
    }
    known = {path: words for path, words in beyond.items() if words is not None}
    said += [correlated] if correlated else []
    if known and not any(known.values()):
        said.append("Beyond the width, within each path, no measure is shown to go with the loss.")
    elif known:
        parts = [f"{words or 'no measure'} in the {PATHS[path]}" for path, words in known.items()]
        said.append(f"Beyond the width, within each path, these are shown to go with the loss: {'; '.join(parts)}.")
    if correlated or known:
        said.append("Intervals (95 %) are uncorrected for the number of measures.")
    return [" ".join(said)] if said else []


def _with_loss(worst: Mapping[str, Correlation]) -> str:
    """Says which measures go with the Dice lost; empty where there is no interval."""
    if all(found.spearman_ci95 is None for found in worst.values()):
        return ""
    told = [measure for measure, found in worst.items() if _apart(found.spearman_ci95)]
    if not told:
        return "No measure is shown to go with the Dice lost."
    told.sort(key=lambda measure: -abs(worst[measure].spearman))
    named = [f"{WORDS[measure]} ({fixed(worst[measure].spearman, 2, sign=True)})" for measure in told]
    return f"With the Dice lost go, width and path not taken out (Spearman): {listed(named)}."


def _beyond(laws: Mapping[str, Correlation]) -> str | None:
    """Names the measures of one path that go with the loss beyond the width; None where there is no interval."""
    known = {measure: found for measure, found in laws.items() if found.partial_ci95 is not None}
    if not known:
        return None
    return listed(
        [
            f"{WORDS[measure]} ({fixed(found.partial, 2, sign=True)}, {interval(found.partial_ci95, 2, sign=True)})"
            for measure, found in known.items()
            if _apart(found.partial_ci95)
        ]
    )


def _apart(ci95: Interval | None) -> bool:
    """Tells whether an interval lies apart from 0."""
    return ci95 is not None and (ci95[0] > 0 or ci95[1] < 0)


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
