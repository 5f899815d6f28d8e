"""The checks of intervals and verdicts on simulated studies, as Markdown."""

from __future__ import annotations

from seg.ablation.statistics.families import FAMILIES, Family
from seg.ablation.statistics.validation import DESIGNS, format_outcomes, percent, validate
from seg.ablation.statistics.verdicts import family_error, format_families, validate_family


def check_intervals(*, repeats: int, seed: int) -> str:
    """Tells how often the interval of one difference holds the truth, over so many simulated studies of each design."""
    return format_outcomes([one for design in DESIGNS for one in validate(design, repeats=repeats, seed=seed)])


def check_verdicts(*, repeats: int, seed: int) -> str:
    """Tells how often a study of many variants passes one that it should not; slow methods see fewer studies."""
    fewer, whole = max(repeats // 2, 1), max(repeats // 20, 1)
    table = format_families([one for family in FAMILIES for one in validate_family(family, repeats=fewer, seed=seed)])
    share = percent(family_error(Family(), repeats=whole, seed=seed), whole)
    return f"{table}\n\nFrom scores of cases to verdicts, {Family().name}: {share} % of {whole} studies pass any."
