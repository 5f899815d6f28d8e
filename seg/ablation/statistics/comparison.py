"""Comparison of every variant with the baseline: effects by score and class, and whether it is not inferior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from seg.ablation.statistics.effects import TAIL, Effect, estimate_effect
from seg.ablation.statistics.holm import holm_adjusted
from seg.config.study import MIN_RUNS
from seg.evaluation.differences import COMPARED, Pair, Runs, Trials, difference_tables, read_paired
from seg.evaluation.metrics import METRICS
from seg.words import NOT_MEASURED, counted


@dataclass(frozen=True, kw_only=True)
class ClassComparison:
    """Differences in one class, variant less baseline; each is None where no case has a finite score in every run.

    Attributes:
        index: The class, 1 or more.
        name: Its name.
        dice: Difference in Dice, tested at the margin.
        others: Differences in the other metrics of `COMPARED`, by name.
    """

    index: int
    name: str
    dice: Effect | None
    others: Mapping[str, Effect | None]

    @property
    def p_noninferior(self) -> float | None:
        """The p-value of the one-sided test in this class; None where it could not be tested."""
        return self.dice.p_noninferior if self.dice else None


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
        dice: Difference in Dice, mean over classes; None as in `ClassComparison`.
        others: Differences in the other metrics of `COMPARED`, by name, mean over classes.
        by_class: The differences in each class.
        by_seed: Mean difference in Dice for each seed, each patient counting the same.
        num_folds: Folds that variant and baseline have in common.
        missing: Pairs of fold and seed that some variant finished, and this one or the baseline did not.
    """

    variant: str
    margin: float
    p_noninferior: float | None
    p_holm: float | None = None
    non_inferior: bool = False
    dice: Effect | None
    others: Mapping[str, Effect | None]
    by_class: tuple[ClassComparison, ...]
    by_seed: Mapping[int, float]
    num_folds: int
    missing: tuple[Pair, ...]


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
        R. L. Berger, Multiparameter hypothesis testing and acceptance sampling, 1982,
        doi:10.1080/00401706.1982.10487790.
    """
    runs = read_paired(trials, baseline)
    everything = {pair for by_pair in runs.values() for pair in by_pair}
    return _adjust(
        [
            _compare(variant, runs[baseline], by_pair, everything, margin)
            for variant, by_pair in runs.items()
            if variant != baseline
        ]
    )


def _compare(variant: str, before: Runs, after: Runs, everything: set[Pair], margin: float) -> Comparison:
    """Compares one variant, without the correction for their number."""

    def effect(metric: str, row: int | None) -> Effect | None:
        tables, _ = difference_tables(before, after, metric, row)
        if not tables:
            return None
        found = estimate_effect(tables, margin=margin if metric == "dice" else None)
        if found.ci95 is None or not METRICS[metric].share:
            return found
        # A t interval over three runs of which one failed reaches where no difference can be.
        return replace(found, ci95=(max(-1.0, found.ci95[0]), min(1.0, found.ci95[1])))

    def others(row: int | None) -> dict[str, Effect | None]:
        return {metric: effect(metric, row) for metric in COMPARED if metric != "dice"}

    by_class = tuple(
        ClassComparison(index=index, name=name, dice=effect("dice", row), others=others(row))
        for row, (index, name) in enumerate(next(iter(before.values())).classes)
    )
    by_seed: dict[int, list[float]] = {}
    for table, seeds in zip(*difference_tables(before, after, "dice", None), strict=True):
        for seed, values in zip(seeds, table, strict=True):
            by_seed.setdefault(seed, []).extend(values.tolist())
    common = set(before) & set(after)
    return Comparison(
        variant=variant,
        margin=margin,
        p_noninferior=_largest([one.p_noninferior for one in by_class]),
        by_class=by_class,
        by_seed={seed: float(np.mean(found)) for seed, found in sorted(by_seed.items())},
        num_folds=len({fold for fold, _ in common}),
        missing=tuple(sorted(everything - common)),
        dice=effect("dice", None),
        others=others(None),
    )


def _largest(p_values: Sequence[float | None]) -> float | None:
    """Gives the p-value of "every class passes"; None where a class was not tested."""
    tested = [p for p in p_values if p is not None]
    return max(tested) if len(tested) == len(p_values) else None


def _adjust(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """Adds Holm's p-values and the verdicts."""
    tested = {one.variant: one.p_noninferior for one in comparisons if one.p_noninferior is not None}
    adjusted = dict(zip(tested, holm_adjusted(list(tested.values())).tolist(), strict=True))
    return tuple(
        replace(
            one,
            p_holm=adjusted.get(one.variant),
            non_inferior=adjusted.get(one.variant, 1.0) <= TAIL
            and all(each.dice is not None and each.dice.num_runs >= MIN_RUNS for each in one.by_class),
        )
        for one in comparisons
    )


def format_comparison(comparison: Comparison, verdict: str = "") -> str:
    """Formats a comparison as lines: Dice, each class, each seed, the verdict, and what limits it.

    Differences are positive in favour of the variant. Without a verdict of a study the line says of the comparison's
    own that it is not corrected for other variants that may have been tried.
    """
    dice = comparison.dice
    lines = [f"mean Dice {_effect(dice)}", *(f"{one.name} {_effect(one.dice)}" for one in comparison.by_class)]
    seeds = ", ".join(f"{value:+.4f}" for value in comparison.by_seed.values())
    patients = dice.num_patients if dice else 0
    of = f"{counted(patients, 'patient')}, {counted(comparison.num_folds, 'fold')}"
    lines.append(f"by seed: {seeds or 'none'}; {of}")
    few = _too_few([dice, *(one.dice for one in comparison.by_class)])
    if not verdict:
        word = "shown" if comparison.non_inferior else "not shown"
        p = "" if comparison.p_holm is None else f"; p {_p_value(comparison.p_holm)}"
        verdict = f"(margin {comparison.margin:g}, one-sided 97.5 %, uncorrected): {word}{f'; {few}' if few else p}"
    elif few:
        verdict = f"{verdict}; {few}"
    lines.append(f"not inferior in every class {verdict}")
    if not comparison.num_folds:
        return "\n".join([*lines, "no fold and seed that the baseline and this variant have both finished"])
    lines += [
        f"class {one.name} could not be tested: fewer than two patients have a Dice in every run"
        for one in comparison.by_class
        if one.p_noninferior is None
    ]
    return "\n".join(lines)


def _too_few(effects: Sequence[Effect | None]) -> str:
    """Says that the runs are too few for any p-value to decide; empty where they are not."""
    runs = min((effect.num_runs for effect in effects if effect), default=MIN_RUNS)
    if runs == 1:
        return "a single training run: the interval is over patients alone and says nothing about other seeds"
    return f"{runs} training runs: never called not inferior, which takes {MIN_RUNS}" if runs < MIN_RUNS else ""


def _p_value(p: float) -> str:
    return "< 0.0001" if p < 1e-4 else f"= {p:.2g}"


def _effect(effect: Effect | None) -> str:
    if effect is None:
        return NOT_MEASURED
    interval = "" if effect.ci95 is None else f" (95 % CI {effect.ci95[0]:+.4f} to {effect.ci95[1]:+.4f})"
    return f"{effect.difference:+.4f}{interval}"
