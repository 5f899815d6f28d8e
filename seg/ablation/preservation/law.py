"""How well each measure of preservation predicts the Dice lost: the rows that a correlation is taken over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seg.evaluation.metrics import finite_mean

Key = tuple[str, int, int]
"""Variant, fold and seed of a trial."""

MEASURES: dict[str, str] = {
    "ratio": "min",
    "r2": "min",
    "r2_pca": "min",
    "cka": "min",
    "probe_dice_lost": "max",
    "amplified": "max",
    "suppressed": "max",
}
"""Measures of a bottleneck, and which of several bottlenecks of a network counts as the worst."""


@dataclass(frozen=True, kw_only=True)
class LawRow:
    """One bottleneck of one trial, or the worst of all its bottlenecks, and what the variant lost.

    Attributes:
        variant: Name of the variant.
        fold: Fold of the trial.
        seed: Seed of the trial.
        name: ``skip_0``, ``decoder_0``, ... or ``worst``.
        path: ``skip``, ``decoder`` or ``worst``.
        stage: Stage, 0 at full resolution; -1 for ``worst``.
        measures: Value by name, see ``MEASURES``; a measure that does not exist is left out. ``ratio`` is narrow over
            stage channels, ``probe_dice_lost`` the probe's mean Dice on the wide features less that on the narrow.
        dice_lost: Mean Dice of the control of the same fold and seed less the trial's.
    """

    variant: str
    fold: int
    seed: int
    name: str
    path: str
    stage: int
    measures: Mapping[str, float]
    dice_lost: float


def law_rows(
    preservation: Mapping[Key, Mapping[str, Any]], dice: Mapping[Key, float], controls: Mapping[str, str]
) -> tuple[LawRow, ...]:
    """Joins what each bottleneck preserves with the Dice that its variant lost.

    Args:
        preservation: Content of ``preservation.json`` by trial.
        dice: Mean Dice by trial.
        controls: By variant the name of that without bottlenecks which its Dice is lost against.

    Returns:
        A row per bottleneck of every trial that has both records and a control of its fold and seed, in the order of
        the trials; none of a variant that is its own control.
    """
    rows = []
    for (variant, fold, seed), record in preservation.items():
        control = controls[variant]
        reference, own = dice.get((control, fold, seed)), dice.get((variant, fold, seed))
        if variant == control or reference is None or own is None:
            continue
        for place in record["bottlenecks"]:
            if place["narrow"] is not None:
                rows.append(
                    LawRow(
                        variant=variant,
                        fold=fold,
                        seed=seed,
                        name=place["name"],
                        path=place["path"],
                        stage=place["stage"],
                        measures=_measures(place),
                        dice_lost=reference - own,
                    )
                )
    return tuple(rows)


def of_trial(rows: Iterable[LawRow]) -> tuple[LawRow, ...]:
    """Makes one row of each trial: the worst of its bottlenecks, measure by measure.

    A network loses Dice as a whole, wherever its features were lost, so its bottlenecks are no independent rows.
    """
    trials: dict[Key, list[LawRow]] = {}
    for row in rows:
        trials.setdefault((row.variant, row.fold, row.seed), []).append(row)
    return tuple(
        LawRow(
            variant=variant,
            fold=fold,
            seed=seed,
            name="worst",
            path="worst",
            stage=-1,
            measures=_worst(group),
            dice_lost=group[0].dice_lost,
        )
        for (variant, fold, seed), group in trials.items()
    )


def columns(
    rows: Iterable[LawRow], measure: str, *, path: str | None = None, stage: int | None = None
) -> tuple[list[float], list[float], list[str]]:
    """Returns measure, Dice lost and variant of the rows that have the measure, as ``correlate`` takes them.

    Seeds and folds of a variant share its width, so the variant is the cluster that is resampled.

    Args:
        rows: Rows of bottlenecks, or of trials.
        measure: Name of the measure.
        path: Bottlenecks to take; None takes all.
        stage: Stage to take; None takes all.

    Raises:
        KeyError: There is no such measure.
    """
    if measure not in MEASURES:
        raise KeyError(f"measure must be one of {', '.join(MEASURES)}, got {measure!r}.")
    chosen = [
        row
        for row in rows
        if measure in row.measures and path in (None, row.path) and (stage is None or stage == row.stage)
    ]
    return [row.measures[measure] for row in chosen], [row.dice_lost for row in chosen], [r.variant for r in chosen]


def _measures(place: Mapping[str, Any]) -> dict[str, float]:
    wide, narrow = (finite_mean(place[f"probe_dice_{side}"] or ()) for side in ("wide", "narrow"))
    values = {name: place[name] for name in ("r2", "r2_pca", "cka", "amplified", "suppressed")}
    values["ratio"] = place["narrow"] / place["channels"]
    values["probe_dice_lost"] = None if wide is None or narrow is None else wide - narrow
    return {name: float(values[name]) for name in MEASURES if values[name] is not None}


def _worst(rows: Sequence[LawRow]) -> dict[str, float]:
    choose = {"min": min, "max": max}
    return {
        name: choose[kind](row.measures[name] for row in rows if name in row.measures)
        for name, kind in MEASURES.items()
        if any(name in row.measures for row in rows)
    }
