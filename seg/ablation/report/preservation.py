"""Averages what bottlenecks preserve over trials, and correlates it with the Dice lost."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

import pandas as pd

from seg.ablation.plan import StudyPlan, VariantPlan, changes_text
from seg.ablation.statistics import Correlation, correlate
from seg.ablation.store import Results
from seg.evaluation.metrics import finite_mean

RUN = ["variant", "fold", "seed"]
BOTTLENECKS = ("network.skip_bottleneck", "network.decoder_bottleneck")
AVERAGED = ["r2", "r2_pca", "effective_rank", "participation_ratio", "cka", "amplified", "suppressed"]
"""Measures of a place whose means over trials are shown, beside the Dice of its probes."""
MEASURES = {
    "ratio": "min",
    "r2": "min",
    "r2_pca": "min",
    "cka": "min",
    "probe_dice_lost": "max",
    "amplified": "max",
    "suppressed": "max",
}
"""Measures that may predict the Dice lost, and whether the largest or the smallest value is a network's worst."""


@dataclass(frozen=True, kw_only=True)
class Law:
    """The correlation between a measure of preservation and the Dice that trials lost.

    Attributes:
        measure: The measure.
        where: ``worst``, of the worst bottleneck of each trial; ``skip`` or ``decoder``, of every bottleneck of that
            path; ``stage_0``, ..., of every bottleneck of that stage, 0 at full resolution.
        correlation: The correlation; None where points are too few or do not vary.
        num_points: Points with the measure: trials for ``worst``, else bottlenecks of trials.
    """

    measure: str
    where: str
    correlation: Correlation | None
    num_points: int


def read_places(results: Results) -> pd.DataFrame:
    """Returns the rows of ``results.preservation`` of finished trials, with the measures that are made of others.

    These are ratio (narrow over stage channels), probe_wide and probe_narrow (the probe's mean Dice over classes), and
    probe_dice_lost (their difference). What was not measured is missing.
    """
    finished = results.trials.trial[results.trials.status == "finished"]
    frame = results.preservation[results.preservation.trial.isin(finished)]
    numbers = ["wide", "narrow", "channels", *AVERAGED]
    needed = ["path", "stage", "probe_dice_wide", "probe_dice_narrow", *numbers]
    frame = frame.reindex(columns=[*frame.columns, *(name for name in needed if name not in frame)])
    for side in ("wide", "narrow"):
        means = [finite_mean(dice) if isinstance(dice, tuple) else None for dice in frame[f"probe_dice_{side}"]]
        frame[f"probe_{side}"] = pd.Series(means, frame.index, dtype=float)
    frame[numbers] = frame[numbers].astype(float)
    frame["ratio"] = frame["narrow"] / frame["channels"]
    frame["probe_dice_lost"] = frame["probe_wide"] - frame["probe_narrow"]
    return frame


def mean_places(results: Results) -> pd.DataFrame:
    """Averages each place of each variant over its trials, in the order of the study.

    Returns:
        A row for each place: variant, place, channels, wide, narrow, the measures in `AVERAGED`, probe_wide,
        probe_narrow and num_runs. What was not measured, and narrow of a place without a bottleneck, is missing.
    """
    mean = dict.fromkeys((*AVERAGED, "probe_wide", "probe_narrow"), _mean)
    first = dict.fromkeys(("channels", "wide", "narrow"), "first")
    groups = read_places(results).groupby(["variant", "place"], sort=False)
    frame = groups.agg({**first, **mean}).assign(num_runs=groups.size()).reset_index()
    order = {name: number for number, name in enumerate(results.study.names)}
    return frame.sort_values("variant", key=lambda names: names.map(order), kind="stable", ignore_index=True)


def _mean(values: pd.Series) -> float:
    known = values.dropna()
    return fmean(known) if len(known) else float("nan")


def find_laws(results: Results) -> tuple[Law, ...]:
    """Correlates every measure of preservation with the Dice lost; variants are what is resampled.

    Dice is lost against the control of the variant in the same fold and seed. A network loses Dice as a whole, wherever
    its features were lost, so its bottlenecks are no independent rows: the worst of them, by measure, makes one.

    Returns:
        Laws of every measure for the worst bottleneck, then for each path, then for each stage that has a bottleneck.
    """
    dice = _trial_dice(results)
    control = find_controls(results.study)
    rows = read_places(results)
    rows = rows[rows.narrow.notna() & (rows.variant != rows.variant.map(control))]
    own, reference = (
        pd.MultiIndex.from_arrays([names, rows.fold, rows.seed]) for names in (rows.variant, rows.variant.map(control))
    )
    rows = rows.assign(lost=dice.reindex(reference).to_numpy() - dice.reindex(own).to_numpy()).dropna(subset=["lost"])
    worst = rows.groupby(RUN, sort=False).agg({**MEASURES, "lost": "first"}).reset_index()
    laws = _correlate(worst, "worst")
    for path in ("skip", "decoder"):
        laws += _correlate(rows[rows.path == path], path) if (rows.path == path).any() else []
    for stage in sorted(rows.stage.unique()):
        laws += _correlate(rows[rows.stage == stage], f"stage_{stage}")
    return tuple(laws)


def _correlate(rows: pd.DataFrame, where: str) -> list[Law]:
    laws = []
    for measure in MEASURES:
        known = rows[rows[measure].notna()]
        # Narrow bottlenecks preserve less and lose more: what a measure tells beyond the width is what is new.
        given = None if measure == "ratio" else known.ratio.tolist()
        found = correlate(known[measure].tolist(), known.lost.tolist(), clusters=known.variant.tolist(), given=given)
        laws.append(Law(measure=measure, where=where, correlation=found, num_points=len(known)))
    return laws


def _trial_dice(results: Results) -> pd.Series:
    """Returns the mean Dice of each finished trial: over classes, of the mean over cases."""
    dice = results.scores[results.scores.metric == "dice"].dropna(subset=["value"])
    by_class = dice.groupby([*RUN, "class_index"], sort=False)["value"].apply(fmean)
    return by_class.groupby(RUN, sort=False).apply(fmean)


def find_controls(study: StudyPlan) -> dict[str, str]:
    """Names for each variant the one that has all its other changes and no bottleneck; the baseline where none has.

    A flat network with bottlenecks loses Dice for its channels and for its bottlenecks: the flat one tells them apart.
    """
    plain = {
        _others(variant): variant.name
        for variant in study.variants
        if _others(variant) == changes_text(variant.changes)
    }
    plain[changes_text({})] = study.baseline
    return {variant.name: plain.get(_others(variant), study.baseline) for variant in study.variants}


def _others(variant: VariantPlan) -> str:
    """Returns what a variant changes beside bottlenecks, as a text that is equal where the changes are."""
    return changes_text({path: value for path, value in variant.changes.items() if not path.startswith(BOTTLENECKS)})
