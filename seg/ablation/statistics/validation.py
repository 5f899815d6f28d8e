"""Validation of intervals and verdicts on simulated studies whose truth is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seg.ablation.statistics.methods import METHODS, Method
from seg.evaluation.scores import Interval

FloatArray = npt.NDArray[np.float64]

MARGIN = 0.005
"""Margin of the simulated studies, in Dice."""


@dataclass(frozen=True, kw_only=True)
class Design:
    """A simulated study: its size, and the standard deviations of the effects on a difference in Dice.

    Attributes:
        folds: Folds, 1 or more.
        seeds: Training runs in each fold, 1 or more.
        patients: Patients in each fold, 2 or more.
        sizes: Patients of each fold where they differ; then `folds` and `patients` have no meaning.
        fold_sd: Of folds.
        run_sd: Of training runs.
        patient_sd: Of patients.
        residual_sd: Of a patient in a run.
        heavy: Student's t with 3 degrees of freedom instead of the normal distribution, of the same variance.
    """

    folds: int = 1
    seeds: int = 3
    patients: int = 40
    sizes: tuple[int, ...] = ()
    fold_sd: float = 0.0
    run_sd: float = 0.0015
    patient_sd: float = 0.008
    residual_sd: float = 0.006
    heavy: bool = False

    @property
    def name(self) -> str:
        """Names the design in a table."""
        patients = f"({', '.join(map(str, self.sizes))})" if self.sizes else f"{self.patients} x {self.folds}"
        size = f"{self.seeds} x {patients}, run {self.run_sd:g}"
        usual = (Design.patient_sd, Design.residual_sd)
        if (self.patient_sd, self.residual_sd) != usual:
            size += f", patient {self.patient_sd:g}, residual {self.residual_sd:g}"
        return size + (f", fold {self.fold_sd:g}" if self.fold_sd else "") + (", heavy tails" if self.heavy else "")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a method did on repeats of a design.

    Attributes:
        design: The design.
        method: Name of the method.
        repeats: Simulated studies that it gave an interval for.
        coverage: Share of the 95 % intervals that hold the truth.
        false_positive: Share of studies that it calls not inferior although the truth is the margin; 0.025 is aimed at.
        power: Share of studies that it calls not inferior where the truth is no difference.
        half_width: Median half width of the interval.
    """

    design: Design
    method: str
    repeats: int
    coverage: float
    false_positive: float
    power: float
    half_width: float


DESIGNS = (
    Design(),
    Design(run_sd=0.0),
    Design(run_sd=0.004),
    Design(heavy=True),
    Design(seeds=2, patients=8),
    Design(seeds=2),
    Design(seeds=2, run_sd=0.004),
    Design(folds=5),
    Design(folds=5, run_sd=0.0),
    Design(folds=5, fold_sd=0.002),
    Design(folds=5, heavy=True),
    Design(folds=5, seeds=1),
    *(Design(folds=folds, fold_sd=sd) for folds in (2, 3) for sd in (0.0, 0.002, 0.004)),
    Design(sizes=(10, 40, 80), fold_sd=0.003),
    Design(sizes=(10, 20, 40, 60, 80), fold_sd=0.003),
    Design(sizes=(30, 40, 40, 45, 45), fold_sd=0.003),
    # Patients that hardly differ beside a large residual, as the studies under docs/results have them.
    *(Design(patient_sd=0.002, residual_sd=0.0075, run_sd=sd) for sd in (0.0, 0.0005, 0.0015, 0.003, 0.005)),
    *(Design(patient_sd=0.01, residual_sd=0.02, run_sd=sd) for sd in (0.0, 0.0015, 0.005)),
    Design(patients=24, patient_sd=0.01, residual_sd=0.02),
    Design(seeds=5, patient_sd=0.002, residual_sd=0.0075),
    Design(patient_sd=0.002, residual_sd=0.0075, heavy=True),
)


def simulate(design: Design, rng: np.random.Generator) -> list[FloatArray]:
    """Draws a study whose true mean difference is 0.

    Args:
        design: Its size and spread.
        rng: Source of randomness.

    Returns:
        Differences by fold, of shape (seeds, patients).
    """

    def draw(sd: float, *shape: int) -> FloatArray:
        unit = rng.standard_t(3, shape) / math.sqrt(3) if design.heavy else rng.normal(size=shape)
        return sd * unit

    return [
        draw(design.fold_sd, 1, 1)
        + draw(design.run_sd, design.seeds, 1)
        + draw(design.patient_sd, 1, patients)
        + draw(design.residual_sd, design.seeds, patients)
        for patients in design.sizes or (design.patients,) * design.folds
    ]


def validate(design: Design, *, repeats: int, methods: Sequence[Method] = METHODS, seed: int = 0) -> list[Outcome]:
    """Repeats a design and counts how often each method is right.

    All intervals move with the data, so one simulation about 0 gives the coverage, the false-positive rate at the
    margin (lower end above the truth) and the power (lower end above the truth less the margin). Slow methods see the
    first studies alone, and of several folds fewer.

    Args:
        design: The design.
        repeats: Studies that the fastest methods see, 1 or more.
        methods: The methods.
        seed: Seed of the simulation.

    Returns:
        An outcome for each method that gave an interval.
    """
    rng = np.random.default_rng(seed)
    found: dict[str, list[Interval]] = {}
    limits = [
        math.ceil(repeats * (one.share if one.share == 1 else one.share / max(design.folds, len(design.sizes))))
        for one in methods
    ]
    for number in range(repeats):
        tables = simulate(design, rng)
        for method, limit in zip(methods, limits, strict=True):
            if number < limit:
                for name, interval in method.intervals(tables, np.random.default_rng([seed, number])).items():
                    found.setdefault(name, []).append(interval)
    return [_outcome(design, name, np.array(intervals)) for name, intervals in found.items()]


def _outcome(design: Design, method: str, intervals: FloatArray) -> Outcome:
    low, high = intervals.T
    return Outcome(
        design=design,
        method=method,
        repeats=len(intervals),
        coverage=float(np.mean((low <= 0) & (high >= 0))),
        false_positive=float(np.mean(low > 0)),
        power=float(np.mean(low > -MARGIN)),
        half_width=float(np.median(high - low) / 2),
    )


def format_outcomes(outcomes: Sequence[Outcome]) -> str:
    """Formats outcomes as Markdown tables, a row for each design and a column for each method.

    Args:
        outcomes: What `validate` gave, of any designs.

    Returns:
        Tables of coverage, false positives and power, in percent with their Monte-Carlo standard error, and of half
        widths in Dice. A method that gave no interval in a design has a dash.
    """
    tables: dict[str, Callable[[Outcome], str]] = {
        "Coverage of the 95 % interval, %": lambda one: percent(one.coverage, one.repeats),
        "False positives at the margin, % (2.5 is aimed at)": lambda one: percent(one.false_positive, one.repeats),
        "Called not inferior where there is no difference, %": lambda one: percent(one.power, one.repeats),
        "Median half width, Dice": lambda one: f"{one.half_width:.4f}",
    }
    methods = list(dict.fromkeys(one.method for one in outcomes))
    cells = {(one.design.name, one.method): one for one in outcomes}
    designs = list(dict.fromkeys(one.design.name for one in outcomes))
    blocks = []
    for title, text in tables.items():
        rows = [f"| seeds x patients x folds | {' | '.join(methods)} |", "|---" * (len(methods) + 1) + "|"]
        for design in designs:
            found = (cells.get((design, method)) for method in methods)
            rows.append(f"| {design} | {' | '.join(text(one) if one else '-' for one in found)} |")
        blocks.append("\n".join([f"**{title}**", "", *rows]))
    return "\n\n".join(blocks)


def percent(share: float, repeats: int) -> str:
    """Formats a share in percent with its Monte-Carlo standard error."""
    return f"{100 * share:.1f} ± {100 * math.sqrt(share * (1 - share) / repeats):.1f}"
