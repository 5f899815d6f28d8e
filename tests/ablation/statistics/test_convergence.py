"""Convergence: closed forms of straight lines, runs that never arrive, refusals."""

from __future__ import annotations

import pytest
from scipy import stats

from seg.ablation.statistics import Curve, convergence
from seg.errors import RunError


def line(end: float, steps: int = 100) -> Curve:
    """Rises from 0 at step 0 to `end` in a straight line and stays there as long again."""
    return Curve(steps=(0, steps, 2 * steps), dice=(0.0, end, end))


def test_straight_lines_have_closed_forms() -> None:
    curves = {
        "baseline": {(0, 0): line(0.8), (0, 1): line(0.8)},
        "fast": {(0, 0): line(0.8, 50), (0, 1): line(0.8, 50)},
    }
    slow, fast = convergence(curves, "baseline", step_seconds={"fast": 0.5})
    # A triangle of half the height, then a rectangle: 3/4 of the end.
    assert slow.area.mean == pytest.approx(0.6)
    assert (slow.steps_to_own.mean, slow.steps_to_baseline_ratio.mean) == pytest.approx((95, 1))
    assert (fast.steps_to_own.mean, fast.steps_to_baseline.mean) == pytest.approx((47.5, 47.5))
    assert fast.steps_to_baseline_ratio.mean == pytest.approx(0.5)
    assert (slow.seconds_to_own, slow.seconds_to_baseline) == (None, None)
    assert fast.seconds_to_own is not None
    assert fast.seconds_to_baseline is not None
    assert (fast.seconds_to_own.mean, fast.seconds_to_baseline.mean) == pytest.approx((23.75, 23.75))
    assert (fast.area_difference.mean, fast.area_difference.num_runs) == (pytest.approx(0.0), 2)


def test_the_interval_is_the_t_interval_over_runs() -> None:
    ends = (0.8, 0.7, 0.75)
    curves = {
        "baseline": {(0, seed): line(0.6) for seed in range(3)},
        "a": {(0, seed): line(end) for seed, end in enumerate(ends)},
    }
    found = convergence(curves, "baseline", step_seconds={})[1].area_difference
    expected = stats.ttest_1samp([0.75 * (end - 0.6) for end in ends], 0).confidence_interval()
    assert found.ci95 == pytest.approx((expected.low, expected.high))


def test_a_run_that_never_comes_near_the_baseline_is_counted() -> None:
    curves = {
        "baseline": {(0, 0): line(0.8), (0, 1): line(0.8), (0, 2): line(0.8)},
        "poor": {(0, 0): line(0.5), (0, 1): line(0.8), (0, 5): line(0.8)},
    }
    poor = convergence(curves, "baseline", step_seconds={})[1]
    assert (poor.steps_to_baseline.num_runs, poor.steps_to_baseline.num_without) == (1, 1)
    assert (poor.steps_to_baseline.mean, poor.steps_to_baseline.ci95) == (pytest.approx(95), None)
    assert poor.steps_to_own.num_runs == 3


def test_a_crossing_before_the_first_validation_is_put_there() -> None:
    curve = Curve(steps=(50, 100), dice=(0.79, 0.8))
    (found,) = convergence({"baseline": {(0, 0): curve}}, "baseline", step_seconds={})
    assert found.steps_to_own.mean == 50
    (found,) = convergence({"a": {(0, 0): Curve(steps=(10,), dice=(0.5,))}}, "baseline", step_seconds={})
    assert (found.area.mean, found.area_difference.mean, found.steps_to_baseline.mean) == (0.5, None, None)


def test_broken_curves_are_refused_together() -> None:
    curves = {"a": {(0, 0): Curve(steps=(1, 2), dice=(0.5,)), (0, 1): Curve(steps=(2, 1), dice=(0.5, 0.6))}}
    with pytest.raises(RunError) as caught:
        convergence(curves, "a", step_seconds={})
    assert caught.value.problems == (
        "a.fold_0.seed_0: a curve must have a Dice for each step, got 2 steps and 1 values.",
        "a.fold_0.seed_1: a curve must have increasing steps and a finite Dice at each; train the run again.",
    )
