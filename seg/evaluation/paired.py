"""Difference of two ways to train, on the same cases and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seg.errors import RunError
from seg.evaluation.scores import CaseScore, Interval

PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """Mean Dice of a variant less that of its baseline.

    Attributes:
        difference: Mean over seeds and patients.
        ci95: 95 % interval from resampling seeds and patients.
        by_seed: Mean over patients, for each pair of runs.
        num_patients: Patients behind it.
    """

    difference: float
    ci95: Interval
    by_seed: tuple[float, ...]
    num_patients: int


def paired_difference(
    baseline: Sequence[Sequence[CaseScore]],
    variant: Sequence[Sequence[CaseScore]],
    *,
    samples: int = 10_000,
    seed: int = 0,
) -> PairedDifference:
    """Compares runs pair by pair.

    The Dice of a patient is the mean over its cases and classes; a patient that has none in some run, its masks being
    empty there, is left out of all. Seeds and patients are resampled with replacement,
    independently of one another, so the interval holds for new seeds and new patients alike.

    Args:
        baseline: Scores of the baseline, one run per seed.
        variant: Scores of the variant in the same order of seeds; all runs are scored on the same cases.
        samples: Resamples, >= 100.
        seed: Seed of the resampling.

    Returns:
        The difference; positive where the variant is better.

    Raises:
        RunError: The numbers of runs differ, runs were scored on different cases or classes, or no patient has a Dice.

    References:
        Davison, Hinkley. Bootstrap methods and their application. 1997, section 3.8 (hierarchical data).
    """
    if not baseline or len(baseline) != len(variant):
        raise RunError(
            f"a comparison must have as many runs of the variant as of the baseline, got {len(variant)} and "
            f"{len(baseline)}; give one of each per seed."
        )
    expected = _keys(baseline[0])
    for number, runs in enumerate(zip(baseline, variant, strict=True)):
        for role, run in zip(("baseline", "variant"), runs, strict=True):
            if different := sorted(expected ^ _keys(run)):
                some = ", ".join(f"{case_id} class {index}" for case_id, index in different[:5])
                raise RunError(
                    f"all runs must be scored on the same cases and classes, got {len(different)} that only one of "
                    f"{role} {number} and baseline 0 has, such as {some}; compare runs of the same fold and split."
                )
    dice = [(_dice_by_patient(one), _dice_by_patient(other)) for one, other in zip(baseline, variant, strict=True)]
    patients = sorted(set.intersection(*(set(run) for pair in dice for run in pair)))
    if not patients:
        raise RunError("a comparison must have a patient with a Dice in every run, got none; look at the labels.")
    rows = [[after[patient] - before[patient] for patient in patients] for before, after in dice]
    values = np.array(rows)
    means = _resampled_means(values, samples, np.random.default_rng(seed))
    low, high = np.percentile(means, PERCENTILES)
    return PairedDifference(
        difference=float(values.mean()),
        ci95=(float(low), float(high)),
        by_seed=tuple(float(value) for value in values.mean(axis=1)),
        num_patients=values.shape[1],
    )


def _keys(run: Sequence[CaseScore]) -> set[tuple[str, int]]:
    return {(score.case_id, score.class_index) for score in run}


def _dice_by_patient(scores: Sequence[CaseScore]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for score in scores:
        if np.isfinite(score.scores.dice):
            found.setdefault(score.patient, []).append(score.scores.dice)
    return {patient: float(np.mean(dice)) for patient, dice in found.items()}


def _resampled_means(
    values: npt.NDArray[np.float64], samples: int, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Means of resampled rows (seeds) and columns (patients), of shape (samples,)."""
    seeds, patients = values.shape
    row_weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=samples) / seeds
    column_weights = rng.multinomial(patients, np.full(patients, 1 / patients), size=samples) / patients
    means: npt.NDArray[np.float64] = np.einsum("ns,sp,np->n", row_weights, values, column_weights)
    return means
