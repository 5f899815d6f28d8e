"""Convergence: how soon the Dice of a run comes near its final value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from seg.errors import Problem, RunError
from seg.evaluation.differences import Pair, run_name
from seg.evaluation.scores import Interval

SHARE = 0.95
"""Share of a final Dice that counts as near it."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Validation Dice of one run during training.

    Attributes:
        steps: Steps at which it was validated, one or more, increasing.
        dice: Mean Dice at each, finite; the last is the final one.
    """

    steps: Sequence[float]
    dice: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean over training runs with its interval, some of whose values may be upper bounds.

    Attributes:
        mean: The mean, or an upper bound of it where `num_censored` is not 0; None without a value, and for a ratio
            with a censored side.
        ci95: 95 % t interval over runs, within the range that the figure can have; None below two, and for a bound.
        num_runs: Runs with a value.
        num_without: Runs without one: they never came that far.
        num_censored: Runs that were there by their first validation, so that their value is at most that step.
    """

    mean: float | None
    ci95: Interval | None
    num_runs: int
    num_without: int
    num_censored: int = 0


@dataclass(frozen=True, kw_only=True)
class Convergence:
    """How fast the runs of one variant converge.

    Attributes:
        variant: The variant.
        area: Area under the curve of Dice against steps over its length: the mean Dice from first to last validation.
        area_difference: Area less that of the baseline, over the runs that both have.
        steps_to_own: Steps to 95 % of the run's own final Dice.
        steps_to_baseline: Steps to 95 % of the final Dice of the baseline on the same fold and seed.
        steps_to_baseline_ratio: Steps of the variant over those of the baseline, both to 95 % of the final Dice of the
            baseline; below 1 the variant is there first.
        seconds_to_own: Steps times the measured time of a step; None where that was not measured.
        seconds_to_baseline: Likewise.
    """

    variant: str
    area: Mean
    area_difference: Mean
    steps_to_own: Mean
    steps_to_baseline: Mean
    steps_to_baseline_ratio: Mean
    seconds_to_own: Mean | None
    seconds_to_baseline: Mean | None


def convergence(
    curves: Mapping[str, Mapping[Pair, Curve]], baseline: str, *, step_seconds: Mapping[str, float]
) -> tuple[Convergence, ...]:
    """Measures how fast every variant converges.

    A crossing between two validations is interpolated linearly. One before the first validation is known to be at most
    there: steps are then an upper bound without an interval, and there is no ratio.
    Seconds are steps times the time of a step measured apart, so they do not depend on what else a machine did.

    Args:
        curves: Curves by variant, then by fold and seed.
        baseline: Name of the baseline.
        step_seconds: Time of one training step by variant, in s; variants that were not measured are absent.

    Returns:
        Figures for each variant, the baseline included, in the order of `curves`.

    Raises:
        RunError: Steps of a curve do not increase.
    """
    problems = [
        Problem(run_name(variant, pair), "curve", "must have a curve of increasing steps", remedy="train the run again")
        for variant, by_pair in curves.items()
        for pair, curve in by_pair.items()
        if (np.diff(curve.steps) <= 0).any()
    ]
    if problems:
        raise RunError(problems)
    before = curves.get(baseline, {})
    return tuple(_converge(variant, by_pair, before, step_seconds.get(variant)) for variant, by_pair in curves.items())


def _converge(
    variant: str, curves: Mapping[Pair, Curve], before: Mapping[Pair, Curve], step_seconds: float | None
) -> Convergence:
    pairs = sorted(curves)
    common = [pair for pair in pairs if pair in before]
    own = [_crossing(curves[pair], SHARE * curves[pair].dice[-1]) for pair in pairs]
    reached = [_crossing(curves[pair], SHARE * before[pair].dice[-1]) for pair in common]
    reference = [_crossing(before[pair], SHARE * before[pair].dice[-1]) for pair in common]
    return Convergence(
        variant=variant,
        area=mean_over_runs([_area(curves[pair]) for pair in pairs], low=0.0, high=1.0),
        area_difference=mean_over_runs(
            [_area(curves[pair]) - _area(before[pair]) for pair in common], low=-1.0, high=1.0
        ),
        steps_to_own=_bound(own),
        steps_to_baseline=_bound(reached),
        steps_to_baseline_ratio=_ratio(reached, reference),
        seconds_to_own=None if step_seconds is None else _bound(own, step_seconds),
        seconds_to_baseline=None if step_seconds is None else _bound(reached, step_seconds),
    )


def _area(curve: Curve) -> float:
    """Gives the area under a curve over its length; of a single validation its Dice."""
    if len(curve.steps) == 1:
        return float(curve.dice[0])
    return float(np.trapezoid(curve.dice, curve.steps)) / (curve.steps[-1] - curve.steps[0])


class _Crossing(NamedTuple):
    """Step at which a curve first reaches a threshold, NaN where it never does, and whether it is an upper bound."""

    step: float
    censored: bool = False


def _crossing(curve: Curve, threshold: float) -> _Crossing:
    """Finds where a curve first reaches a threshold."""
    reached = np.flatnonzero(np.asarray(curve.dice) >= threshold)
    if not len(reached):
        return _Crossing(step=float("nan"))
    after = int(reached[0])
    if after == 0:
        # Nothing is known of the time before the first validation, unless that was before the first step.
        return _Crossing(step=float(curve.steps[0]), censored=curve.steps[0] > 0)
    # np.interp takes the threshold between the last value below it and the first at or above it.
    around = slice(after - 1, after + 1)
    return _Crossing(step=float(np.interp(threshold, curve.dice[around], curve.steps[around])))


def _bound(crossings: Sequence[_Crossing], scale: float = 1.0) -> Mean:
    """Averages crossings; with censored ones the mean is an upper bound and has no interval."""
    found = mean_over_runs([scale * one.step for one in crossings], low=0.0)
    censored = sum(one.censored for one in crossings)
    return replace(found, ci95=None, num_censored=censored) if censored else found


def _ratio(crossings: Sequence[_Crossing], reference: Sequence[_Crossing]) -> Mean:
    """Averages ratios of crossings; None where a side of any is censored, as the other pairs are a selection."""
    with np.errstate(divide="ignore", invalid="ignore"):  # a baseline that is there at step 0 gives no finite ratio
        ratios = np.divide([one.step for one in crossings], [one.step for one in reference])
    found = mean_over_runs(ratios, low=0.0)
    censored = sum(one.censored or other.censored for one, other in zip(crossings, reference, strict=True))
    return replace(found, mean=None, ci95=None, num_censored=censored) if censored else found


def mean_over_runs(
    values: Sequence[float] | npt.NDArray[np.float64], *, low: float = -math.inf, high: float = math.inf
) -> Mean:
    """Averages figures of runs.

    Args:
        values: A figure for each run; those that are not finite are counted and left out.
        low: Least value that a figure can have; the interval is cut to it.
        high: Greatest, likewise.

    Returns:
        The mean with a 95 % t interval over runs.
    """
    array = np.asarray(values, dtype=float)
    kept = array[np.isfinite(array)]
    interval = None
    if len(kept) > 1:
        half = float(stats.t.isf(0.025, len(kept) - 1) * stats.sem(kept))
        interval = (max(low, float(kept.mean()) - half), min(high, float(kept.mean()) + half))
    return Mean(
        mean=float(kept.mean()) if len(kept) else None,
        ci95=interval,
        num_runs=len(kept),
        num_without=len(array) - len(kept),
    )
