"""Limits of scales, against closed forms."""

from __future__ import annotations

import pytest

from seg.ablation.report.scale import Scale, beyond_words, choose_scale, log_ticks, possible, within

NEAR = dict.fromkeys(("a", "b", "c"), (0.0, -0.004, 0.004))


def test_a_scale_on_which_all_fit_is_left_alone() -> None:
    assert choose_scale(NEAR | {"d": (-0.010, -0.015, -0.005)}, (0.0, -0.005)) is None
    assert choose_scale({}, (0.0,)) is None
    assert choose_scale({"baseline": (0.0, 0.0, 0.0)}, (0.0, -0.005)) is None


def test_one_that_failed_does_not_flatten_the_others() -> None:
    scale = choose_scale(NEAR | {"failed": (-0.17, -0.76, 0.42)}, (0.0, -0.005))
    assert scale is not None
    # the others and the margin reach from -0.005 to 0.004, with 12 % of that around them
    assert (scale.low, scale.high) == pytest.approx((-0.005 - 0.12 * 0.009, 0.004 + 0.12 * 0.009))
    assert scale.beyond == ("failed",)
    assert scale.low < scale.place(-0.17) < -0.005
    assert scale.place(0.001) == 0.001


def test_a_difference_in_sight_with_a_long_interval_is_cut_and_not_moved() -> None:
    scale = choose_scale(NEAR | {"wide": (0.002, -0.5, 0.5)}, (0.0, -0.005))
    assert scale is not None
    assert (scale.beyond, scale.place(0.002)) == ((), 0.002)
    assert beyond_words([None, scale]) == " Intervals that leave a scale are cut at its edge."


def test_what_is_off_the_scale_is_said_once() -> None:
    scale = Scale(low=-0.01, high=0.01, beyond=("x", "y"))
    assert beyond_words([scale, None, scale]) == (
        " Intervals that leave a scale are cut at its edge. Off the scale, drawn at its edge: x, y."
    )
    assert beyond_words([None]) == ""


def test_a_narrower_scale_can_be_asked_for() -> None:
    spreads = NEAR | {"low": (-0.010, -0.015, -0.005)}
    scale = choose_scale(spreads, (0.0, -0.005), far=2.0)  # twice 0.004
    assert scale is not None
    assert scale.beyond == ("low",)


def test_differences_end_where_a_dice_can_be() -> None:
    # From a Dice of 0.4 it is 0.4 down to 0 and 0.6 up to 1.
    assert possible((-0.1, -1.5, 1.7), 0.4) == (-0.1, -0.4, pytest.approx(0.6))
    assert possible((-0.1, -0.2, 0.1), 0.4) == (-0.1, -0.2, 0.1)
    # A variant that lacks a run is compared with another mean of the baseline: its difference is kept all the same.
    assert possible((-0.45, -0.5, -0.4), 0.4) == (-0.45, -0.45, -0.4)
    assert possible((0.1, -3.0, 3.0), None) == (0.1, -1.0, 1.0)
    assert within((-2.0, 2.0), 0.4) == (-0.4, pytest.approx(0.6))
    assert within((-0.1, 0.1), 0.4) == (-0.1, 0.1)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.04, 1.6, [0.05, 0.1, 0.2, 0.5, 1]),
        (20, 100, [20, 30, 50, 70, 100]),
        (52, 210, [70, 100, 200]),
        (12, 21, [12, 14, 16, 18, 20]),
        (0.9, 20_000, [1, 10, 100, 1000, 10_000]),
    ],
)
def test_a_logarithmic_scale_has_a_few_round_ticks(low: float, high: float, ticks: list[float]) -> None:
    assert log_ticks(low, high) == pytest.approx(ticks)
