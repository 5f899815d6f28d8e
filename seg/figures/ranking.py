"""Which cases a page shows: those at the lower end of the ranking by Dice, and those in its middle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seg.evaluation import CaseScore
from seg.metrics import finite_mean

WORST = 3
MEDIANS = 3
"""Most cases shown of either kind."""

FEW = 9
"""Number of cases below which one stands for the middle: its neighbours would be among the worst or the best."""


TIE_DECIMALS = 12
"""Decimals to which mean Dice must differ for one case to be the worse one."""


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
    """The cases to show.

    Attributes:
        worst: The lowest, lowest first; up to three.
        middle: Those around the median that are not among the worst, lowest first; up to three.
        median: The median case, also where it is among the worst; of an even number the upper one. None without cases.
        num_ranked: Number of cases with a Dice.
        num_empty: Number of cases without: all their masks are empty.
    """

    worst: tuple[RankedCase, ...]
    middle: tuple[RankedCase, ...]
    median: RankedCase | None
    num_ranked: int
    num_empty: int


def rank_cases(scores: Sequence[CaseScore]) -> Ranking:
    """Ranks cases by their mean Dice over classes; equal ones by case id.

    Args:
        scores: One record for each case and class. A Dice that is NaN (both masks empty) is left out of a case's mean.

    Returns:
        The cases to show.
    """
    dice: dict[str, list[float]] = {}
    for score in scores:
        dice.setdefault(score.case_id, []).append(score.scores.dice)
    means = {case_id: finite_mean(values) for case_id, values in dice.items()}
    # Rounded, or the order of additions would rank cases that are equal.
    order = sorted((round(mean, TIE_DECIMALS), case_id) for case_id, mean in means.items() if mean is not None)
    ranked = [
        RankedCase(case_id=case_id, rank=rank, mean_dice=mean) for rank, (mean, case_id) in enumerate(order, start=1)
    ]
    middle = len(ranked) // 2
    around = MEDIANS // 2 if len(ranked) >= FEW else 0
    return Ranking(
        worst=tuple(ranked[:WORST]),
        middle=tuple(ranked[max(WORST, middle - around) : middle + around + 1]),
        median=ranked[middle] if ranked else None,
        num_ranked=len(ranked),
        num_empty=len(dice) - len(ranked),
    )
