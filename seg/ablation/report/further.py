"""Figures of a study beside those of each variant against the baseline: contrasts of two variants, and gaps."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from seg.ablation.report.trials import Records
from seg.ablation.statistics import Comparison, Mean, Trials, mean_over_runs, paired


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Training less validation Dice of a variant.

    Attributes:
        train: Mean Dice on training cases, over runs.
        validation: Mean Dice on held-out cases.
        gap: The difference.
        difference: Gap less that of the baseline of the same fold and seed, over the runs that both have.
    """

    train: float
    validation: float
    gap: Mean
    difference: Mean


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """Two variants, compared with each other.

    Attributes:
        variant: Name of the one.
        against: Name of the other.
        found: The first less the second; None where they have no fold and seed in common.
    """

    variant: str
    against: str
    found: Comparison | None


def contrast(scores: Trials, variant: str, against: str, *, margin: float) -> Contrast:
    """Compares two variants on the folds and seeds that both have."""
    found = None
    if scores.get(variant) and scores.get(against):
        (found,) = paired({against: scores[against], variant: scores[variant]}, against, margin=margin)
    return Contrast(variant=variant, against=against, found=found)


def find_gaps(records: Records) -> dict[str, Gap]:
    """Gives the gap between training and validation of each variant that has one, and how it differs."""
    found = {
        name: {
            trial.pair: trial.generalisation
            for trial in records.finished(name)
            if trial.generalisation is not None and trial.generalisation.get("gap") is not None
        }
        for name in records.study.names
    }
    before = found[records.study.baseline]
    return {
        name: Gap(
            train=fmean(float(record["train_mean_dice"]) for record in by_pair.values()),
            validation=fmean(float(record["val_mean_dice"]) for record in by_pair.values()),
            gap=mean_over_runs([record["gap"] for record in by_pair.values()], low=-1.0, high=1.0),
            difference=mean_over_runs(
                [record["gap"] - before[pair]["gap"] for pair, record in by_pair.items() if pair in before],
                low=-2.0,
                high=2.0,
            ),
        )
        for name, by_pair in found.items()
        if by_pair
    }
