"""All that a report computes from the results of a study."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
import pandas as pd

from seg.ablation.report.labels import Label, label_variants
from seg.ablation.report.preservation import Law, find_laws, mean_places
from seg.ablation.statistics import (
    Comparison,
    Convergence,
    Curve,
    Effect,
    Mean,
    RankStability,
    Recommendation,
    Trials,
    Verdict,
    convergence,
    estimate_effect,
    judge,
    mean_over_runs,
    paired,
    rank_stability,
    recommend,
)
from seg.ablation.store import Results
from seg.evaluation.differences import Pair, patient_means, score_arrays
from seg.evaluation.metrics import METRICS, ClassScores
from seg.evaluation.scores import CaseScore

SCORES = tuple(METRICS)
ARITHMETIC = ("precision", "instruction_sets", "torch", "threads", "device")
"""What two trials of a pair are computed with, and must share for their difference to be that of the variants alone."""

Spread = tuple[float, float | None, float | None]
"""A value with its quartiles, or without."""


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Training less validation Dice of a variant.

    Attributes:
        train: Mean Dice on training cases, over runs.
        validation: Mean Dice on held-out cases.
        gap: The difference.
        difference: Gap less the baseline's of the same fold and seed, over the runs that both have.
    """

    train: float
    validation: float
    gap: Mean
    difference: Mean


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What the results of a study show.

    Attributes:
        results: The results.
        labels: Labels of the variants by name, in the order of tables and figures.
        dice: Dice by variant and class index (0 is the mean over classes) where there is a score, with its interval
            over runs and patients, within 0 to 1.
        comparisons: Each variant against the baseline by name; empty where the baseline has no finished trial.
        verdicts: What is shown of each variant, by name.
        unequal: What a variant and the baseline were computed with, by name of the variant and of the field, where the
            two differ within a pair of runs.
        precisions: Number of finished trials by precision.
        contrasts: Further comparisons that the study names, by variant and what is subtracted; None where the two have
            no fold and seed in common.
        recommendations: A recommendation for each device, or a single one without latencies; empty without comparisons.
        ranks: Order of the variants; None where fewer than two variants have scores.
        convergence: Speed of convergence by variant; seconds are those of the first device.
        gaps: Gap between training and validation by variant.
        places: What each bottleneck preserves, means over trials, as `mean_places` gives it.
        laws: How each measure of preservation goes with the Dice lost.
    """

    results: Results
    labels: Mapping[str, Label]
    dice: Mapping[str, Mapping[int, Effect]]
    comparisons: Mapping[str, Comparison]
    verdicts: Mapping[str, Verdict]
    unequal: Mapping[str, Mapping[str, tuple[str, str]]]
    precisions: Mapping[str, int]
    contrasts: Mapping[tuple[str, str], Comparison | None]
    recommendations: tuple[Recommendation, ...]
    ranks: RankStability | None
    convergence: Mapping[str, Convergence]
    gaps: Mapping[str, Gap]
    places: pd.DataFrame
    laws: tuple[Law, ...]

    @property
    def baseline(self) -> str:
        """Name of the baseline."""
        return self.results.study.baseline

    @property
    def failed(self) -> frozenset[tuple[str, int, int]]:
        """Runs that ended without a result, or far below the other runs of their variant."""
        return frozenset((name, *pair) for name, verdict in self.verdicts.items() for pair in verdict.failed)

    @property
    def recommended(self) -> str | None:
        """The recommended variant: the fastest on the first device, or the narrowest where no speed was measured."""
        found = self.recommendations[0] if self.recommendations else None
        return None if found is None else found.fastest or found.narrowest


def analyse(results: Results) -> Analysis:
    """Computes everything that a report shows.

    Raises:
        RunError: The runs of the study cannot be paired.
    """
    study = results.study
    scores = _scores(results)
    ready = bool(scores.get(study.baseline))
    compared, verdicts = find_verdicts(results, scores)
    # What one run more or less would unmake is not recommended, nor what differs from the baseline by its training.
    unlike = {variant.name for variant in study.variants if variant.unequal}
    safe = [
        replace(one, non_inferior=verdict.word == "safe" and one.variant not in unlike)
        for one, verdict in zip(compared, verdicts, strict=True)
    ]
    macs = {variant.name: variant.macs for variant in study.variants if variant.macs is not None}
    speeds = device_speeds(results) or [{}]
    return Analysis(
        results=results,
        labels=label_variants({variant.name: variant.changes for variant in study.variants}),
        dice=_dice(scores),
        comparisons={one.variant: one for one in compared},
        verdicts={verdict.variant: verdict for verdict in verdicts},
        unequal=_unequal(results),
        precisions=_finished(results).precision.value_counts().sort_index().to_dict(),
        contrasts={
            (pair.variant, pair.against): _contrast(scores, pair.variant, pair.against, study.margin)
            for pair in study.contrasts
        },
        recommendations=tuple(
            recommend(safe, _latencies(speed, study.baseline), macs, study.baseline) for speed in speeds if compared
        ),
        ranks=rank_stability(scores, study.baseline) if ready and len(scores) > 1 else None,
        convergence=_convergence(results, speeds[0]),
        gaps=_gaps(results),
        places=mean_places(results),
        laws=find_laws(results),
    )


def find_verdicts(results: Results, scores: Trials | None = None) -> tuple[tuple[Comparison, ...], tuple[Verdict, ...]]:
    """Compares each variant with the baseline and gives each a verdict.

    Returns:
        The comparisons and the verdicts; both are empty where the baseline has no scores.

    Raises:
        RunError: The runs of the study cannot be paired.
    """
    study, scores = results.study, _scores(results) if scores is None else scores
    every = {name: scores.get(name, {}) for name in study.names}
    compared: tuple[Comparison, ...] = ()
    if scores.get(study.baseline) and len(study.names) > 1:
        compared = paired(every, study.baseline, margin=study.margin)
    given_up = results.trials[results.trials.status == "failed"]
    without_result: dict[str, list[Pair]] = {}
    for variant, fold, seed in zip(given_up.variant, given_up.fold, given_up.seed, strict=True):
        without_result.setdefault(variant, []).append((int(fold), int(seed)))
    return compared, judge(every, study.baseline, compared, without_result)


def _scores(results: Results) -> dict[str, dict[tuple[int, int], list[CaseScore]]]:
    """Returns the scores of finished trials by variant, in the order of the study, then by fold and seed."""
    keys = ["variant", "fold", "seed", "case", "patient", "class_index", "class_name"]
    found: dict[str, dict[tuple[int, int], list[CaseScore]]] = {}
    for name in results.study.names:
        own = results.scores[results.scores.variant == name]
        values = own.pivot(index=keys, columns="metric", values="value").reindex(columns=list(SCORES))
        for (_, fold, seed, case, patient, index, class_name), row in zip(values.index, values.to_numpy(), strict=True):
            scores = ClassScores.from_names(dict(zip(SCORES, map(float, row), strict=True)))
            found.setdefault(name, {}).setdefault((int(fold), int(seed)), []).append(
                CaseScore(
                    case_id=case,
                    patient=patient,
                    fold=int(fold),
                    class_index=int(index),
                    class_name=class_name,
                    scores=scores,
                )
            )
    return found


def _finished(results: Results) -> pd.DataFrame:
    """Returns the finished trials with what they were computed with; what no trial says is missing."""
    trials = results.trials[results.trials.status == "finished"]
    return trials.reindex(columns=[*trials.columns, *(name for name in ARITHMETIC if name not in trials)])


def _unequal(results: Results) -> dict[str, dict[str, tuple[str, str]]]:
    """Compares within each pair of a variant and the baseline what the two were computed with, as far as known."""
    runs = _finished(results).set_index(["variant", "fold", "seed"])
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for (variant, fold, seed), run in runs.iterrows():
        pair = (results.study.baseline, fold, seed)
        if variant == results.study.baseline or pair not in runs.index:
            continue
        for name in ARITHMETIC:
            own, other = run[name], runs.loc[pair, name]
            if pd.notna(own) and pd.notna(other) and own != other:
                found.setdefault(variant, {})[name] = str(own), str(other)
    return found


def device_speeds(results: Results) -> list[Mapping[tuple[str, str], Spread]]:
    """Returns what was measured on each device: median with quartiles, or a single number, by variant and measure."""
    found: list[dict[tuple[str, str], Spread]] = [{} for _ in results.devices]
    for row in results.speed.itertuples():
        low, high = (None, None) if math.isnan(row.q1) else (float(row.q1), float(row.q3))
        found[row.device_index][row.variant, row.measure] = float(row.value), low, high
    return list(found)


def _latencies(speed: Mapping[tuple[str, str], Spread], baseline: str) -> dict[str, float]:
    """Returns the latency of each variant that has one, in ms.

    Latency is the baseline's median over the median of the ratios by round: rounds are paired, so what slows a machine
    for a while puts no variant before another. Without a ratio it is the variant's own median.
    """
    own = {name: value[0] for (name, measure), value in speed.items() if measure == "latency_ms"}
    ratios = {name: value[0] for (name, measure), value in speed.items() if measure == "latency_ratio"}
    if baseline not in own:
        return own
    return {name: own[baseline] / ratios[name] if ratios.get(name) else latency for name, latency in own.items()}


def _dice(trials: Trials) -> dict[str, dict[int, Effect]]:
    """Returns the Dice of each variant by class index; index 0 is the mean over classes."""
    found: dict[str, dict[int, Effect]] = {}
    for name, by_pair in score_arrays(trials).items():
        runs = dict(sorted(by_pair.items()))
        classes = next(iter(runs.values())).classes
        rows = {0: slice(None)} | {index: slice(row, row + 1) for row, (index, _) in enumerate(classes)}
        for index, of_class in rows.items():
            tables = []
            for fold in sorted({fold for fold, _ in runs}):
                of_fold = [run for pair, run in runs.items() if pair[0] == fold]
                values = np.stack([run.values["dice"][of_class] for run in of_fold])[None]
                means, scored = patient_means(values, of_fold[0].patients)
                if scored.any():
                    tables.append(means[0])
            if tables:
                effect = estimate_effect(tables)
                # A t interval over three runs of which one failed reaches further than Dice can.
                inside = None if effect.ci95 is None else (max(0.0, effect.ci95[0]), min(1.0, effect.ci95[1]))
                found.setdefault(name, {})[index] = replace(effect, ci95=inside)
    return found


def _contrast(scores: Trials, variant: str, against: str, margin: float) -> Comparison | None:
    if not scores.get(variant) or not scores.get(against):
        return None
    (found,) = paired({against: scores[against], variant: scores[variant]}, against, margin=margin)
    return found


def _convergence(results: Results, speed: Mapping[tuple[str, str], Spread]) -> dict[str, Convergence]:
    """Measures convergence; a step takes the median time measured on the first device."""
    curves: dict[str, dict[tuple[int, int], Curve]] = {}
    logged = results.curves[(results.curves.metric == "val_dice") & np.isfinite(results.curves.value)]
    finished = results.trials.trial[results.trials.status == "finished"]
    for (variant, fold, seed), rows in logged[logged.trial.isin(finished)].groupby(["variant", "fold", "seed"]):
        rows = rows.sort_values("step")
        curve = Curve(steps=rows.step.astype(float).tolist(), dice=rows.value.tolist())
        curves.setdefault(variant, {})[int(fold), int(seed)] = curve
    ordered = {name: curves[name] for name in results.study.names if name in curves}
    steps = {name: value[0] / 1000 for (name, measure), value in speed.items() if measure == "training_step_ms"}
    return {one.variant: one for one in convergence(ordered, results.study.baseline, step_seconds=steps)}


def _gaps(results: Results) -> dict[str, Gap]:
    """Compares Dice on training and held-out cases, for each variant that has both."""
    frame = results.generalisation.astype({"train_dice": float, "val_dice": float})
    means = frame.groupby(["variant", "fold", "seed"], sort=False)[["train_dice", "val_dice"]].mean().dropna()
    gap = means.train_dice - means.val_dice
    by_variant = {name: own.droplevel("variant") for name, own in gap.groupby("variant", sort=False)}
    before = by_variant.get(results.study.baseline, gap[:0])
    return {
        name: Gap(
            train=fmean(means.train_dice[name]),
            validation=fmean(means.val_dice[name]),
            gap=mean_over_runs(own.to_numpy(), low=-1.0, high=1.0),
            difference=mean_over_runs(
                [own[run] - before[run] for run in own.index if run in before], low=-2.0, high=2.0
            ),
        )
        for name in results.study.names
        if (own := by_variant.get(name)) is not None
    }
