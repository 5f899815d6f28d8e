"""From scores of cases to tables of paired differences, runs by patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seg.errors import RunError
from seg.evaluation.scores import CaseScore

FloatArray = npt.NDArray[np.float64]

Pair = tuple[int, int]
"""Fold and seed: what a run of the variant and one of the baseline have in common."""

METRICS = ("dice", "hd95_mm", "nsd")
SHARES = ("dice", "nsd")
"""Scores between 0 and 1."""


@dataclass(frozen=True, kw_only=True)
class RunScores:
    """Scores of one run as arrays.

    Attributes:
        cases: Cases, sorted.
        patients: Patient of each case.
        classes: Index and name of each class, by index.
        values: Scores by metric, each of shape (classes, cases); NaN and infinite as in the records.
    """

    cases: tuple[str, ...]
    patients: tuple[str, ...]
    classes: tuple[tuple[int, str], ...]
    values: Mapping[str, FloatArray]


@dataclass(frozen=True, kw_only=True)
class Tables:
    """Differences of one metric, of one class or of their mean.

    Attributes:
        tables: Variant less baseline for each fold that has a scored patient, of shape (runs, patients).
        seeds: Seeds of each table's rows.
        left_out: Cases without a finite score in some run of either side, left out of all runs of their fold.
        infinite_baseline: Infinite scores of the baseline, over cases and runs.
        infinite_variant: Infinite scores of the variant, over cases and runs.
    """

    tables: tuple[FloatArray, ...]
    seeds: tuple[tuple[int, ...], ...]
    left_out: int
    infinite_baseline: int
    infinite_variant: int


def read_scores(scores: Sequence[CaseScore], where: str) -> RunScores:
    """Turns the records of one run into arrays.

    Args:
        scores: A record for each case and class.
        where: Name of the run in errors.

    Returns:
        The arrays.

    Raises:
        RunError: There is no record, a case lacks a class, or has two records of one.
    """
    patients = {score.case_id: score.patient for score in scores}
    cases = {case_id: number for number, case_id in enumerate(sorted(patients))}
    classes = dict(sorted({score.class_index: score.class_name for score in scores}.items()))
    rows = {index: number for number, index in enumerate(classes)}
    if (
        not scores
        or len(scores) != len({(score.case_id, score.class_index) for score in scores})
        or len(scores) != len(cases) * len(classes)
    ):
        raise RunError(
            f"{where}: scores must have one record for each case and class, got {len(scores)} records for {len(cases)} "
            f"cases and {len(classes)} classes; evaluate the run again."
        )
    values = {metric: np.empty((len(classes), len(cases))) for metric in METRICS}
    for score in scores:
        for metric, array in values.items():
            array[rows[score.class_index], cases[score.case_id]] = getattr(score.scores, metric)
    return RunScores(
        cases=tuple(cases),
        patients=tuple(patients[case_id] for case_id in cases),
        classes=tuple(classes.items()),
        values=values,
    )


def split_folds(runs: Sequence[Sequence[CaseScore]]) -> dict[Pair, list[CaseScore]]:
    """Orders the records of runs by fold.

    Args:
        runs: Records of each run, which may be of several folds; records without a fold count as of fold 0.

    Returns:
        Records by fold and number of the run.
    """
    found: dict[Pair, list[CaseScore]] = {}
    for number, run in enumerate(runs):
        for score in run:
            found.setdefault((score.fold or 0, number), []).append(score)
    return found


def check_runs(runs: Mapping[str, Mapping[Pair, RunScores]]) -> tuple[tuple[int, str], ...]:
    """Checks that runs can be paired.

    Args:
        runs: Scores by variant, then by fold and seed.

    Returns:
        Index and name of each class.

    Raises:
        RunError: Runs of a fold were scored on different cases, runs have different classes, a patient is in two folds,
            or there is no run.
    """
    first: dict[int, tuple[str, RunScores]] = {}
    folds: dict[str, int] = {}
    problems = []
    for variant, by_pair in runs.items():
        for (fold, seed), run in by_pair.items():
            where = f"{variant}.fold_{fold}.seed_{seed}"
            name, reference = first.setdefault(fold, (where, run))
            if different := sorted(set(run.cases) ^ set(reference.cases)):
                problems.append(
                    f"{where}: all runs of a fold must be scored on the same cases, got {len(different)} that "
                    f"only one of it and {name} has, such as {', '.join(different[:3])}; evaluate both on one split."
                )
            if run.classes != (expected := next(iter(first.values()))[1].classes):
                problems.append(
                    f"{where}: all runs must have the same classes, got {_names(run.classes)} beside "
                    f"{_names(expected)}; compare runs of one data set."
                )
    for fold, (_, run) in first.items():
        if shared := sorted({patient for patient in run.patients if folds.setdefault(patient, fold) != fold}):
            problems.append(
                f"fold {fold}: a patient must be in one fold, got {', '.join(shared[:3])} in another too; "
                "make folds of disjoint patients."
            )
    if not first:
        problems.append("a comparison must have a finished run, got none; finish a trial first.")
    if problems:
        raise RunError(problems)
    return next(iter(first.values()))[1].classes


def difference_tables(
    baseline: Mapping[Pair, RunScores],
    variant: Mapping[Pair, RunScores],
    *,
    metric: str,
    class_row: int | None,
) -> Tables:
    """Subtracts the scores of the baseline from those of the variant, on the folds and seeds that both have.

    The difference of a patient is the mean over its cases. A case counts where it has a finite score in every run of
    its fold on both sides, so that every run of a fold is read on the same cases. Dice and NSD are 1 for a run that
    rightly finds nothing where another run of the fold finds something.

    Args:
        baseline: Runs of the baseline by fold and seed.
        variant: Runs of the variant; of one fold all have the same cases.
        metric: One of `METRICS`.
        class_row: Row of the class in the arrays; None for the mean over the classes that a case has in every run.

    Returns:
        A table for each fold with a scored patient.
    """
    tables, seeds = [], []
    left_out = infinite_baseline = infinite_variant = 0
    common = sorted(set(baseline) & set(variant))
    for fold in sorted({fold for fold, _ in common}):
        pairs = [pair for pair in common if pair[0] == fold]
        rows = slice(None) if class_row is None else slice(class_row, class_row + 1)
        before = np.stack([baseline[pair].values[metric][rows] for pair in pairs])
        after = np.stack([variant[pair].values[metric][rows] for pair in pairs])
        infinite_baseline += int(np.isinf(before).sum())
        infinite_variant += int(np.isinf(after).sum())
        both = with_found_nothing(np.stack([before, after]), metric)
        sides, scored = patient_means(both, baseline[pairs[0]].patients)
        left_out += int((~scored).sum())
        if scored.any():
            tables.append(sides[1] - sides[0])
            seeds.append(tuple(seed for _, seed in pairs))
    return Tables(
        tables=tuple(tables),
        seeds=tuple(seeds),
        left_out=left_out,
        infinite_baseline=infinite_baseline,
        infinite_variant=infinite_variant,
    )


def with_found_nothing(values: FloatArray, metric: str) -> FloatArray:
    """Gives runs that rightly find nothing a score of 1 where another run of the fold invents a structure.

    A Dice that is not a number means that reference and prediction are empty. Left out, such a case would hide what
    the other run invented, whose Dice is 0. Where no run finds anything, there is nothing to compare.

    Args:
        values: Scores of shape (sides, runs, classes, cases).
        metric: Their metric; of distances none is right where there is no structure.
    """
    if metric not in SHARES:
        return values
    invented = np.isfinite(values).any(axis=(0, 1)) & np.isnan(values).any(axis=(0, 1))
    return np.where(np.isnan(values) & invented, 1.0, values)


def patient_means(values: FloatArray, patients: Sequence[str]) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Averages scores over classes, then over the cases of a patient.

    A class of a case counts where it is finite for every variant and run, so that all are averaged over the same.

    Args:
        values: Scores of shape (variants, runs, classes, cases).
        patients: Patient of each case.

    Returns:
        Means of shape (variants, runs, patients with a score), and whether each case has a class that counts.
    """
    finite = np.isfinite(values).all(axis=(0, 1))
    counted = finite.sum(axis=0)
    scored = counted > 0
    if not scored.any():
        return np.empty((*values.shape[:2], 0)), scored
    by_case = np.where(finite, values, 0.0).sum(axis=2)[..., scored] / counted[scored]
    numbers = np.unique(np.array(patients)[scored], return_inverse=True)[1]
    member = np.eye(int(numbers.max()) + 1)[numbers]
    means: FloatArray = (by_case @ member) / member.sum(axis=0)
    return means, scored


def _names(classes: Sequence[tuple[int, str]]) -> str:
    return ", ".join(f"{index} {name}" for index, name in classes)
