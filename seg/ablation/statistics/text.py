"""A comparison in plain words, for a terminal."""

from __future__ import annotations

from seg.ablation.statistics.differences import Comparison, MetricEffect
from seg.words import NOT_MEASURED


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
