"""Where narrowing starts to cost: what is shown of each width of the skips, of the decoder, and of both together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from seg.ablation.report.analysis import Analysis
from seg.ablation.report.describe import fraction
from seg.ablation.report.families import Family, families
from seg.ablation.report.numbers import NOT_MEASURED, fixed, in_words, interval, listed
from seg.ablation.report.preserved import trial_dice
from seg.ablation.statistics import MIN_RUNS, Comparison, Effect, Pair

TITLE = "Where narrowing starts to cost"
LOSS = "a loss is shown"
MOST_CLASSES = 3
"""Most classes whose figures stand in a sentence."""
FAR = 0.05
"""Dice by which a run must lie below the median of the variant's other runs for training to be called unreliable."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What one comparison shows of one width.

    Attributes:
        loses: Whether a loss is shown, in mean Dice or in a class.
        words: The verdict with its figures, to stand after the ratio.
        figures: The difference in mean Dice with its interval.
        whom: What it is read against, such as ``against the baseline``; empty where that is plain.
    """

    loses: bool
    words: str
    figures: str
    whom: str = ""


def onset(analysis: Analysis) -> tuple[str, ...]:
    """Says what is shown of each width: how to read it, then a sentence or a few for each family.

    Below three training runs it gives the reason why nothing is said; without a family it gives nothing.
    """
    found = families(analysis.records.study)
    if not found or not analysis.comparisons:
        return ()
    effects = [one.dice.effect for one in analysis.comparisons.values()]
    runs = max((effect.num_runs for effect in effects if effect is not None), default=0)
    if runs < MIN_RUNS:
        return (
            f"This is not said: at least {in_words(MIN_RUNS)} training runs per variant are needed, and this study "
            f"has {in_words(runs)}.",
        )
    margin = analysis.records.study.margin
    head = (
        "Differences in mean Dice with 95 % intervals, uncorrected for the number of widths. Within the margin: shown "
        f"to lose less than {margin:g} in every class, by the corrected test. A loss is shown: the interval of mean "
        "Dice, or of a class that is named, lies below 0; it may be smaller than the margin. Undecided: neither of "
        "the two."
    )
    return (head, *(f"{family.title}: {_sentence(family, analysis)}" for family in found))


def _sentence(family: Family, analysis: Analysis) -> str:
    """Says of one family what is shown of each of its widths, from the widest down."""
    control = family.control if family.sides == ("decoder",) else None
    parts, losing, known = [], [], 0
    for name, ratio in sorted(family.ratios.items(), key=lambda one: -one[1]):
        runs = unreliable(name, analysis)
        readings = _readings(name, control, analysis, unreliable_runs=bool(runs))
        known += bool(readings)
        losing += [fraction(ratio)] if any(one.loses for one in readings) else []
        words = [f"training is unreliable ({runs})"] if runs and readings else []
        words += _together(readings)
        own = f" ({name})" if name == control else ""
        parts.append(f"{fraction(ratio)}{own}: {'; '.join(words) or NOT_MEASURED}")
    if not known:
        return f"{NOT_MEASURED}."
    first = "no loss is shown at any width tried, which does not show that there is none"
    if losing:
        first = f"the widest ratio with a shown loss is {losing[0]}"
    return f"{first}. {'. '.join(parts)}."


def _readings(name: str, control: str | None, analysis: Analysis, *, unreliable_runs: bool) -> tuple[Reading, ...]:
    """Reads a width against the variant of full width, where there is one, and against the baseline."""
    own = _read(analysis.comparisons.get(name), tested=True, unreliable_runs=unreliable_runs)
    if own is None:
        return ()
    apart = None
    if control is not None and name != control:
        apart = _read(analysis.contrast_with(name, control), tested=False, unreliable_runs=unreliable_runs)
    if apart is None:
        return (own,)
    return replace(apart, whom=f"against {control}"), replace(own, whom="against the baseline")


def _together(readings: Sequence[Reading]) -> list[str]:
    """Joins readings that show the same of mean Dice, as of full width and of the baseline."""
    if len(readings) > 1 and all(one.words == f"{LOSS} ({one.figures})" for one in readings):
        return [f"{LOSS} {listed([f'{one.whom} ({one.figures})' for one in readings])}"]
    return [f"{one.whom} {one.words}".strip() for one in readings]


def _read(one: Comparison | None, *, tested: bool, unreliable_runs: bool) -> Reading | None:
    """Reads one comparison; None where it was not measured, or in a single training run."""
    effect = one.dice.effect if one is not None else None
    if one is None or effect is None or effect.ci95 is None or not effect.over_runs:
        return None
    lost = [
        (each.name.replace("_", " "), each.dice.effect)
        for each in one.by_class
        if each.dice.effect is not None and _below(each.dice.effect)
    ]
    shown = _figures(effect)
    if _below(effect):
        within = "within the margin, though " if tested and one.non_inferior else ""
        return Reading(loses=True, words=f"{within}{LOSS} ({shown})", figures=shown)
    if lost:
        mean = "within the margin" if tested and one.non_inferior else "undecided"
        few = len(lost) <= MOST_CLASSES
        names = listed([f"{name} ({_figures(each)})" if few else name for name, each in lost])
        words = f"a loss is shown in {names}, in mean Dice {mean} ({shown})"
        return Reading(loses=True, words=words, figures=shown)
    if tested and one.non_inferior:
        return Reading(loses=False, words=f"within the margin ({shown})", figures=shown)
    if unreliable_runs:
        return Reading(loses=False, words=f"the mean says little ({shown})", figures=shown)
    words = f"undecided ({shown}): a loss of up to {fixed(max(0.0, -effect.ci95[0]), 4)} is not excluded"
    return Reading(loses=False, words=words, figures=shown)


def _below(effect: Effect) -> bool:
    return effect.ci95 is not None and effect.over_runs and effect.ci95[1] < 0


def _figures(effect: Effect) -> str:
    return f"{fixed(effect.difference, 4, sign=True)}, {interval(effect.ci95, 4, sign=True)}"


def unreliable(name: str, analysis: Analysis) -> str:
    """Gives the Dice of each run where one lies far below the others, also less the baseline's; else nothing."""
    dice = trial_dice(analysis.records)
    own = {(fold, seed): value for (variant, fold, seed), value in dice.items() if variant == name}
    less = {
        pair: value - dice[analysis.baseline, *pair]
        for pair, value in own.items()
        if (analysis.baseline, *pair) in dice
    }
    if not any(_far(pair, own) and _far(pair, less) for pair in less):
        return ""
    several = len({fold for fold, _ in own}) > 1
    runs = [
        f"{f'fold {fold} ' if several else ''}seed {seed} {fixed(value, 4)}"
        for (fold, seed), value in sorted(own.items())
    ]
    return f"Dice by run: {', '.join(runs)}"


def _far(pair: Pair, values: Mapping[Pair, float]) -> bool:
    """Tells whether one run lies far below the median of the others."""
    others = [value for other, value in values.items() if other != pair]
    return bool(others) and median(others) - values[pair] > FAR
