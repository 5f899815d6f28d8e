from __future__ import annotations

import math
from dataclasses import replace

import pytest

from seg.evaluation import CaseScore, case_scores
from seg.figures.ranking import rank_cases
from seg.metrics import EMPTY_SCORES


def scores(**dice: tuple[float, ...]) -> list[CaseScore]:
    """Scores of cases by id, a Dice for each class."""
    found: list[CaseScore] = []
    for case_id, values in dice.items():
        by_class = {index: replace(EMPTY_SCORES, dice=value) for index, value in enumerate(values, start=1)}
        found += case_scores(by_class, case_id=case_id, class_names=("background", "a", "b"))
    return found


@pytest.mark.parametrize(
    ("count", "worst", "middle", "median"),
    [
        (1, [1], [], 1),
        (2, [1, 2], [], 2),
        (3, [1, 2, 3], [], 2),
        (5, [1, 2, 3], [], 3),
        (6, [1, 2, 3], [4], 4),
        (8, [1, 2, 3], [5], 5),
        (9, [1, 2, 3], [4, 5, 6], 5),
        (40, [1, 2, 3], [20, 21, 22], 21),
    ],
)
def test_the_worst_and_the_middle_of_the_ranking_are_shown(
    count: int, worst: list[int], middle: list[int], median: int
) -> None:
    ranking = rank_cases(scores(**{f"c{number:02}": (number / 100,) for number in range(count, 0, -1)}))
    assert [case.rank for case in ranking.worst] == worst
    assert [case.rank for case in ranking.middle] == middle
    assert ranking.median is not None
    assert ranking.median.rank == median
    for case in (*ranking.worst, *ranking.middle, ranking.median):
        assert (case.case_id, case.mean_dice) == (f"c{case.rank:02}", pytest.approx(case.rank / 100))


def test_empty_classes_count_in_no_mean_and_empty_cases_have_no_rank() -> None:
    ranking = rank_cases(scores(a=(0.5, math.nan), b=(0.0, 0.8), c=(math.nan, math.nan)))
    assert [(case.case_id, case.mean_dice) for case in ranking.worst] == [("b", 0.4), ("a", 0.5)]
    assert (ranking.num_ranked, ranking.num_empty) == (2, 1)
    nothing = rank_cases(scores(c=(math.nan, math.nan)))
    assert (nothing.worst, nothing.middle, nothing.median, nothing.num_empty) == ((), (), None, 1)


def test_equal_cases_are_ranked_by_name() -> None:
    # In floating point 0.1 + 0.7 is less than 0.4 + 0.4.
    assert (0.1 + 0.7) / 2 < 0.4
    tied = {"z": (0.1, 0.7), "a": (0.7, 0.1), "m": (0.4, 0.4)}
    assert [case.case_id for case in rank_cases(scores(**tied)).worst] == ["a", "m", "z"]
