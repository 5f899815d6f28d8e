"""Ways to the error of each of many variants: that of the test in use, and what it was chosen against.

All take differences by fold, of shape (variants, seeds, patients), and give the standard error of each mean and its
degrees of freedom, of shape (2, variants).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy import special

from seg.ablation.statistics.effects import estimate_effect

FloatArray = npt.NDArray[np.float64]

PRIOR_LIMIT = 4.0
"""Most degrees of freedom that the other variants' runs may lend one variant's, in the moderated test."""


def own_runs(folds: Sequence[FloatArray]) -> FloatArray:
    """Gives errors by a variant's own runs, never pooled with the residual: the test in use."""
    return _errors(folds, strict=True)


def pooled_runs(folds: Sequence[FloatArray]) -> FloatArray:
    """Gives errors by the interval in use, which pools runs and residual where runs hardly differ."""
    return _errors(folds, strict=False)


def moderated_runs(folds: Sequence[FloatArray]) -> FloatArray:
    """Gives errors in which the runs of all variants tell how much those of one may differ.

    The mean square of a variant's runs is drawn towards one of all variants, as far as the spread of the mean squares
    says that they have one in common, with no more than `PRIOR_LIMIT` degrees of freedom. For one fold alone.

    References:
        G. K. Smyth, Linear models and empirical Bayes methods for assessing differential expression, 2004,
        doi:10.2202/1544-6115.1027. Deviation: the limit.
    """
    (tables,) = folds
    _, runs, patients = tables.shape
    free = runs - 1
    own = patients * tables.mean(axis=2).var(axis=1, ddof=1)
    logs = np.log(np.maximum(own, 1e-5 * np.median(own))) - special.digamma(free / 2) + math.log(free / 2)
    excess = float(logs.var(ddof=1) - special.polygamma(1, free / 2))
    prior = min(PRIOR_LIMIT, 2 * _inverse_trigamma(excess)) if excess > 0 else PRIOR_LIMIT
    common = math.exp(logs.mean() + special.digamma(prior / 2) - math.log(prior / 2)) if excess > 0 else own.mean()
    means = tables.mean(axis=(1, 2))
    rest = tables - tables.mean(axis=2, keepdims=True) - tables.mean(axis=1, keepdims=True) + means[:, None, None]
    residual = np.square(rest).sum(axis=(1, 2)) / (free * (patients - 1))
    by_run = np.maximum((prior * common + free * own) / (prior + free), residual)
    by_patient = np.maximum(runs * tables.mean(axis=1).var(axis=1, ddof=1) - residual, 0)
    terms = by_run / (runs * patients), by_patient / (runs * patients)
    variance = terms[0] + terms[1]
    freedom = variance**2 / (terms[0] ** 2 / (prior + free) + terms[1] ** 2 / (patients - 1))
    return np.stack([np.sqrt(variance), freedom])


TESTS: dict[str, Callable[[Sequence[FloatArray]], FloatArray]] = {
    "own runs": own_runs,
    "pooled": pooled_runs,
    "moderated": moderated_runs,
}
"""Tests by name, the one in use first."""


def _errors(folds: Sequence[FloatArray], *, strict: bool) -> FloatArray:
    found = (estimate_effect(tables, strict=strict) for tables in zip(*folds, strict=True))
    return np.array([(one.standard_error, one.degrees_of_freedom) for one in found]).T


def _inverse_trigamma(value: float) -> float:
    """Gives the x > 0 at which the trigamma function has a value, by Newton's method on its reciprocal."""
    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(special.polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(special.polygamma(2, x))
        x += step
        if abs(step) < 1e-9 * x:
            break
    return x
