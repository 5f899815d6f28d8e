"""Verdicts of a study: a word for each variant with the bound that decides, and what the study recommends."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from seg.ablation.statistics.comparison import Comparison
from seg.ablation.statistics.effects import TAIL, Effect, estimate_effect
from seg.ablation.statistics.holm import holm_levels
from seg.config.study import MIN_RUNS
from seg.evaluation.differences import Pair, Runs, RunScores, Trials, difference_tables, score_arrays

Word = Literal["unstable", "safe", "costs", "undecided"]

COLLAPSE = 0.05
"""Mean Dice by which a run must lie below the median of the variant's other runs to count as failed."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a study shows of a variant. The words are asked in this order, and the first that holds is the verdict.

    - ``unstable``: a run failed, or leaving one run out changes the word that the runs together give.
    - ``safe``: in every class the lower bound of the test lies above minus the margin.
    - ``costs``: the whole 95 % interval lies below zero, of the mean Dice or of a class.
    - ``undecided``: none of these.

    Attributes:
        variant: Name of the variant.
        word: The verdict.
        together: The word that all runs together give, which `bound` decides: never ``unstable``.
        bound: The deciding bound, a difference in Dice: for ``costs`` the upper end of an interval, else the lowest
            lower bound of the test over classes. None where a class could not be tested.
        class_name: Class that the bound comes from; empty for the mean over classes.
        level: One-sided error probability of the bound: that of Holm's procedure, or 0.025 of an interval.
        failed: Fold and seed of runs that ended without a result, or far below the variant's other runs.
        changing: Fold and seed of each run whose leaving out changes the word.
    """

    variant: str
    word: Word
    together: Word
    bound: float | None
    class_name: str
    level: float
    failed: tuple[Pair, ...]
    changing: tuple[Pair, ...]


def judge(
    trials: Trials, baseline: str, comparisons: Sequence[Comparison], without_result: Mapping[str, Collection[Pair]]
) -> tuple[Verdict, ...]:
    """Gives each variant its verdict.

    Leaving a run out moves the mean difference. The error of all runs is kept, since an error of fewer runs would be
    larger for want of runs, and three seeds would never be stable.

    Args:
        trials: Scores of finished trials by variant, then by fold and seed.
        baseline: Name of the baseline.
        comparisons: What `paired` made of these trials.
        without_result: Runs by variant that ended without a result, as trials that were given up.

    Returns:
        A verdict for each comparison, in their order.
    """
    runs = score_arrays(trials)
    levels = holm_levels({one.variant: one.p_noninferior for one in comparisons})
    found = []
    for one in comparisons:
        before, after = runs[baseline], runs[one.variant]
        level = levels.get(one.variant, TAIL)
        together, bound, class_name = _settle(one, level)
        changing = tuple(
            pair
            for pair in sorted(before.keys() & after.keys())
            if _settle(_without(one, before, after, pair), level)[0] != together
        )
        failed = tuple(sorted({*without_result.get(one.variant, ()), *collapsed(before, after)}))
        found.append(
            Verdict(
                variant=one.variant,
                word="unstable" if failed or changing else together,
                together=together,
                bound=bound,
                class_name=class_name,
                level=TAIL if together == "costs" else level,
                failed=failed,
                changing=changing,
            )
        )
    return tuple(found)


def collapsed(before: Runs, after: Runs) -> list[Pair]:
    """Names the runs of a variant that ended more than `COLLAPSE` in mean Dice below the median of its other runs.

    The same must hold less the baseline of the same fold and seed, so that a hard fold is no failure.
    """
    own = {pair: _mean_dice(run) for pair, run in after.items()}
    less = {pair: value - _mean_dice(before[pair]) for pair, value in own.items() if pair in before}
    return [pair for pair in less if _far_below(pair, own) and _far_below(pair, less)]


def _mean_dice(run: RunScores) -> float:
    """Averages the Dice of a run over classes and cases; 0 where no case has any."""
    values = run.values["dice"]
    return float(values[np.isfinite(values)].mean()) if np.isfinite(values).any() else 0.0


def _far_below(pair: Pair, values: Mapping[Pair, float]) -> bool:
    others = [value for other, value in values.items() if other != pair]
    return bool(others) and float(np.median(others)) - values[pair] > COLLAPSE


def _settle(one: Comparison, level: float) -> tuple[Word, float | None, str]:
    """Returns the word that runs together give a variant, the bound that decides, and the class of the bound."""
    classes = {each.name: each.dice for each in one.by_class}
    tested = {name: effect for name, effect in classes.items() if effect is not None and effect.ci95 is not None}
    lower = [(bound, name) for name, effect in tested.items() if (bound := effect.lower_bound(level)) is not None]
    bound, class_name = min(lower) if len(lower) == len(classes) else (None, "")
    if bound is not None and bound > -one.margin and all(each.num_runs >= MIN_RUNS for each in tested.values()):
        return "safe", bound, class_name
    upper = [
        (effect.ci95[1], name)
        for name, effect in {"": one.dice, **tested}.items()
        if effect is not None and effect.ci95 is not None and effect.num_runs >= MIN_RUNS
    ]
    if upper and min(upper)[0] < 0:
        return "costs", *min(upper)
    return "undecided", None if bound is None else max(-1.0, bound), class_name


def _without(one: Comparison, before: Runs, after: Runs, pair: Pair) -> Comparison:
    """Moves the differences of a comparison to those without one run, with the errors of all runs."""
    without = {other: run for other, run in before.items() if other != pair}

    def moved(effect: Effect | None, row: int | None) -> Effect | None:
        tables, _ = difference_tables(without, after, "dice", row)
        if effect is None or effect.ci95 is None or not tables:
            return effect
        difference = estimate_effect(tables).difference
        low, high = (end + difference - effect.difference for end in effect.ci95)
        return replace(effect, difference=difference, ci95=(low, high))

    by_class = tuple(replace(each, dice=moved(each.dice, row)) for row, each in enumerate(one.by_class))
    return replace(one, dice=moved(one.dice, None), by_class=by_class)


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """What the study recommends, among the variants that are not inferior in any class.

    Attributes:
        fastest: Variant of lowest batch-1 latency; None where none has a latency.
        narrowest: Variant of fewest multiply-accumulates; None where none has a count.
        speedup: Latency of the baseline over that of the fastest: above 1 it is faster than the baseline. None where
            either was not measured.
    """

    fastest: str | None
    narrowest: str | None
    speedup: float | None


def recommend(
    comparisons: Sequence[Comparison], latency_ms: Mapping[str, float], macs: Mapping[str, int], baseline: str
) -> Recommendation:
    """Applies the rule of the study.

    "Narrowest" is read as the fewest multiply-accumulates of one image: they fall with every width, wherever in the
    network it is, while parameters hardly notice the full-resolution stages. Equal values go to the first name.

    Args:
        comparisons: What `paired` gave.
        latency_ms: Batch-1 latency by variant, of one device; variants that were not measured are absent.
        macs: Multiply-accumulates by variant.
        baseline: Name of the baseline.
    """
    candidates = [one.variant for one in comparisons if one.non_inferior]
    fastest = min((name for name in candidates if name in latency_ms), key=lambda x: (latency_ms[x], x), default=None)
    narrowest = min((name for name in candidates if name in macs), key=lambda x: (macs[x], x), default=None)
    return Recommendation(
        fastest=fastest,
        narrowest=narrowest,
        speedup=latency_ms[baseline] / latency_ms[fastest] if fastest and baseline in latency_ms else None,
    )
