"""From scores of cases to tables of paired differences, runs by patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seg.errors import Problem, RunError
from seg.evaluation.metrics import METRICS
from seg.evaluation.scores import CaseScore

FloatArray = npt.NDArray[np.float64]
Pair = tuple[int, int]
"""Fold and seed: what a run of the variant and one of the baseline have in common."""
Trials = Mapping[str, Mapping[Pair, Sequence[CaseScore]]]
"""Scores of finished trials by variant, then by fold and seed."""
COMPARED = tuple(name for name, metric in METRICS.items() if metric.compared)
"""Metrics by which variants are compared, Dice first."""


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


Runs = Mapping[Pair, RunScores]


def score_arrays(trials: Trials) -> dict[str, dict[Pair, RunScores]]:
    """Turns the records of every run into arrays.

    Raises:
        RunError: A run has no record, a case lacks a class, or has two records of one.
    """
    return {
        name: {pair: _read_run(scores, run_name(name, pair)) for pair, scores in by_pair.items()}
        for name, by_pair in trials.items()
    }


def run_name(variant: str, pair: Pair) -> str:
    """Returns what the run of a variant with a fold and a seed is called."""
    return f"{variant}.fold_{pair[0]}.seed_{pair[1]}"


def _read_run(scores: Sequence[CaseScore], where: str) -> RunScores:
    patients = dict(sorted((score.case_id, score.patient) for score in scores))
    classes = dict(sorted((score.class_index, score.class_name) for score in scores))
    by_place = {(score.class_index, score.case_id): score.scores for score in scores}
    if not scores or not len(scores) == len(by_place) == len(patients) * len(classes):
        rule = f"must have one record for each of {len(patients)} cases and {len(classes)} classes"
        raise RunError(Problem(where, "records", rule, f"{len(scores)}", "evaluate the run again"))
    return RunScores(
        cases=tuple(patients),
        patients=tuple(patients.values()),
        classes=tuple(classes.items()),
        values={
            metric: np.array([[getattr(by_place[index, case], metric) for case in patients] for index in classes])
            for metric in COMPARED
        },
    )


def split_folds(runs: Sequence[Sequence[CaseScore]]) -> dict[Pair, list[CaseScore]]:
    """Orders the records of runs by fold and number of the run; records without a fold count as of fold 0."""
    found: dict[Pair, list[CaseScore]] = {}
    for number, run in enumerate(runs):
        for score in run:
            found.setdefault((score.fold or 0, number), []).append(score)
    return found


def read_paired(trials: Trials, baseline: str) -> dict[str, dict[Pair, RunScores]]:
    """Turns the records of every run into arrays that can be compared with the baseline.

    Raises:
        RunError: The baseline has no finished trial, runs of a fold were scored on different cases, runs have different
            classes, a patient is in two folds, or records are not one for each case and class.
    """
    if not trials.get(baseline):
        rule, remedy = "must have a finished trial of the baseline", "finish one of it first"
        raise RunError(Problem(baseline, "baseline", rule, "none", remedy))
    runs = score_arrays(trials)
    first: dict[int, tuple[str, RunScores]] = {}
    folds: dict[str, int] = {}
    problems = []
    for variant, by_pair in runs.items():
        for (fold, seed), run in by_pair.items():
            where = run_name(variant, (fold, seed))
            name, reference = first.setdefault(fold, (where, run))
            if different := sorted(set(run.cases) ^ set(reference.cases)):
                rule = f"must be scored on the cases of {name}, as all runs of a fold"
                value = f"{len(different)} that one of the two alone has, such as {', '.join(different[:3])}"
                problems.append(Problem(where, "cases", rule, value, "evaluate both on one split"))
            if run.classes != (expected := next(iter(first.values()))[1].classes):
                own, other = (", ".join(f"{k} {name}" for k, name in named) for named in (run.classes, expected))
                rule = f"must have the classes of all runs, {other}"
                problems.append(Problem(where, "classes", rule, own, "compare runs of one data set"))
    for fold, (_, run) in first.items():
        if shared := sorted({patient for patient in run.patients if folds.setdefault(patient, fold) != fold}):
            value = f"{', '.join(shared[:3])} of another too"
            remedy = "make folds of disjoint patients"
            problems.append(Problem(f"fold {fold}", "patients", "must have patients of its own", value, remedy))
    if problems:
        raise RunError(problems)
    return runs


def difference_tables(
    baseline: Runs, variant: Runs, metric: str, class_row: int | None
) -> tuple[list[FloatArray], list[list[int]]]:
    """Subtracts the scores of the baseline from those of the variant, on the folds and seeds that both have.

    The difference of a patient is the mean over its cases. A case counts where it has a finite score in every run of
    its fold on both sides, so that every run of a fold is read on the same cases. Dice and NSD are 1 for a run that
    rightly finds nothing where another run of the fold finds something.

    Args:
        baseline: Runs of the baseline by fold and seed.
        variant: Runs of the variant; of one fold all have the same cases.
        metric: One of `COMPARED`.
        class_row: Row of the class in the arrays; None for the mean over the classes that a case has in every run.

    Returns:
        A table of shape (runs, patients) for each fold with a scored patient, and the seeds of its rows.
    """
    tables, seeds = [], []
    rows = slice(None) if class_row is None else slice(class_row, class_row + 1)
    common = sorted(set(baseline) & set(variant))
    for fold in sorted({fold for fold, _ in common}):
        pairs = [pair for pair in common if pair[0] == fold]
        both, dice = (
            np.array([[side[pair].values[name][rows] for pair in pairs] for side in (baseline, variant)])
            for name in (metric, "dice")
        )
        both = with_found_nothing(both, dice) if METRICS[metric].share else both
        sides, scored = patient_means(both, baseline[pairs[0]].patients)
        if scored.any():
            tables.append(sides[1] - sides[0])
            seeds.append([seed for _, seed in pairs])
    return tables, seeds


def with_found_nothing(values: FloatArray, dice: FloatArray) -> FloatArray:
    """Gives runs that rightly find nothing a score of 1 where another run of the fold invents a structure.

    A Dice that is not a number means that reference and prediction are empty. Left out, such a case would hide what
    the other run invented, whose Dice is 0. Where no run finds anything, there is nothing to compare. Other scores that
    are not a number were not measured, and stay so.

    Args:
        values: Scores of shape (sides, runs, classes, cases) that are shares; of distances none is right where there is
            no structure.
        dice: Dice of the same runs.
    """
    nothing = np.isnan(dice)
    invented = np.isfinite(values).any(axis=(0, 1)) & nothing.any(axis=(0, 1))
    return np.where(nothing & invented, 1.0, values)


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
