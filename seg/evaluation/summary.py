"""From scores of cases to means, spreads and intervals, and these as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from seg.errors import Problem, RunError
from seg.evaluation.metrics import METRICS, Metric
from seg.evaluation.scores import CaseScore, ClassSummary, Evaluation, FoldSummary, Interval, MetricSummary
from seg.words import aligned, counted

BOOTSTRAP_SAMPLES = 2000
CI_PERCENTILES = (2.5, 97.5)

FloatArray = npt.NDArray[np.float64]


def summarise(
    scores: Sequence[CaseScore],
    *,
    class_names: Sequence[str],
    nsd_tolerance_mm: float,
    bootstrap_samples: int = BOOTSTRAP_SAMPLES,
    seed: int = 0,
) -> Evaluation:
    """Summarises the scores of cases, with intervals from a bootstrap over patients.

    Args:
        scores: One record for each case and class.
        class_names: Names by class index, background first.
        nsd_tolerance_mm: The tolerance that the scores' NSD was computed with, in mm.
        bootstrap_samples: Resamples behind each interval, 1 or more.
        seed: Seed of the resampling, 0 or more.

    Returns:
        The summary. NaN and infinite values are left out of means and counted.

    Raises:
        RunError: There are no scores, a case has two for one class, or a class has no name.

    References:
        B. Efron, R. J. Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13 (percentile interval),
        doi:10.1201/9780429246593. Deviation: what is resampled is the patient with all its cases.
    """
    _check_scores(scores, class_names)
    patients, weights = _resample_patients(scores, bootstrap_samples, seed)
    classes = []
    for index in sorted({record.class_index for record in scores}):
        rows = [
            (record, patient) for record, patient in zip(scores, patients, strict=True) if record.class_index == index
        ]
        members = np.array([patient for _, patient in rows], dtype=np.intp)
        metrics = {}
        for metric in METRICS:
            values = np.array([getattr(record.scores, metric) for record, _ in rows], dtype=np.float64)
            metrics[metric] = _summarise_values(values, members, weights)
        classes.append(ClassSummary(index=index, name=class_names[index], metrics=metrics))
    mean_dice, interval = _mean_dice(scores, patients, weights)
    return Evaluation(
        mean_dice=mean_dice,
        mean_dice_ci95=interval,
        num_cases=len({record.case_id for record in scores}),
        num_patients=weights.shape[1],
        nsd_tolerance_mm=nsd_tolerance_mm,
        bootstrap={"samples": bootstrap_samples, "seed": seed},
        classes=tuple(classes),
        folds=_summarise_folds(scores, bootstrap_samples, seed),
    )


def _check_scores(scores: Sequence[CaseScore], class_names: Sequence[str]) -> None:
    """Refuses scores that would give a wrong mean instead of an error."""
    if not scores:
        raise RunError(Problem("scores", "empty", "must be there to be summarised", "none", "score a case at least"))
    counts = Counter((record.case_id, record.class_index) for record in scores)
    problems = [
        Problem(f"case {case_id}", "twice", f"must have scores of class {index} once", f"{count}", "give them once")
        for (case_id, index), count in counts.items()
        if count > 1
    ]
    unnamed = sorted({record.class_index for record in scores} - set(range(1, len(class_names))))
    if unnamed:
        rule, value = f"must name the classes of all scores, {unnamed} too", f"{len(class_names)} names"
        problems.append(Problem("class_names", "length", rule, value, "name every class, the background included"))
    if problems:
        raise RunError(problems)


def _resample_patients(
    scores: Sequence[CaseScore], samples: int, seed: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int64]]:
    """Draws patients with replacement.

    Returns:
        The patient of each record, numbered from 0, of shape (records,); and how often each patient was drawn in each
        resample, of shape (samples, patients).
    """
    patients = np.unique([record.patient for record in scores], return_inverse=True)[1]
    total = int(patients.max()) + 1
    weights = np.random.default_rng(seed).multinomial(total, np.full(total, 1.0 / total), size=samples)
    return patients, weights


def _resampled_means(values: FloatArray, patients: npt.NDArray[np.intp], weights: npt.NDArray[np.int64]) -> FloatArray:
    """Gives the mean of the finite values in each resample, NaN where it drew none, of shape (samples,)."""
    finite = np.isfinite(values)
    total = weights.shape[1]
    sums = np.bincount(patients[finite], weights=values[finite], minlength=total)
    counts = np.bincount(patients[finite], minlength=total)
    with np.errstate(invalid="ignore"):
        means: FloatArray = (weights @ sums) / (weights @ counts)
    return means


def _interval(means: FloatArray, patients: npt.NDArray[np.intp]) -> Interval | None:
    """Gives the percentile interval of resampled means, or None where one patient or none stands behind them."""
    if len(np.unique(patients)) < 2:
        return None
    low, high = np.nanpercentile(means, CI_PERCENTILES)
    return float(low), float(high)


def _summarise_values(
    values: FloatArray, patients: npt.NDArray[np.intp], weights: npt.NDArray[np.int64]
) -> MetricSummary:
    """Summarises one metric of one class; values and their patients have shape (records,)."""
    finite = np.isfinite(values)
    kept = values[finite]
    return MetricSummary(
        mean=float(kept.mean()) if len(kept) else None,
        sd=float(kept.std(ddof=1)) if len(kept) > 1 else None,
        ci95=_interval(_resampled_means(values, patients, weights), patients[finite]),
        count=len(kept),
        nan=int(np.isnan(values).sum()),
        infinite=int(np.isinf(values).sum()),
    )


def _mean_dice(
    scores: Sequence[CaseScore], patients: npt.NDArray[np.intp], weights: npt.NDArray[np.int64]
) -> tuple[float | None, Interval | None]:
    """Gives the mean over classes of the mean Dice over cases, and its interval.

    A class that is empty in every case has no mean and is left out; one that a resample happens to miss is left out of
    that resample.
    """
    dice = np.array([record.scores.dice for record in scores])
    index = np.array([record.class_index for record in scores])
    finite = np.isfinite(dice)
    classes = np.unique(index[finite])
    if not len(classes):
        return None, None
    mean = float(np.mean([dice[finite & (index == one)].mean() for one in classes]))
    resampled = np.stack([_resampled_means(dice[index == one], patients[index == one], weights) for one in classes])
    drawn = np.isfinite(resampled)
    with np.errstate(invalid="ignore"):
        means = np.where(drawn, resampled, 0.0).sum(axis=0) / drawn.sum(axis=0)
    return mean, _interval(means, patients[finite])


def _summarise_folds(scores: Sequence[CaseScore], samples: int, seed: int) -> tuple[FoldSummary, ...]:
    """Summarises the mean Dice of each fold, where the scores name folds."""
    folds = []
    for fold in sorted({record.fold for record in scores if record.fold is not None}):
        members = [record for record in scores if record.fold == fold]
        mean_dice, interval = _mean_dice(members, *_resample_patients(members, samples, seed))
        count = len({record.case_id for record in members})
        folds.append(FoldSummary(fold=fold, mean_dice=mean_dice, mean_dice_ci95=interval, num_cases=count))
    return tuple(folds)


def format_evaluation(evaluation: Evaluation) -> str:
    """Lays out a summary as text: a table of means with a row for each class, then what was left out of them."""
    metrics = list(METRICS.values())
    header = ["class", *(f"{metric.label} {metric.unit}".strip() for metric in metrics)]
    header.insert(2, "95 % CI")
    rows = [header]
    for entry in evaluation.classes:
        row = [entry.name, *(_mean(entry.metrics.get(metric.name), metric) for metric in metrics)]
        dice = entry.metrics.get("dice")
        row.insert(2, _range(dice.ci95 if dice else None))
        rows.append(row)
    overall = "-" if evaluation.mean_dice is None else f"{evaluation.mean_dice:.4f}"
    rows.append(["mean", overall, _range(evaluation.mean_dice_ci95), *[""] * (len(header) - 3)])
    lines = [aligned(rows, right=range(1, len(header)))]
    lines.append(
        f"{counted(evaluation.num_cases, 'case')} of {counted(evaluation.num_patients, 'patient')}; "
        f"NSD at {evaluation.nsd_tolerance_mm:g} mm; volumes are those of the prediction less those of the reference"
    )
    for entry in evaluation.classes:
        dice, hd95 = entry.metrics.get("dice"), entry.metrics.get("hd95_mm")
        both_empty = dice.nan if dice else 0
        if hd95 and hd95.infinite:
            empty = f"one mask empty in {counted(hd95.infinite, 'case')}"
            lines.append(f"{entry.name}: {empty} (Dice 0; HD95 infinite, left out of its mean)")
        if both_empty:
            lines.append(f"{entry.name}: both masks empty in {counted(both_empty, 'case')} (left out of every mean)")
        if hd95 and hd95.nan > both_empty:
            lines.append(f"{entry.name}: HD95 not measured in {counted(hd95.nan - both_empty, 'case')}")
    lines.extend(f"not scored: {problem}" for problem in evaluation.left_out)
    if evaluation.seen:
        cases = f"{len(evaluation.seen)} of {counted(evaluation.num_cases, 'case')}"
        lines.append(f"optimistic: the initial weights were trained on the patients of {cases}, which count above")
    return "\n".join(lines)


def _mean(summary: MetricSummary | None, metric: Metric) -> str:
    """Formats the mean of a metric, or a dash where there is none; a metric that is best at zero keeps its sign."""
    if summary is None or summary.mean is None:
        return "-"
    sign = "+" if metric.better == "zero" else ""
    return f"{summary.mean:{sign}.{metric.digits}f}"


def _range(interval: Interval | None) -> str:
    """Formats an interval, or a dash where there is none."""
    return "-" if interval is None else f"{interval[0]:.4f}-{interval[1]:.4f}"
