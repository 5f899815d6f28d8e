"""The order of cases by Dice, which decides the cases that are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seg.evaluation.metrics import finite_mean
from seg.evaluation.scores import CaseScore

WORST = 3
"""Most cases that are drawn from the lower end."""

TIE_DECIMALS = 12
"""Decimals to which mean Dice must differ for a case to be worse than another."""


@dataclass(frozen=True, kw_only=True)
class RankedCase:
    """A case and its place.

    Attributes:
        case_id: The case.
        rank: 1 for the lowest mean Dice.
        mean_dice: Mean over the classes that have a Dice in this case.
    """

    case_id: str
    rank: int
    mean_dice: float


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """All cases in order.

    Attributes:
        cases: The cases with a Dice, the lowest first.
        empty: The cases without a Dice: all their masks are empty.
    """

    cases: tuple[RankedCase, ...]
    empty: tuple[str, ...]

    @property
    def median(self) -> RankedCase | None:
        """The median case; the upper one of an even number; None without cases."""
        return self.cases[len(self.cases) // 2] if self.cases else None

    def extremes(self, worst: int = 1) -> list[tuple[RankedCase, str]]:
        """Returns the worst cases, the median and the best, each once, with these words as notes."""
        lowest = self.cases[:worst]
        notes = dict.fromkeys(lowest, "worst")
        if self.median is not None:
            for case, note in ((self.cases[-1], "best"), (self.median, "median")):
                notes.setdefault(case, note)
        return sorted(notes.items(), key=lambda item: item[0].rank)


def rank_cases(scores: Sequence[CaseScore]) -> Ranking:
    """Ranks cases by their mean Dice over classes; equal ones by case id.

    Args:
        scores: One record for each case and class. A Dice that is NaN (both masks empty) is left out of a case's mean.
    """
    dice: dict[str, list[float]] = {}
    for score in scores:
        dice.setdefault(score.case_id, []).append(score.scores.dice)
    means = {case_id: finite_mean(values) for case_id, values in dice.items()}
    # Rounded, or the order of additions would rank cases that are equal.
    order = sorted((round(mean, TIE_DECIMALS), case_id) for case_id, mean in means.items() if mean is not None)
    return Ranking(
        cases=tuple(
            RankedCase(case_id=case_id, rank=rank, mean_dice=mean)
            for rank, (mean, case_id) in enumerate(order, start=1)
        ),
        empty=tuple(sorted(case_id for case_id, mean in means.items() if mean is None)),
    )
