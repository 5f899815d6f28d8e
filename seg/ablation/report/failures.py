"""Runs that failed to learn: their Dice lies far below that of the other runs of the same variant."""

from __future__ import annotations

from dataclasses import replace
from statistics import median

from seg.ablation.report.preserved import trial_dice
from seg.ablation.report.trials import Records

FAR_BELOW = 0.1
"""Loss of mean Dice from the median of a variant's runs from which a run counts as failed."""


def failed_runs(records: Records) -> frozenset[tuple[str, int, int]]:
    """Gives the runs that failed to learn, by variant, fold and seed.

    A variant of one run has none.
    """
    dice = trial_dice(records)
    by_variant: dict[str, list[float]] = {}
    for (variant, _, _), value in dice.items():
        by_variant.setdefault(variant, []).append(value)
    return frozenset(key for key, value in dice.items() if value < median(by_variant[key[0]]) - FAR_BELOW)


def split(records: Records) -> tuple[Records, Records]:
    """Gives the records without the runs that failed to learn, and those of these runs alone."""
    failed = failed_runs(records)
    lost = {name for name, trial in records.trials.items() if (trial.record.variant, *trial.pair) in failed}
    return (
        replace(records, trials={name: trial for name, trial in records.trials.items() if name not in lost}),
        replace(records, trials={name: trial for name, trial in records.trials.items() if name in lost}),
    )
