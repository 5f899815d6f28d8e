"""Limits of scales, against closed forms."""

from __future__ import annotations

import pytest

from seg.ablation.report.scale import Scale, beyond_words, choose_scale

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
