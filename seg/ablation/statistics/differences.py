"""What a variant is against the baseline: differences by score and class, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from seg.ablation.statistics.effects import Effect
from seg.ablation.statistics.tables import Pair
from seg.evaluation.scores import Interval


@dataclass(frozen=True, kw_only=True)
class MetricEffect:
    """Difference of one score, with what could not be compared.

    Attributes:
        effect: Variant less baseline; None where no case has a finite score in every run.
        left_out: Cases without one, counted once per fold: both masks empty, or an infinite HD95.
        infinite_baseline: Infinite scores of the baseline, over cases and runs: one of two masks empty.
        infinite_variant: Infinite scores of the variant.
    """

    effect: Effect | None
    left_out: int
    infinite_baseline: int
    infinite_variant: int


@dataclass(frozen=True, kw_only=True)
class ClassComparison:
    """Differences in one class.

    Attributes:
        index: The class, 1 or more.
        name: Its name.
        dice: Difference in Dice, tested at the margin.
        hd95_mm: Difference in HD95, in mm; larger is worse.
        nsd: Difference in NSD.
    """

    index: int
    name: str
    dice: MetricEffect
    hd95_mm: MetricEffect
    nsd: MetricEffect

    @property
    def p_noninferior(self) -> float | None:
        """The p-value of the one-sided test in this class; None where it could not be tested."""
        return self.dice.effect.p_noninferior if self.dice.effect else None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A variant against the baseline.

    Attributes:
        variant: The variant.
        margin: Margin of non-inferiority.
        p_noninferior: Largest p-value over the classes, since every class must pass; None where one was not tested.
        p_holm: The same, adjusted by Holm's procedure over the variants that were tested.
        non_inferior: Whether it is shown, at one-sided 97.5 %, that no class loses the margin or more; never so on
            fewer than `MIN_RUNS` training runs.
        dice: Difference in Dice, mean over classes; tested at the margin, for information.
        hd95_mm: Difference in HD95, mean over classes, in mm; larger is worse.
        nsd: Difference in NSD, mean over classes.
        by_class: The differences in each class.
        by_seed: Mean difference in Dice for each seed, each patient counting the same.
        num_patients: Patients behind the mean difference in Dice.
        num_folds: Folds that variant and baseline have in common.
        missing: Pairs of fold and seed that some variant finished, and this one or the baseline did not.
        notes: Sentences on what limits the comparison.
    """

    variant: str
    margin: float
    p_noninferior: float | None
    p_holm: float | None
    non_inferior: bool
    dice: MetricEffect
    hd95_mm: MetricEffect
    nsd: MetricEffect
    by_class: tuple[ClassComparison, ...]
    by_seed: Mapping[int, float]
    num_patients: int
    num_folds: int
    missing: tuple[Pair, ...]
    notes: tuple[str, ...]

    @property
    def difference(self) -> float | None:
        """Mean difference in Dice over classes, positive where the variant is better; None where none was scored."""
        return self.dice.effect.difference if self.dice.effect else None

    @property
    def ci95(self) -> Interval | None:
        """95 % interval of the mean difference in Dice; None below two patients."""
        return self.dice.effect.ci95 if self.dice.effect else None
