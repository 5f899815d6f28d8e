"""Paired differences: a closed form, coverage on simulated data, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from seg.errors import RunError
from seg.evaluation import CaseScore, paired_difference
from seg.metrics import ClassScores


def run_of(dice: np.ndarray, prefix: str = "p") -> list[CaseScore]:
    blank = dict.fromkeys(ClassScores.__dataclass_fields__, 0.0)
    return [
        CaseScore(
            case_id=f"{prefix}{i}",
            patient=f"{prefix}{i}",
            fold=0,
            class_index=1,
            class_name="a",
            scores=ClassScores(**(blank | {"dice": float(value)})),
        )
        for i, value in enumerate(dice)
    ]


def test_a_constant_shift_has_an_interval_of_no_width() -> None:
    dice = np.linspace(0.5, 0.9, 7)
    result = paired_difference([run_of(dice), run_of(dice + 0.01)], [run_of(dice + 0.02), run_of(dice + 0.03)])
    assert result.difference == pytest.approx(0.02)
    assert result.ci95 == pytest.approx((0.02, 0.02))
    assert result.by_seed == pytest.approx((0.02, 0.02))
    assert result.num_patients == 7


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        base = rng.uniform(0.6, 0.8, 25)
        shift = 0.02 + rng.normal(0, 0.01, 25)
        baseline = [run_of(base) for _ in range(3)]
        variant = [run_of(base + shift + rng.normal(0, 0.01, 25)) for _ in range(3)]
        low, high = paired_difference(baseline, variant, samples=400, seed=trial).ci95
        hits += low <= 0.02 <= high
    assert 0.90 <= hits / 200 <= 1.0


def test_a_case_without_a_dice_is_left_out_of_both_sides() -> None:
    dice = np.array([0.5, np.nan, 0.7])
    assert paired_difference([run_of(dice)], [run_of(dice + 0.1)]).num_patients == 2


def test_runs_that_cannot_be_paired_are_refused() -> None:
    dice = np.array([0.5, 0.6])
    with pytest.raises(RunError, match=r"as many runs of the variant as of the baseline, got 2 and 1; give one of"):
        paired_difference([run_of(dice)], [run_of(dice), run_of(dice)])
    with pytest.raises(RunError, match=r"only one of variant 0 and baseline 0 has, such as p0 class 1, p1 class 1, q0"):
        paired_difference([run_of(dice)], [run_of(dice, "q")])
    # Each pair on cases of its own, as where folds were made from the seed of training.
    with pytest.raises(RunError) as caught:
        paired_difference([run_of(dice), run_of(dice, "q")], [run_of(dice), run_of(dice, "q")])
    assert str(caught.value) == (
        "all runs must be scored on the same cases and classes, got 4 that only one of baseline 1 and baseline 0 has, "
        "such as p0 class 1, p1 class 1, q0 class 1, q1 class 1; compare runs of the same fold and split."
    )
    with pytest.raises(RunError, match=r"must have a patient with a Dice in every run, got none; look at the labels"):
        paired_difference([run_of(dice)], [run_of(dice * np.nan)])


def test_a_patient_without_a_dice_in_one_run_is_left_out_of_all() -> None:
    dice = np.array([0.5, 0.6, 0.7])
    blank = dice.copy()
    blank[0] = np.nan
    result = paired_difference([run_of(dice), run_of(dice)], [run_of(dice + 0.1), run_of(blank + 0.2)])
    assert (result.num_patients, result.by_seed) == (2, pytest.approx((0.1, 0.2)))
