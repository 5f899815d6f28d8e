"""The order of cases by Dice, which decides the cases that are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from seg.evaluation.metrics import finite_mean
from seg.evaluation.scores import CaseScore

TIE_DECIMALS = 12
"""Decimals to which mean Dice must differ for a case to be worse than another."""


class RankedCase(NamedTuple):
    """A case, its rank (1 for the lowest mean Dice), and its mean Dice over the classes that have one."""

    case_id: str
    rank: int
    mean_dice: float


class Ranking(NamedTuple):
    """The cases with a Dice, the lowest first; and those without, whose masks are all empty."""

    cases: tuple[RankedCase, ...]
    empty: tuple[str, ...]

    def extremes(self, worst: int = 1) -> list[tuple[RankedCase, str]]:
        """Returns the worst cases, the median (the upper of two) and the best, each once, with these words as notes."""
        if not self.cases:
            return []
        notes = dict.fromkeys(self.cases[:worst], "worst")
        notes.setdefault(self.cases[-1], "best")
        notes.setdefault(self.cases[len(self.cases) // 2], "median")
        return sorted(notes.items(), key=lambda item: item[0].rank)


def rank_cases(scores: Sequence[CaseScore]) -> Ranking:
    """Ranks cases by their mean Dice over classes; equal ones by case id. A Dice that is NaN counts in no mean."""
    dice: dict[str, list[float]] = {}
    for score in scores:
        dice.setdefault(score.case_id, []).append(score.scores.dice)
    means = {case_id: finite_mean(values) for case_id, values in dice.items()}
    # Rounded, or the order of additions would rank cases that are equal.
    order = sorted((round(mean, TIE_DECIMALS), case_id) for case_id, mean in means.items() if mean is not None)
    return Ranking(
        cases=tuple(RankedCase(case_id, rank, mean) for rank, (mean, case_id) in enumerate(order, start=1)),
        empty=tuple(sorted(case_id for case_id, mean in means.items() if mean is None)),
    )
