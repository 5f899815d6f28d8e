"""Ways to an interval for a mean paired difference: the one in use, and what it was chosen against."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats
from statsmodels.regression.mixed_linear_model import MixedLM, VCSpec

from seg.ablation.statistics.effects import TAIL, estimate_effect
from seg.ablation.statistics.ranks import resampled_means
from seg.evaluation.scores import Interval

FloatArray = npt.NDArray[np.float64]
Intervals = Mapping[str, Interval]

RESAMPLES = 1000
# MixedLM stops early where variances are far below 1; Dice in percent brings them near it.
PERCENT = 100.0


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way, or some that share their work.

    Attributes:
        intervals: Gives 95 % intervals by name, for differences by fold of shape (runs, patients); empty where there is
            none.
        share: Share of the simulated studies that it sees, since some take a thousand times as long.
    """

    intervals: Callable[[Sequence[FloatArray], np.random.Generator], Intervals]
    share: float


def t_over_runs(tables: Sequence[FloatArray], rng: np.random.Generator) -> Intervals:
    """Gives the t interval of the means of the runs, which takes the patients for given."""
    means = np.concatenate([table.mean(axis=1) for table in tables])
    low, high = stats.ttest_1samp(means, 0).confidence_interval(1 - 2 * TAIL)
    return {"t over runs": (float(low), float(high))}


def t_over_patients(tables: Sequence[FloatArray], rng: np.random.Generator) -> Intervals:
    """Gives the t interval of the patients, averaged over runs, which takes the runs for given."""
    means = np.concatenate([table.mean(axis=0) for table in tables])
    low, high = stats.ttest_1samp(means, 0).confidence_interval(1 - 2 * TAIL)
    return {"t over patients": (float(low), float(high))}


def bootstraps(tables: Sequence[FloatArray], rng: np.random.Generator) -> Intervals:
    """Gives percentile intervals of resampled runs and patients, n of n and n - 1 of n."""
    found = {}
    for name, spare in (("two-way bootstrap", 0), ("two-way bootstrap, n - 1 of n", 1)):
        means = resampled_means([table[None] for table in tables], RESAMPLES, rng, spare=spare)
        low, high = np.percentile(means, (100 * TAIL, 100 * (1 - TAIL)))
        found[name] = (float(low), float(high))
    return found


def mixed_models(tables: Sequence[FloatArray], rng: np.random.Generator) -> Intervals:
    """Gives intervals of statsmodels' MixedLM, by REML: its own, of the normal distribution, and a conservative one.

    The conservative one has the degrees of freedom of the run term alone, runs less folds. None where a fold has one
    run, or folds differ in size.
    """
    runs, patients = tables[0].shape
    if runs == 1 or any(table.shape != tables[0].shape for table in tables):
        return {}
    run, patient = (
        np.eye(count)[index.ravel()]
        for count, index in zip((runs, patients), np.indices((runs, patients)), strict=True)
    )
    folds = len(tables)
    effects = VCSpec(
        ["run", "patient"],
        [[[f"{name}{i}" for i in range(part.shape[1])]] * folds for name, part in (("r", run), ("p", patient))],
        [[run] * folds, [patient] * folds],
    )
    values = PERCENT * np.concatenate([table.ravel() for table in tables])
    ones = np.ones((len(values), 1))
    random: dict[str, Any] = {"exog_vc": effects} | ({"exog_re": ones} if folds > 1 else {})
    model = MixedLM(values, ones, np.repeat(np.arange(folds), runs * patients), **random)
    with warnings.catch_warnings():
        # A component at 0 is warned of in most fits; what it does to the interval is what is measured.
        warnings.simplefilter("ignore")
        try:
            fitted = model.fit(reml=True)
        except np.linalg.LinAlgError:
            return {}
    mean, error = float(fitted.fe_params[0]) / PERCENT, float(fitted.bse_fe[0]) / PERCENT
    quantiles = {
        "MixedLM, normal": float(stats.norm.isf(TAIL)),
        "MixedLM, t with runs - folds": float(stats.t.isf(TAIL, folds * (runs - 1))),
    }
    if not math.isfinite(error):
        return {}
    return {name: (mean - quantile * error, mean + quantile * error) for name, quantile in quantiles.items()}


def mean_squares(tables: Sequence[FloatArray], rng: np.random.Generator) -> Intervals:
    """Gives the intervals of `estimate_effect`: the one in use, and that of the strict test."""
    names = {"mean squares": False, "mean squares, strict": True}
    found = {name: estimate_effect(tables, strict=strict).ci95 for name, strict in names.items()}
    return {name: interval for name, interval in found.items() if interval}


METHODS = (
    Method(intervals=mean_squares, share=1.0),
    Method(intervals=t_over_runs, share=1.0),
    Method(intervals=t_over_patients, share=1.0),
    Method(intervals=bootstraps, share=1 / 4),
    Method(intervals=mixed_models, share=1 / 16),
)
