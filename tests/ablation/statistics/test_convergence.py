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


def test_a_crossing_before_the_first_validation_is_an_upper_bound() -> None:
    early = Curve(steps=(50, 100), dice=(0.79, 0.8))
    exact = Curve(steps=(0, 100), dice=(0.0, 0.8))
    curves = {
        "baseline": {(0, 0): exact, (0, 1): exact, (0, 2): early},
        "a": {(0, 0): early, (0, 1): exact, (0, 2): exact},
        "b": {(0, 0): exact, (0, 1): exact},
    }
    base, a, b = convergence(curves, "baseline", step_seconds={"a": 0.5})
    for found, scale in (
        (base.steps_to_own, 1),
        (a.steps_to_own, 1),
        (a.steps_to_baseline, 1),
        (a.seconds_to_own, 0.5),
    ):
        assert found is not None
        assert found.mean == pytest.approx(scale * (95 + 95 + 50) / 3)
        assert (found.ci95, found.num_runs, found.num_censored) == (None, 3, 1)
    # The variant is censored in one pair, the baseline in another.
    ratio = a.steps_to_baseline_ratio
    assert (ratio.mean, ratio.ci95, ratio.num_censored) == (None, None, 2)
    assert (b.steps_to_baseline_ratio.mean, b.steps_to_baseline_ratio.num_censored) == (pytest.approx(1), 0)
    # A validation before the first step leaves nothing unseen.
    (found,) = convergence({"a": {(0, 0): Curve(steps=(0, 9), dice=(0.8, 0.8))}}, "a", step_seconds={})
    assert (found.steps_to_own.mean, found.steps_to_own.num_censored) == (0, 0)


def test_a_single_validation_has_an_area_and_a_bound() -> None:
    (found,) = convergence({"a": {(0, 0): Curve(steps=(10,), dice=(0.5,))}}, "baseline", step_seconds={})
    assert (found.area.mean, found.area_difference.mean, found.steps_to_baseline.mean) == (0.5, None, None)
    assert (found.steps_to_own.mean, found.steps_to_own.num_censored) == (10, 1)


def test_intervals_stay_within_what_is_possible() -> None:
    # Of three runs one failed: a t interval over them would reach beyond Dice 1 and below step 0.
    failed = Curve(steps=(0, 900, 1000), dice=(0.0, 0.0, 0.01))
    curves = {"a": {(0, 0): line(0.9), (0, 1): line(0.9, 90), (0, 2): failed}}
    (found,) = convergence(curves, "a", step_seconds={})
    for mean in (found.area, found.steps_to_own):
        assert mean.ci95 is not None
        assert mean.ci95[0] == 0
    curves["a"][0, 2] = Curve(steps=(0, 100), dice=(0.1, 0.1))
    curves["a"][0, 3] = Curve(steps=(0, 100), dice=(1.0, 1.0))
    (found,) = convergence(curves, "a", step_seconds={})
    assert found.area.ci95 is not None
    assert found.area.ci95[1] == 1


def test_curves_that_go_back_are_refused_together() -> None:
    back = Curve(steps=(2, 1), dice=(0.5, 0.6))
    with pytest.raises(RunError) as caught:
        convergence({"a": {(0, 0): back, (0, 1): back, (0, 2): line(0.8)}}, "a", step_seconds={})
    assert [problem.path for problem in caught.value.problems] == ["a.fold_0.seed_0", "a.fold_0.seed_1"]
