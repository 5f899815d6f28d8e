"""Small studies of known scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from seg.evaluation.metrics import ClassScores
from seg.evaluation.scores import CaseScore

BLANK = dict.fromkeys(ClassScores().by_name(), 0.5)


def run_of(dice: np.ndarray | Sequence[Sequence[float]], fold: int = 0, **metrics: np.ndarray) -> list[CaseScore]:
    """Gives the records of one run; scores have shape (classes, cases), each case is a patient of its own."""
    dice = np.asarray(dice, dtype=float)
    return [
        CaseScore(
            case_id=f"f{fold}_c{case}",
            patient=f"f{fold}_p{case}",
            fold=fold,
            class_index=row + 1,
            class_name="abc"[row],
            scores=ClassScores(
                **(BLANK | {"dice": float(value)} | {name: float(array[row, case]) for name, array in metrics.items()})
            ),
        )
        for (row, case), value in np.ndenumerate(dice)
    ]


def noise(seed: int, cases: int = 20, classes: int = 2, sd: float = 0.004) -> np.ndarray:
    """Gives small random scores of shape (classes, cases)."""
    return np.random.default_rng(seed).normal(0, sd, (classes, cases))
