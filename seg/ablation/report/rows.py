"""The figures of every variant, and the law, in one tidy table, results.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from typing import Any

from seg.ablation.report.analysis import Analysis
from seg.ablation.report.figure_row import LEFT_OUT, Row, known
from seg.ablation.report.numbers import NOT_MEASURED
from seg.ablation.report.preserved import AVERAGED, places
from seg.ablation.report.study import DeviceSpeed
from seg.ablation.report.tables_cost import MEASURES, NUMBERS
from seg.ablation.statistics import Effect, Mean, MetricEffect
from seg.evaluation.scores import Interval

RATIOS = ("latency_ratio", "training_step_ratio", "prediction_ratio")
CONVERGENCE = (
    ("area", "Dice"),
    ("area_difference", "Dice"),
    ("steps_to_own", "step"),
    ("steps_to_baseline", "step"),
    ("steps_to_baseline_ratio", "1"),
    ("seconds_to_own", "s"),
    ("seconds_to_baseline", "s"),
)
UNITS = {"latency_ms": "ms", "throughput_voxels_per_s": "voxel/s", "training_step_ms": "ms", "prediction_s": "s"}


def to_rows(analysis: Analysis) -> list[Row]:
    """Gives the figures by variant in the order of the study, then what bottlenecks preserve, then the law."""
    rows: list[Row] = []
    for variant in analysis.records.study.variants:
        name = variant.name
        rows += [
            Row(variant=name, metric="parameters", value=known(variant.parameters)),
            Row(variant=name, metric="macs", value=known(variant.macs)),
            *_dice(analysis, name),
            *_comparison(analysis, name),
            *(row for device in analysis.records.speed for row in _speed(device, name)),
            *_convergence(analysis, name),
        ]
    rows += [*_preservation(analysis), *_laws(analysis)]
    return [_without_distance(one) for one in rows] if analysis.records.study.nominal_spacing else rows


def _without_distance(one: Row) -> Row:
    """Leaves a figure out where spacing is nominal and it is made of distances."""
    if not one.metric.startswith(("hd95", "nsd")):
        return one
    return replace(one, value=LEFT_OUT, low="", high="", interval="")


def to_csv(analysis: Analysis) -> str:
    """Writes the figures as a table, one to a row."""
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, fieldnames=[field.name for field in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in to_rows(analysis))
    return table.getvalue()


def _effect(variant: str, metric: str, effect: Effect | None, unit: str, index: int | str, class_name: str) -> Row:
    if effect is None:
        return Row(
            variant=variant, metric=metric, class_index=index, class_name=class_name, unit=unit, value=NOT_MEASURED
        )
    low, high = effect.ci95 or ("", "")
    return Row(
        variant=variant,
        metric=metric,
        class_index=index,
        class_name=class_name,
        unit=unit,
        value=effect.difference,
        low=low,
        high=high,
        interval="ci95" if effect.ci95 else "",
        num_patients=effect.num_patients,
        num_runs=effect.num_runs,
    )


def _dice(analysis: Analysis, name: str) -> Iterator[Row]:
    yield _effect(name, "dice", analysis.mean_dice.get(name), "Dice", "", "")
    by_class = analysis.class_dice.get(name, {})
    for index, class_name in enumerate(analysis.records.study.class_names[1:], start=1):
        yield _effect(name, "dice", by_class.get(index), "Dice", index, class_name)


def _comparison(analysis: Analysis, name: str) -> Iterator[Row]:
    """Gives the differences from the baseline and the verdicts; the baseline has none."""
    if name == analysis.baseline:
        return
    one = analysis.comparisons.get(name)
    tested = one is not None and one.p_noninferior is not None
    yield from _differences(name, one, "", "")
    effect = one.dice.effect if one else None
    spread = asdict(effect.components) if effect is not None and effect.components is not None else {}
    for source in ("fold", "run", "patient", "residual"):
        yield Row(variant=name, metric=f"dice_difference_sd_{source}", unit="Dice", value=known(spread.get(source)))
    yield Row(variant=name, metric="p_noninferior", value=known(one.p_noninferior if one else None))
    yield Row(variant=name, metric="p_holm", value=known(one.p_holm if one else None))
    yield Row(
        variant=name, metric="non_inferior", value=int(one.non_inferior) if one is not None and tested else NOT_MEASURED
    )
    by_class = {each.index: each for each in one.by_class} if one else {}
    for index, class_name in enumerate(analysis.records.study.class_names[1:], start=1):
        each = by_class.get(index)
        yield from _differences(name, each, index, class_name)
        yield Row(
            variant=name,
            metric="p_noninferior",
            class_index=index,
            class_name=class_name,
            value=known(each.p_noninferior if each else None),
        )


def _differences(name: str, one: Any, index: int | str, class_name: str) -> Iterator[Row]:
    for metric, unit in (("dice", "Dice"), ("hd95_mm", "mm"), ("nsd", "NSD")):
        found: MetricEffect | None = getattr(one, metric) if one is not None else None
        effect = found.effect if found is not None else None
        yield _effect(name, f"{metric}_difference", effect, unit, index, class_name)


def _speed(device: DeviceSpeed, name: str) -> Iterator[Row]:
    for key in (*(key for key, _, _ in MEASURES), *RATIOS):
        spread = device.spread(name, key)
        unit = UNITS.get(key, "1")
        if spread is None:
            yield Row(variant=name, metric=key, device=device.label, unit=unit, value=NOT_MEASURED)
        else:
            value, low, high = spread
            yield Row(
                variant=name,
                metric=key,
                device=device.label,
                unit=unit,
                value=value,
                low=low,
                high=high,
                interval="iqr",
            )
    for key, _ in NUMBERS:
        yield Row(variant=name, metric=key, device=device.label, unit="MiB", value=known(device.value(name, key)))


def _convergence(analysis: Analysis, name: str) -> Iterator[Row]:
    one, gap = analysis.convergence.get(name), analysis.gaps.get(name)
    timed = analysis.device.label if analysis.device is not None else ""
    for key, unit in CONVERGENCE:
        mean: Mean | None = None if one is None else getattr(one, key)
        yield _mean(name, f"convergence_{key}", unit, mean, device=timed if key.startswith("seconds") else "")
    for key in ("train", "validation"):
        value = None if gap is None else getattr(gap, key)
        runs = "" if gap is None else gap.gap.num_runs
        yield Row(variant=name, metric=f"generalisation_{key}_dice", unit="Dice", value=known(value), num_runs=runs)
    yield _mean(name, "generalisation_gap_dice", "Dice", None if gap is None else gap.gap)
    if name != analysis.baseline:
        yield _mean(name, "generalisation_gap_dice_difference", "Dice", None if gap is None else gap.difference)


def _mean(name: str, metric: str, unit: str, mean: Mean | None, *, device: str = "") -> Row:
    """Gives a mean over runs with its interval."""
    if mean is None or mean.mean is None:
        return Row(variant=name, metric=metric, unit=unit, device=device, value=NOT_MEASURED)
    low, high = mean.ci95 or ("", mean.mean if mean.num_censored else "")
    return Row(
        variant=name,
        metric=metric,
        unit=unit,
        device=device,
        value=mean.mean,
        low=low,
        high=high,
        interval="ci95" if mean.ci95 else "at_most" if mean.num_censored else "",
        num_runs=mean.num_runs,
    )


def _preservation(analysis: Analysis) -> Iterator[Row]:
    for place in places(analysis.records):
        keys = (*AVERAGED, "probe_wide", "probe_narrow")
        found = {"wide": place.wide, "narrow": place.narrow, **{key: place.values.get(key) for key in keys}}
        for key, value in found.items():
            # What a place without a bottleneck cannot have is no gap in the measurement.
            if value is not None or place.narrow is not None:
                yield Row(
                    variant=place.variant,
                    metric=f"preservation_{key}",
                    place=place.name,
                    value=known(value),
                    num_runs=place.num_runs,
                )


def _laws(analysis: Analysis) -> Iterator[Row]:
    for law in analysis.laws:
        found = law.correlation
        for kind in ("spearman", "pearson", "partial"):
            if kind == "partial" and law.measure == "ratio":
                continue  # nothing is left of a figure given itself
            value: float | None = getattr(found, kind) if found is not None else None
            reach: Interval | None = getattr(found, f"{kind}_ci95") if found is not None else None
            low, high = reach or ("", "")
            yield Row(
                variant="",
                metric=f"law_{law.measure}_{kind}",
                place=law.where,
                value=known(value),
                low=low,
                high=high,
                interval="ci95" if reach else "",
            )
