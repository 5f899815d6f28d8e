"""Validation of the test for many variants at once: how often a study passes any variant that it should not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import stats

from seg.ablation.statistics.comparison import paired
from seg.ablation.statistics.effects import TAIL
from seg.ablation.statistics.errors import TESTS, moderated_runs
from seg.ablation.statistics.families import Family, draw_family
from seg.ablation.statistics.validation import MARGIN, percent
from seg.evaluation.metrics import METRICS, ClassScores
from seg.evaluation.scores import CaseScore

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class FamilyOutcome:
    """How a test did on repeats of a family.

    Attributes:
        family: The family.
        test: Name of the test.
        repeats: Simulated studies.
        error: Share of studies in which any inferior variant passes; 0.025 is allowed.
        power: Mean share of variants that pass where none loses anything.
    """

    family: Family
    test: str
    repeats: int
    error: float
    power: float


def validate_family(family: Family, *, repeats: int, seed: int = 0) -> list[FamilyOutcome]:
    """Repeats a study, and counts what each test passes after Holm's procedure.

    Args:
        family: The study.
        repeats: Simulated studies, 1 or more.
        seed: Seed of the simulation.

    Returns:
        An outcome for each test that there is for so many folds.
    """
    rng = np.random.default_rng(seed)
    tests = {name: errors for name, errors in TESTS.items() if family.folds == 1 or errors is not moderated_runs}
    wrong: dict[str, list[float]] = {name: [] for name in tests}
    right: dict[str, list[float]] = {name: [] for name in tests}
    for _ in range(repeats):
        equal = [drawn[:, 1:] - drawn[:, :1] for drawn in draw_family(family, rng)]
        means = np.mean([differences.mean(axis=(2, 3)) for differences in equal], axis=0)
        lost = means.copy()
        lost[0, : family.num_inferior] -= MARGIN
        for test, errors in tests.items():
            error, freedom = np.stack([errors(folds) for folds in zip(*equal, strict=True)], axis=1)
            wrong[test].append(float(_passes(lost, error, freedom)[: family.num_inferior].any()))
            right[test].append(float(_passes(means, error, freedom).mean()))
    return [
        FamilyOutcome(
            family=family,
            test=test,
            repeats=repeats,
            error=float(np.mean(wrong[test])),
            power=float(np.mean(right[test])),
        )
        for test in tests
    ]


def family_error(family: Family, *, repeats: int, seed: int = 0) -> float:
    """Gives how often any inferior variant passes the whole way from scores of cases to verdicts.

    Args:
        family: The study.
        repeats: Simulated studies, 1 or more.
        seed: Seed of the simulation.

    Returns:
        The share of studies with a false verdict.
    """
    rng, wrong = np.random.default_rng(seed), 0
    for _ in range(repeats):
        folds = [0.8 + drawn for drawn in draw_family(family, rng)]
        for dice in folds:
            dice[0, family.lost] -= MARGIN
        trials = {
            f"v{number}": {
                (fold, run): _records(dice[:, number, run], fold)
                for fold, dice in enumerate(folds)
                for run in range(family.seeds)
            }
            for number in range(1 + family.variants)
        }
        verdicts = {one.variant: one.non_inferior for one in paired(trials, "v0", margin=MARGIN)}
        wrong += any(verdicts[f"v{number}"] for number in range(1, 1 + family.num_inferior))
    return wrong / repeats


def _passes(means: FloatArray, error: FloatArray, freedom: FloatArray) -> npt.NDArray[np.bool_]:
    """Tells which variants pass in every class after correction; all of shape (classes, variants)."""
    return holm(stats.t.sf((means + MARGIN) / error, freedom).max(axis=0))


def holm(p_values: FloatArray) -> npt.NDArray[np.bool_]:
    """Tells what Holm's procedure passes at `TAIL`; that of statsmodels collects garbage, 60 ms a call."""
    order = np.argsort(p_values)
    passed = np.zeros(len(p_values), bool)
    passed[order] = np.cumprod(p_values[order] * np.arange(len(p_values), 0, -1) <= TAIL).astype(bool)
    return passed


def _records(dice: FloatArray, fold: int) -> list[CaseScore]:
    """Gives the records of one run of a fold from its Dice of shape (classes, patients)."""
    blank = ClassScores.from_names(dict.fromkeys(METRICS, 0.5))
    return [
        CaseScore(
            case_id=f"{fold}_{case}",
            patient=f"{fold}_{case}",
            fold=fold,
            class_index=index,
            class_name=str(index),
            scores=replace(blank, dice=float(value)),
        )
        for index, values in enumerate(dice, start=1)
        for case, value in enumerate(values)
    ]


def format_families(outcomes: Sequence[FamilyOutcome]) -> str:
    """Formats outcomes as a Markdown table: family error, and share of equal variants that pass, by test, in percent.

    Args:
        outcomes: What `validate_family` gave, of any families.

    Returns:
        The table, a row for each family.
    """
    columns = [f"{what}, {test}" for what in ("passes an inferior one", "equal ones pass") for test in TESTS]
    rows = [f"| study | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for family in dict.fromkeys(one.family for one in outcomes):
        found = {one.test: one for one in outcomes if one.family == family}
        errors = [percent(found[test].error, found[test].repeats) if test in found else "-" for test in TESTS]
        powers = [f"{100 * found[test].power:.0f}" if test in found else "-" for test in TESTS]
        rows.append(f"| {family.name} | {' | '.join(errors + powers)} |")
    return "\n".join(rows)
