"""Simulated studies of many variants: their size and spread, and draws of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Family:
    """A simulated study: its size, and the standard deviations of the effects on a difference in Dice.

    Attributes:
        variants: Variants beside the baseline, 2 or more.
        classes: Classes, 1 or more; the loss of an inferior variant is in the first.
        seeds: Training runs of each, 2 or more.
        patients: Patients in each fold, 2 or more.
        folds: Folds, 1 or more.
        fold_sd: Of folds.
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
    folds: int = 1
    fold_sd: float = 0.0
    run_sd: float = 0.0015
    patient_sd: float = 0.002
    residual_sd: float = 0.0075
    inferior: int | None = None
    inferior_run_sd: float | None = None
    heavy: bool = False

    @property
    def num_inferior(self) -> int:
        """Number of variants that lose the margin."""
        return self.variants if self.inferior is None else self.inferior

    @property
    def lost(self) -> slice:
        """The inferior variants among the networks, of which the baseline is the first."""
        return slice(1, 1 + self.num_inferior)

    @property
    def name(self) -> str:
        """Names the family in a table."""
        name = f"{self.variants} variants, classes {self.classes}, {self.seeds} x {self.patients}"
        name += (f" x {self.folds}" if self.folds > 1 else "") + f", run {self.run_sd:g}"
        if self.fold_sd:
            name += f", fold {self.fold_sd:g}"
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
    *(Family(variants=6, folds=2, fold_sd=sd) for sd in (0.0, 0.002, 0.004)),
    Family(variants=6, folds=3, fold_sd=0.003),
    *(Family(folds=5, fold_sd=sd) for sd in (0.0, 0.002)),
)


def draw_family(family: Family, rng: np.random.Generator) -> list[FloatArray]:
    """Draws what every network of a study scores more than expected, without a loss.

    Either side of a difference brings half of its variance, so the variants share the baseline's runs and patients.

    Args:
        family: Its size and spread.
        rng: Source of randomness.

    Returns:
        Dice less its mean by fold, of shape (classes, 1 + variants, seeds, patients), the baseline first and the
        inferior variants next.
    """

    def draw(*shape: int) -> FloatArray:
        drawn = rng.standard_t(3, shape) / math.sqrt(3) if family.heavy else rng.normal(size=shape)
        return drawn / math.sqrt(2)

    classes, networks = family.classes, 1 + family.variants
    run_sd = np.full((networks, 1, 1), family.run_sd)
    if family.inferior_run_sd is not None:
        run_sd[family.lost] = family.inferior_run_sd
    return [
        family.fold_sd * draw(classes, networks, 1, 1)
        + run_sd * draw(classes, networks, family.seeds, 1)
        + family.patient_sd * draw(classes, networks, 1, family.patients)
        + family.residual_sd * draw(classes, networks, family.seeds, family.patients)
        for _ in range(family.folds)
    ]
