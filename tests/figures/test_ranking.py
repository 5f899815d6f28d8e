from __future__ import annotations

import math
from dataclasses import replace

import pytest

from seg.evaluation.metrics import EMPTY_SCORES
from seg.evaluation.scores import CaseScore, case_scores
from seg.figures.ranking import rank_cases


def scores(**dice: tuple[float, ...]) -> list[CaseScore]:
    """Scores of cases by id, a Dice for each class."""
    found: list[CaseScore] = []
    for case_id, values in dice.items():
        by_class = {index: replace(EMPTY_SCORES, dice=value) for index, value in enumerate(values, start=1)}
        found += case_scores(by_class, case_id=case_id, class_names=("background", "a", "b"))
    return found


@pytest.mark.parametrize(
    ("count", "worst", "expected"),
    [
        (1, 3, {1: "worst"}),
        (2, 1, {1: "worst", 2: "best"}),
        (3, 3, {1: "worst", 2: "worst", 3: "worst"}),
        (5, 1, {1: "worst", 3: "median", 5: "best"}),
        (6, 3, {1: "worst", 2: "worst", 3: "worst", 4: "median", 6: "best"}),
        (40, 3, {1: "worst", 2: "worst", 3: "worst", 21: "median", 40: "best"}),
    ],
)
def test_worst_median_and_best_cases_are_picked_once(count: int, worst: int, expected: dict[int, str]) -> None:
    ranking = rank_cases(scores(**{f"c{number:02}": (number / 100,) for number in range(count, 0, -1)}))
    picked = ranking.extremes(worst)
    assert {case.rank: note for case, note in picked} == expected
    assert all((case.case_id, case.mean_dice) == (f"c{case.rank:02}", case.rank / 100) for case, _ in picked)
    assert len(ranking.cases) == count


def test_empty_classes_count_in_no_mean_and_empty_cases_have_no_rank() -> None:
    ranking = rank_cases(scores(a=(0.5, math.nan), b=(0.0, 0.8), c=(math.nan, math.nan)))
    assert [(case.case_id, case.mean_dice) for case in ranking.cases] == [("b", 0.4), ("a", 0.5)]
    assert ranking.empty == ("c",)
    nothing = rank_cases(scores(c=(math.nan, math.nan)))
    assert (nothing.cases, nothing.extremes()) == ((), [])


def test_equal_cases_are_ranked_by_name() -> None:
    # In floating point 0.1 + 0.7 is less than 0.4 + 0.4.
    assert (0.1 + 0.7) / 2 < 0.4
    tied = {"z": (0.1, 0.7), "a": (0.7, 0.1), "m": (0.4, 0.4)}
    assert [case.case_id for case in rank_cases(scores(**tied)).cases] == ["a", "m", "z"]
