"""Validation of the test for many variants at once: how often a study passes any variant that it should not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
from scipy import stats

from seg.ablation.statistics.comparison import paired
from seg.ablation.statistics.effects import TAIL
from seg.ablation.statistics.errors import TESTS
from seg.ablation.statistics.validation import MARGIN, percent
from seg.evaluation.scores import CaseScore
from seg.metrics import ClassScores

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Family:
    """A simulated study of one fold: its size, and the standard deviations of the effects on a difference in Dice.

    Attributes:
        variants: Variants beside the baseline, 2 or more.
        classes: Classes, 1 or more; the loss of an inferior variant is in the first.
        seeds: Training runs of each, 2 or more.
        patients: Patients, 2 or more.
        run_sd: Of training runs.
        patient_sd: Of patients.
        residual_sd: Of a patient in a run.
        inferior: Variants that lose the margin; the others lose nothing. None for all.
        inferior_run_sd: Of training runs of inferior variants; None for `run_sd`.
        heavy: Student's t with 3 degrees of freedom instead of the normal distribution, of the same variance.
    """

    variants: int = 18
    classes: int = 2
    seeds: int = 3
    patients: int = 40
    run_sd: float = 0.0015
    patient_sd: float = 0.002
    residual_sd: float = 0.0075
    inferior: int | None = None
    inferior_run_sd: float | None = None
    heavy: bool = False

    @property
    def name(self) -> str:
        """Names the family in a table."""
        name = f"{self.variants} variants, classes {self.classes}, {self.seeds} x {self.patients}, run {self.run_sd:g}"
        if (self.patient_sd, self.residual_sd) != (Family.patient_sd, Family.residual_sd):
            name += f", patient {self.patient_sd:g}, residual {self.residual_sd:g}"
        if self.inferior is not None:
            name += f"; {self.inferior} inferior"
        if self.inferior_run_sd is not None:
            name += f" with run {self.inferior_run_sd:g}"
        return name + (", heavy tails" if self.heavy else "")


FAMILIES = (
    Family(run_sd=0.0),
    Family(run_sd=0.0005),
    Family(),
    Family(run_sd=0.003),
    Family(classes=1, run_sd=0.0),
    Family(classes=1, run_sd=0.0005),
    Family(classes=1),
    Family(classes=1, heavy=True),
    Family(classes=3, patients=12, run_sd=0.01, patient_sd=0.03, residual_sd=0.06),
    Family(variants=6, classes=1),
    Family(variants=6, run_sd=0.0015, patient_sd=0.007, residual_sd=0.012),
    # What loses Dice may train less evenly too, as decoder 1/8 does on the hippocampus.
    Family(run_sd=0.0005, inferior=1, inferior_run_sd=0.006),
    Family(classes=1, run_sd=0.0005, inferior=1, inferior_run_sd=0.006),
    Family(classes=1, run_sd=0.0005, inferior=3, inferior_run_sd=0.006),
    Family(variants=6, classes=1, run_sd=0.0005, inferior=1, inferior_run_sd=0.004),
    Family(seeds=5, classes=1),
    Family(seeds=5),
    Family(seeds=5, run_sd=0.0005, inferior=3, inferior_run_sd=0.006),
)


def draw_family(family: Family, rng: np.random.Generator) -> FloatArray:
    """Draws what every network of a study scores more than expected, without a loss.

    Either side of a difference brings half of its variance, so the variants share the baseline's runs and patients.

    Args:
        family: Its size and spread.
        rng: Source of randomness.

    Returns:
        Dice less its mean, of shape (classes, 1 + variants, seeds, patients), the baseline first and the inferior
        variants next.
    """

    def draw(*shape: int) -> FloatArray:
        drawn = rng.standard_t(3, shape) / math.sqrt(3) if family.heavy else rng.normal(size=shape)
        return drawn / math.sqrt(2)

    classes, networks = family.classes, 1 + family.variants
    run_sd = np.full((networks, 1, 1), family.run_sd)
    if family.inferior_run_sd is not None:
        run_sd[_inferior(family)] = family.inferior_run_sd
    return (
        run_sd * draw(classes, networks, family.seeds, 1)
        + family.patient_sd * draw(classes, networks, 1, family.patients)
        + family.residual_sd * draw(classes, networks, family.seeds, family.patients)
    )


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
        An outcome for each test.
    """
    rng = np.random.default_rng(seed)
    wrong: dict[str, list[float]] = {name: [] for name in TESTS}
    right: dict[str, list[float]] = {name: [] for name in TESTS}
    for _ in range(repeats):
        drawn = draw_family(family, rng)
        equal = drawn[:, 1:] - drawn[:, :1]
        means = equal.mean(axis=(2, 3))
        lost = means.copy()
        lost[0, : _count(family)] -= MARGIN
        for test, errors in TESTS.items():
            error, freedom = np.stack([errors(tables) for tables in equal], axis=1)
            wrong[test].append(float(_passes(lost, error, freedom)[: _count(family)].any()))
            right[test].append(float(_passes(means, error, freedom).mean()))
    return [
        FamilyOutcome(
            family=family,
            test=test,
            repeats=repeats,
            error=float(np.mean(wrong[test])),
            power=float(np.mean(right[test])),
        )
        for test in TESTS
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
        dice = 0.8 + draw_family(family, rng)
        dice[0, _inferior(family)] -= MARGIN
        trials = {
            f"v{number}": {(0, run): _records(dice[:, number, run]) for run in range(family.seeds)}
            for number in range(1 + family.variants)
        }
        verdicts = {one.variant: one.non_inferior for one in paired(trials, "v0", margin=MARGIN)}
        wrong += any(verdicts[f"v{number}"] for number in range(1, 1 + _count(family)))
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


def _count(family: Family) -> int:
    return family.variants if family.inferior is None else family.inferior


def _inferior(family: Family) -> slice:
    """Gives the inferior variants among the networks, of which the baseline is the first."""
    return slice(1, 1 + _count(family))


def _records(dice: FloatArray) -> list[CaseScore]:
    """Gives the records of one run from its Dice of shape (classes, patients)."""
    blank = ClassScores(**{one.name: 0.5 for one in fields(ClassScores)})
    return [
        CaseScore(
            case_id=str(case),
            patient=str(case),
            fold=0,
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
        errors = [percent(found[test].error, found[test].repeats) for test in TESTS]
        powers = [f"{100 * found[test].power:.0f}" for test in TESTS]
        rows.append(f"| {family.name} | {' | '.join(errors + powers)} |")
    return "\n".join(rows)
