"""Comparison of every variant with the baseline: effects by score and class, and whether it is not inferior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from statsmodels.stats.multitest import multipletests

from seg.ablation.statistics.effects import TAIL, Effect, estimate_effect
from seg.ablation.statistics.tables import SHARES, Pair, RunScores, Tables, check_runs, difference_tables, read_scores
from seg.errors import RunError
from seg.evaluation.scores import CaseScore, Interval
from seg.words import NOT_MEASURED

MIN_RUNS = 3
"""Fewest pairs of training runs on which a variant can be called not inferior: two cannot say how much runs differ."""

Trials = Mapping[str, Mapping[Pair, Sequence[CaseScore]]]
"""Scores of finished trials by variant, then by fold and seed."""


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


def paired(trials: Trials, baseline: str, *, margin: float) -> tuple[Comparison, ...]:
    """Compares every variant with the baseline, pair by pair.

    A variant is compared on the folds and seeds that it and the baseline have both finished. The test of a variant is
    an intersection-union test: its p-value is the largest over the classes, which needs no correction for their
    number. Holm's procedure then corrects for the number of variants.

    Args:
        trials: Scores of finished trials; runs of a fold are scored on the same cases, every patient is in one fold.
        baseline: Name of the baseline.
        margin: Loss of Dice that still counts as not inferior, > 0.

    Returns:
        A comparison for each variant but the baseline, in the order of `trials`.

    Raises:
        RunError: The baseline has no finished trial, or the runs cannot be paired.

    References:
        S. Holm, A simple sequentially rejective multiple test procedure, 1979, doi:10.2307/4615733.
        R. L. Berger, Multiparameter hypothesis testing and acceptance sampling, 1982,
        doi:10.1080/00401706.1982.10487790.
    """
    if not trials.get(baseline):
        raise RunError(f"the baseline {baseline!r} must have a finished trial, got none; finish one of it first.")
    runs = {
        variant: {
            pair: read_scores(scores, f"{variant}.fold_{pair[0]}.seed_{pair[1]}") for pair, scores in by_pair.items()
        }
        for variant, by_pair in trials.items()
    }
    classes = check_runs(runs)
    everything = {pair for by_pair in runs.values() for pair in by_pair}
    compared = [
        _compare(variant, runs[baseline], by_pair, classes=classes, everything=everything, margin=margin)
        for variant, by_pair in runs.items()
        if variant != baseline
    ]
    return _adjust(compared)


def _compare(
    variant: str,
    before: Mapping[Pair, RunScores],
    after: Mapping[Pair, RunScores],
    *,
    classes: Sequence[tuple[int, str]],
    everything: set[Pair],
    margin: float,
) -> Comparison:
    """Compares one variant, without the correction for their number."""

    def effect(metric: str, row: int | None) -> tuple[MetricEffect, Tables]:
        tables = difference_tables(before, after, metric=metric, class_row=row)
        found = estimate_effect(tables.tables, margin=margin if metric == "dice" else None) if tables.tables else None
        if found is not None and found.ci95 is not None and metric in SHARES:
            # A t interval over three runs of which one failed reaches where no difference can be.
            found = replace(found, ci95=(max(-1.0, found.ci95[0]), min(1.0, found.ci95[1])))
        return MetricEffect(
            effect=found,
            left_out=tables.left_out,
            infinite_baseline=tables.infinite_baseline,
            infinite_variant=tables.infinite_variant,
        ), tables

    by_class = tuple(
        ClassComparison(
            index=index,
            name=name,
            dice=effect("dice", row)[0],
            hd95_mm=effect("hd95_mm", row)[0],
            nsd=effect("nsd", row)[0],
        )
        for row, (index, name) in enumerate(classes)
    )
    dice, tables = effect("dice", None)
    common = set(before) & set(after)
    return Comparison(
        variant=variant,
        margin=margin,
        p_noninferior=_largest([one.p_noninferior for one in by_class]),
        p_holm=None,
        non_inferior=False,
        dice=dice,
        hd95_mm=effect("hd95_mm", None)[0],
        nsd=effect("nsd", None)[0],
        by_class=by_class,
        by_seed=_by_seed(tables),
        num_patients=dice.effect.num_patients if dice.effect else 0,
        num_folds=len({fold for fold, _ in common}),
        missing=tuple(sorted(everything - common)),
        notes=_notes(dice, by_class, common),
    )


def _largest(p_values: Sequence[float | None]) -> float | None:
    """Gives the p-value of "every class passes"; None where a class was not tested."""
    tested = [p for p in p_values if p is not None]
    return max(tested) if len(tested) == len(p_values) else None


def _by_seed(tables: Tables) -> dict[int, float]:
    """Averages each seed's differences over the patients of its folds."""
    values: dict[int, list[float]] = {}
    for table, seeds in zip(tables.tables, tables.seeds, strict=True):
        for seed, row in zip(seeds, table, strict=True):
            values.setdefault(seed, []).extend(row.tolist())
    return {seed: float(np.mean(found)) for seed, found in sorted(values.items())}


def _notes(dice: MetricEffect, by_class: Sequence[ClassComparison], common: set[Pair]) -> tuple[str, ...]:
    """Says what limits a comparison."""
    if not common:
        return ("no fold and seed that the baseline and this variant have both finished",)
    notes = [
        f"class {one.name} could not be tested: fewer than two patients have a Dice in every run"
        for one in by_class
        if one.p_noninferior is None
    ]
    if dice.effect and not dice.effect.over_runs:
        notes.append("a single training run: the interval is over patients alone and says nothing about other seeds")
    elif dice.effect and dice.effect.num_runs < MIN_RUNS:
        notes.append(f"{dice.effect.num_runs} training runs: never called not inferior, which takes {MIN_RUNS}")
    return tuple(notes)


def _adjust(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """Adds Holm's p-values and the verdicts."""
    tested = [one for one in comparisons if one.p_noninferior is not None]
    adjusted: dict[str, float] = {}
    if tested:
        p_holm = multipletests([one.p_noninferior for one in tested], alpha=TAIL, method="holm")[1]
        adjusted = {one.variant: float(p) for one, p in zip(tested, p_holm, strict=True)}
    return tuple(
        replace(
            one,
            p_holm=adjusted.get(one.variant),
            non_inferior=adjusted.get(one.variant, 1.0) <= TAIL
            and all(each.dice.effect is not None and each.dice.effect.num_runs >= MIN_RUNS for each in one.by_class),
        )
        for one in comparisons
    )


def format_comparison(comparison: Comparison) -> str:
    """Formats a comparison as lines: Dice, each class, each seed, the verdict, and what limits it.

    Args:
        comparison: The comparison.

    Returns:
        The lines, positive differences in favour of the variant.
    """
    rows = [("mean Dice", comparison.dice), *((one.name, one.dice) for one in comparison.by_class)]
    lines = [f"{name} {_effect(dice)}" for name, dice in rows]
    seeds = ", ".join(f"{value:+.4f}" for value in comparison.by_seed.values())
    lines.append(f"by seed: {seeds or 'none'}; {comparison.num_patients} patients, {comparison.num_folds} folds")
    verdict = "shown" if comparison.non_inferior else "not shown"
    p = "" if comparison.p_holm is None else f"; p = {comparison.p_holm:.2g}"
    lines.append(f"not inferior in every class (margin {comparison.margin:g}, one-sided 97.5 %): {verdict}{p}")
    return "\n".join([*lines, *comparison.notes])


def _effect(found: MetricEffect) -> str:
    if found.effect is None:
        return NOT_MEASURED
    interval = found.effect.ci95
    text = f"{found.effect.difference:+.4f}"
    return text if interval is None else f"{text} (95 % CI {interval[0]:+.4f} to {interval[1]:+.4f})"
