"""Mean of paired differences with what it is uncertain by: training runs, folds and patients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import stats

from seg.errors import Problem, RunError
from seg.evaluation.scores import Interval

FloatArray = npt.NDArray[np.float64]

TAIL = 0.025
"""Probability on each side of a 95 % interval, and level of the one-sided test for non-inferiority."""


@dataclass(frozen=True, kw_only=True)
class Components:
    """Standard deviations of the random effects behind differences, each 0 or more.

    Attributes:
        fold: Of folds, beyond what their runs and patients explain; None with a single fold.
        run: Of training runs (fold and seed); None where no fold has two runs.
        patient: Of patients, over all runs; with a single run per fold the residual is part of it.
        residual: Of a patient in a run, beyond both; None where no fold has two runs.
    """

    fold: float | None
    run: float | None
    patient: float
    residual: float | None


@dataclass(frozen=True, kw_only=True)
class Effect:
    """Mean of variant less baseline for one score; below two patients it has no uncertainty, all of which is None.

    Attributes:
        difference: The mean, each patient counting the same.
        num_patients: Patients behind it.
        num_runs: Pairs of runs behind it; with a single one the interval holds for new patients alone.
        ci95: 95 % interval.
        standard_error: Standard error of the mean behind the interval.
        degrees_of_freedom: Of the t distribution behind the interval.
        test_error: Standard error behind the test for non-inferiority, which is strict, see :func:`estimate_effect`.
        test_freedom: Its degrees of freedom.
        p_noninferior: Probability, at most, of such a difference or a larger one were the variant worse by the margin;
            None also without a margin.
        components: What the differences vary by.
    """

    difference: float
    num_patients: int
    num_runs: int
    ci95: Interval | None = None
    standard_error: float | None = None
    degrees_of_freedom: float | None = None
    test_error: float | None = None
    test_freedom: float | None = None
    p_noninferior: float | None = None
    components: Components | None = None

    def lower_bound(self, level: float) -> float | None:
        """Returns the lower end of the one-sided interval of the test, whose error probability is `level`.

        The test at that level passes exactly where the bound lies above minus the margin. None below two patients.
        """
        if self.test_error is None or self.test_freedom is None:
            return None
        return self.difference - float(stats.t.isf(level, self.test_freedom)) * self.test_error


def estimate_effect(tables: Sequence[FloatArray], *, margin: float | None = None) -> Effect:
    """Estimates a mean difference under crossed random effects.

    The model is difference = mean + fold + run(fold) + patient(fold) + residual, all but the mean random with
    expectation 0. Variance components come from mean squares, so they equal those of REML where the table is
    balanced and none is at 0; the closed form takes microseconds, cannot fail to converge, and gives the degrees of
    freedom that `statsmodels.MixedLM` lacks (its intervals are normal, so too narrow with two or three seeds).

    With one fold the variance of the mean is a sum of two terms that are never negative: runs with the residual, and
    patients. Its degrees of freedom are Satterthwaite's over these. Where runs differ by less than the residual alone
    would have them, both mean squares estimate the residual, and are pooled with the degrees of freedom of both. That
    holds for an interval of 95 % and fails far out in the tail, where a correction for many variants tests: runs that
    happen to agree are what passes there. So the test, which is strict, has the degrees of freedom of runs alone.

    With several folds it is the spread of their means that tells the variance, whatever folds, runs and patients
    contribute to it, with folds - 1 degrees of freedom (fewer where folds differ in size). Two or three folds say
    little about others, so their intervals are wide. Folds whose means happen to agree must not pass for that: the
    test never takes a variance below that of runs and patients.

    Args:
        tables: Differences for each fold, one or more, finite, of shape (runs, patients), each size 1 or more; runs
            differ in seed.
        margin: Margin of non-inferiority in units of the score, > 0; None for no test. Larger scores are better.

    Raises:
        RunError: The margin is not positive.

    References:
        F. E. Satterthwaite, An approximate distribution of estimates of variance components, 1946,
        doi:10.2307/3002019.
        S. L. Hillis, A comparison of denominator degrees of freedom methods for multiple observer ROC analysis, 2007,
        doi:10.1002/sim.2532 (readers and cases stand where runs and patients do here). Deviations: the run term is
        never below the residual, and the patient term counts in the degrees of freedom.
        T. A. Bancroft, On biases in estimation due to the use of preliminary tests of significance, 1944,
        doi:10.1214/aoms/1177731284 (pooling of mean squares).
        S. R. Searle, G. Casella, C. E. McCulloch, Variance Components, 1992, chapter 4, doi:10.1002/9780470316856.
    """
    if margin is not None and not margin > 0:
        remedy = "give how much worse still counts as not inferior"
        raise RunError(Problem("margin", "range", "must be above 0", f"{margin}", remedy))
    patients = np.array([table.shape[1] for table in tables])
    weights = patients / patients.sum()
    means = np.array([table.mean() for table in tables])
    mean = float(weights @ means)
    found = Effect(difference=mean, num_patients=int(patients.sum()), num_runs=sum(map(len, tables)))
    if found.num_patients < 2:
        return found
    components, variance, freedom = _uncertainty(tables, weights, means, strict=False)
    _, test_variance, test_freedom = _uncertainty(tables, weights, means, strict=True)
    error, test_error = math.sqrt(variance), math.sqrt(test_variance)
    half = float(stats.t.isf(TAIL, freedom)) * error
    return replace(
        found,
        ci95=(mean - half, mean + half),
        standard_error=error,
        degrees_of_freedom=freedom,
        test_error=test_error,
        test_freedom=test_freedom,
        p_noninferior=None if margin is None else _p_above(mean + margin, test_error, test_freedom),
        components=components,
    )


def _p_above(distance: float, error: float, freedom: float) -> float:
    """Gives the one-sided p-value of a mean that lies `distance` above the boundary."""
    if error == 0:
        return 0.0 if distance > 0 else 1.0
    return float(stats.t.sf(distance / error, freedom))


def _uncertainty(
    tables: Sequence[FloatArray], weights: FloatArray, means: FloatArray, *, strict: bool
) -> tuple[Components, float, float]:
    """Gives the components, the variance of the weighted mean and its degrees of freedom."""
    runs = np.array([len(table) for table in tables])
    patients = np.array([table.shape[1] for table in tables])
    free_run, free_patient, free_rest = (runs - 1).sum(), (patients - 1).sum(), ((runs - 1) * (patients - 1)).sum()
    by_run = by_patient = rest = 0.0
    for table, mean in zip(tables, means, strict=True):
        row, column = table.mean(axis=1) - mean, table.mean(axis=0) - mean
        by_run += table.shape[1] * float(row @ row)
        by_patient += len(table) * float(column @ column)
        rest += float(np.square(table - mean - row[:, None] - column).sum())
    residual = rest / free_rest if free_rest else 0.0
    free_term = free_run
    if not strict and by_run < free_run * residual:
        free_term = free_run + free_rest
        residual = (by_run + rest) / free_term
    run = _component(by_run - free_run * residual, float(((runs - 1) * patients).sum()))
    patient = _component(by_patient - free_patient * residual, float(((patients - 1) * runs).sum()))

    squared = weights**2
    term_run = float((squared * (run + residual / patients) / runs).sum()) if free_run else 0.0
    term_patient = patient * float((squared / patients).sum())
    variance = term_run + term_patient
    parts = ((term_run, free_term), (term_patient, free_patient))
    fold = None
    # Differences that are all equal have no variance, and any number of degrees of freedom gives the same interval.
    freedom = variance**2 / total if (total := sum(term**2 / free for term, free in parts if free)) else 1.0
    if len(tables) > 1:
        between, freedom = _between_folds(weights, means)
        fold = math.sqrt(max(0.0, between - variance) / float(squared.sum()))
        variance = max(between, variance) if strict else between
    components = Components(
        fold=fold,
        run=math.sqrt(run) if free_run else None,
        patient=math.sqrt(patient),
        residual=math.sqrt(residual) if free_run else None,
    )
    return components, variance, float(freedom)


def _between_folds(weights: FloatArray, means: FloatArray) -> tuple[float, float]:
    """Gives the variance of the weighted mean of folds from the spread of their means, and its degrees of freedom.

    The spread is a quadratic form of the means; its expectation, and by Satterthwaite its degrees of freedom, are those
    for folds of one variance. With equal weights that is the variance of a mean of folds, with folds - 1.
    """
    deviations = np.eye(len(weights)) - weights  # of each mean from the weighted one
    form = deviations.T @ np.diag(weights**2) @ deviations
    expected = float(np.trace(form))
    variance = float(means @ form @ means) * float((weights**2).sum()) / expected
    return variance, expected**2 / float(np.square(form).sum())


def _component(excess: float, weight: float) -> float:
    """Gives a variance component from a sum of squares in excess of the residual; 0 where there is no excess."""
    return max(0.0, excess / weight) if weight else 0.0
