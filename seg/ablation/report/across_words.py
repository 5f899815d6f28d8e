"""What several studies show side by side, in sentences that are made from their comparisons."""

from __future__ import annotations

from collections.abc import Mapping

from seg.ablation.report.analysis import Analysis
from seg.ablation.report.describe import describe
from seg.ablation.report.numbers import counted, fixed, listed
from seg.ablation.statistics import MIN_RUNS, Comparison


def conclusion(analyses: Mapping[str, Analysis], shared: Mapping[str, Mapping[str, str]]) -> str:
    """Says which variants were shown within the margin in some study, and which to lose in some.

    Args:
        analyses: Studies by name.
        shared: Names of each variant by study, as of those that two studies or more have.
    """
    found = {name: _compared(analyses, names) for name, names in shared.items()}
    safe = {name: sum(one.non_inferior for one in by_study.values()) for name, by_study in found.items()}
    lossless = [name for name, by_study in found.items() if by_study and not any(map(loses, by_study.values()))]
    costly = [name for name, by_study in found.items() if len(by_study) > 1 and all(map(loses, by_study.values()))]
    shown = [
        f"{name} in {number} of {counted(len(found[name]), 'study', 'studies')}"
        for name, number in safe.items()
        if number
    ]
    said = [f"Shown within the margin: {listed(shown) if shown else 'no variant in any study'}."]
    if costly:
        said.append(f"Every study that has it shows a loss of mean Dice of {listed(costly)}.")
    if lossless:
        said.append(
            f"No study shows a loss of mean Dice of {listed(lossless)}, which does not show that there is none."
        )
    return " ".join(said)


def facts(analyses: Mapping[str, Analysis], shared: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
    """Gives for each variant the range of its differences, and in how many studies what is shown of it."""
    said = []
    for name, names in shared.items():
        by_study = _compared(analyses, names)
        if not by_study:
            continue
        first = next(iter(names))
        changes = {one.name: one.changes for one in analyses[first].records.study.variants}[names[first]]
        differences = {study: one.difference for study, one in by_study.items() if one.difference is not None}
        low, high = (choose(differences, key=lambda study: differences[study]) for choose in (min, max))
        safe, lost = (
            sum(one.non_inferior for one in by_study.values()),
            [s for s, one in by_study.items() if loses(one)],
        )
        where = f" ({', '.join(lost)})" if lost else ""
        said.append(
            f"{name} ({describe(changes)}): {fixed(differences[low], 4, sign=True)} ({low}) to "
            f"{fixed(differences[high], 4, sign=True)} ({high}); of {counted(len(by_study), 'study', 'studies')} shown "
            f"within the margin in {safe}, a loss of mean Dice shown in {len(lost)}{where}."
        )
    return tuple(said)


def loses(one: Comparison) -> bool:
    """Tells whether the interval of the mean difference, over training runs, lies below 0."""
    effect = one.dice.effect
    return effect is not None and effect.ci95 is not None and effect.num_runs >= MIN_RUNS and effect.ci95[1] < 0


def _compared(analyses: Mapping[str, Analysis], names: Mapping[str, str]) -> dict[str, Comparison]:
    found = {study: analyses[study].comparisons.get(name) for study, name in names.items()}
    return {study: one for study, one in found.items() if one is not None and one.dice.effect is not None}
