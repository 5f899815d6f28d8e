"""What bottlenecks preserve: means over trials, predicted safe widths, and how preservation goes with the Dice lost."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from seg.ablation.plan import StudyPlan, VariantPlan
from seg.ablation.preservation import MEASURES, LawRow, columns, law_rows, of_trial, predict_safe_widths
from seg.ablation.statistics import Correlation, correlate
from seg.ablation.store import Results
from seg.evaluation.metrics import finite_mean

Run = tuple[str, int, int]
"""Variant, fold and seed."""
WORST = "worst"
"""Stands for the worst bottleneck of a trial, where others stand for a path or a stage."""
BOTTLENECKS = ("network.skip_bottleneck", "network.decoder_bottleneck")
AVERAGED = (
    "r2",
    "r2_pca",
    "effective_rank",
    "participation_ratio",
    "cka",
    "amplified",
    "suppressed",
)


@dataclass(frozen=True, kw_only=True)
class Place:
    """One place of a variant, averaged over its trials.

    Attributes:
        variant: The variant.
        name: ``skip_0``, ``decoder_0``, ...
        path: ``skip`` or ``decoder``.
        stage: Stage, 0 at full resolution.
        channels: Channels of the stage, to which ratios refer.
        wide: Channels of the features that enter.
        narrow: Channels that are kept; None without a bottleneck.
        values: Mean over trials by measure: those of `AVERAGED`, and ``probe_wide`` and ``probe_narrow``, the probe's
            mean Dice over classes; what was not measured is absent.
        position_preserved: Whether every trial kept position; None where it was not checked.
        num_runs: Trials behind it.
    """

    variant: str
    name: str
    path: str
    stage: int
    channels: int
    wide: int
    narrow: int | None
    values: Mapping[str, float]
    position_preserved: bool | None
    num_runs: int


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Width that the baseline's spectrum predicts to be safe at one place, beside what the study found.

    Attributes:
        name: ``skip_0``, ``decoder_0``, ...
        channels: Channels of the stage.
        effective_rank: Effective rank of the baseline's features there, over trials; None where it is not known.
        widths: Width that each trial of the baseline predicts; the prediction of the first trial counts.
        found: Narrowest width there of a variant that is not inferior, of those that have the baseline's channel plan
            and were not made from a prediction; None where there is none.
        variant: That variant.
        tried: Narrowest width there of any such variant with a record; None where none narrows the place.
    """

    name: str
    channels: int
    effective_rank: float | None
    widths: tuple[int, ...]
    found: int | None
    variant: str | None
    tried: int | None


def records_of(results: Results) -> dict[Run, dict[str, list[dict[str, Any]]]]:
    """Returns what was preserved in each finished trial, as the records of ``seg.ablation.preservation``.

    Returns:
        ``{"bottlenecks": [...]}`` by variant, fold and seed; what was not measured is None.
    """
    found: dict[Run, dict[str, list[dict[str, Any]]]] = {}
    finished = set(results.trials.trial[results.trials.status == "finished"])
    for row in results.preservation.to_dict("records"):
        if row["trial"] in finished:
            run = (str(row["variant"]), int(row["fold"]), int(row["seed"]))
            place = {str(key): None if _missing(value) else value for key, value in row.items()}
            place |= {"name": place["place"], "stage": int(row["stage"])}
            found.setdefault(run, {"bottlenecks": []})["bottlenecks"].append(place)
    return found


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def places(results: Results) -> tuple[Place, ...]:
    """Averages each place of each variant over its trials, in the order of the study."""
    by_place: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for (variant, _, _), record in records_of(results).items():
        for entry in record["bottlenecks"]:
            by_place.setdefault((variant, entry["name"]), []).append(entry)
    order = {name: number for number, name in enumerate(results.study.names)}
    return tuple(
        _average(variant, entries)
        for (variant, _), entries in sorted(by_place.items(), key=lambda item: order[item[0][0]])
    )


def _average(variant: str, entries: list[Mapping[str, Any]]) -> Place:
    values = {key: [float(entry[key]) for entry in entries if entry.get(key) is not None] for key in AVERAGED}
    for side in ("wide", "narrow"):
        means = [finite_mean(entry.get(f"probe_dice_{side}") or ()) for entry in entries]
        values[f"probe_{side}"] = [mean for mean in means if mean is not None]
    checks = [bool(entry["position_preserved"]) for entry in entries if entry.get("position_preserved") is not None]
    first = entries[0]
    return Place(
        variant=variant,
        name=first["name"],
        path=first["path"],
        stage=first["stage"],
        channels=int(first["channels"]),
        wide=int(first["wide"]),
        narrow=None if first["narrow"] is None else int(first["narrow"]),
        values={key: fmean(found) for key, found in values.items() if found},
        position_preserved=all(checks) if checks else None,
        num_runs=len(entries),
    )


def trial_dice(results: Results) -> dict[Run, float]:
    """Returns the mean Dice of each finished trial: over classes, of the mean over cases."""
    dice = results.scores[results.scores.metric == "dice"].dropna(subset=["value"])
    keys = ["variant", "fold", "seed"]
    by_class = dice.groupby([*keys, "class_index"], sort=False)["value"].apply(fmean)
    means = by_class.groupby(keys, sort=False).apply(fmean)
    return {(str(variant), int(fold), int(seed)): float(value) for (variant, fold, seed), value in means.items()}


def find_predictions(results: Results, non_inferior: Collection[str]) -> tuple[Prediction, ...]:
    """Compares the widths that the spectrum of the baseline calls for with the narrowest that lost nothing.

    The prediction of the baseline's first trial counts; the predictions of the others are kept beside it. A variant
    that was made from a prediction tests the prediction and is no finding.

    Args:
        results: Results of the study.
        non_inferior: Variants that are not inferior in any class.

    Raises:
        RunError: The baseline has bottlenecks, or a stage whose features do not vary.
    """
    study = results.study
    spectra = [record for (variant, _, _), record in records_of(results).items() if variant == study.baseline]
    safe = [predict_safe_widths(spectrum) for spectrum in spectra]
    everything = places(results)
    own = {place.name: place for place in everything if place.variant == study.baseline}
    widths = {
        f"{path}_{stage}": by_trial
        for path in ("skip", "decoder")
        if safe
        for stage, by_trial in enumerate(zip(*(getattr(one, path) for one in safe), strict=True))
    }
    same_plan = {variant.name for variant in study.variants if "network.channels" not in variant.changes}
    counted = same_plan - set(made_from_prediction(everything, widths))
    found = []
    for name, by_trial in widths.items():
        here = [place for place in everything if place.name == name and place.variant in counted]
        narrow = {place.variant: place.narrow for place in here if place.narrow is not None}
        kept = min((variant for variant in narrow if variant in non_inferior), key=narrow.__getitem__, default=None)
        found.append(
            Prediction(
                name=name,
                channels=own[name].channels,
                effective_rank=own[name].values.get("effective_rank"),
                widths=by_trial,
                found=narrow[kept] if kept else None,
                variant=kept,
                tried=min(narrow.values(), default=None),
            )
        )
    return tuple(found)


def made_from_prediction(everything: Sequence[Place], widths: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Gives the variants that have just the widths which one trial of the baseline predicts, and that trial's number.

    Args:
        everything: Places of all variants.
        widths: The width by trial of the baseline, by place.
    """
    own: dict[str, dict[str, int | None]] = {}
    for place in everything:
        own.setdefault(place.variant, {})[place.name] = place.narrow
    predicted = [dict(zip(widths, by_place, strict=True)) for by_place in zip(*widths.values(), strict=True)]
    return {name: predicted.index(found) for name, found in own.items() if found in predicted}


@dataclass(frozen=True, kw_only=True)
class Law:
    """How a measure of preservation goes with the Dice lost.

    Attributes:
        measure: The measure.
        where: ``worst``, of the worst bottleneck of each trial; ``skip`` or ``decoder``, of every bottleneck of that
            path; ``stage_0``, ..., of every bottleneck of that stage, 0 at full resolution.
        correlation: The correlation; None where points are too few or do not vary.
        num_points: Points with the measure: trials for ``worst``, else bottlenecks of trials.
    """

    measure: str
    where: str
    correlation: Correlation | None
    num_points: int


def find_laws(results: Results) -> tuple[Law, ...]:
    """Correlates every measure of preservation with the Dice lost; variants are what is resampled.

    Returns:
        Laws of every measure for the worst bottleneck, then for each path, then for each stage that has a bottleneck.
    """
    rows = law_rows(records_of(results), trial_dice(results), find_controls(results.study))
    laws = _laws(of_trial(rows), WORST)
    paths = {row.path for row in rows}
    for path in ("skip", "decoder"):
        laws += _laws(rows, path, path=path) if path in paths else []
    for stage in sorted({row.stage for row in rows}):
        laws += _laws(rows, f"stage_{stage}", stage=stage)
    return tuple(laws)


def find_controls(study: StudyPlan) -> dict[str, str]:
    """Names for each variant the one that has all its other changes and no bottleneck; the baseline where none has.

    A flat network with bottlenecks loses Dice for its channels and for its bottlenecks: the flat one tells them apart.
    """
    plain = {
        json.dumps(dict(variant.changes), sort_keys=True): variant.name
        for variant in study.variants
        if not _without_bottlenecks(variant) ^ variant.changes.keys()
    }
    plain[json.dumps({})] = study.baseline
    controls = {}
    for variant in study.variants:
        others = {path: variant.changes[path] for path in _without_bottlenecks(variant)}
        controls[variant.name] = plain.get(json.dumps(others, sort_keys=True), study.baseline)
    return controls


def _without_bottlenecks(variant: VariantPlan) -> set[str]:
    return {path for path in variant.changes if not path.startswith(BOTTLENECKS)}


def _laws(rows: Sequence[LawRow], where: str, *, path: str | None = None, stage: int | None = None) -> list[Law]:
    laws = []
    for measure in MEASURES:
        known = [row for row in rows if measure in row.measures]
        x, lost, variants = columns(known, measure, path=path, stage=stage)
        # Narrow bottlenecks preserve less and lose more: what a measure tells beyond the width is what is new.
        given = None if measure == "ratio" else columns(known, "ratio", path=path, stage=stage)[0]
        found = correlate(x, lost, clusters=variants, given=given)
        laws.append(Law(measure=measure, where=where, correlation=found, num_points=len(x)))
    return laws
