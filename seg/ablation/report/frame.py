"""The table of estimates: every number that a report shows, one to a row, also written as ``results.csv``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from seg.ablation.report.analysis import Analysis, device_speeds
from seg.ablation.report.preservation import AVERAGED
from seg.ablation.statistics import Effect, Mean
from seg.ablation.store import entry_instruction_sets
from seg.evaluation.differences import COMPARED
from seg.evaluation.metrics import METRICS
from seg.files import escaped_cell
from seg.words import NOT_MEASURED, counted

LEFT_OUT = "left out"
"""Stands for a number that was measured and means nothing, such as a distance where spacing is nominal."""
ESTIMATE_KEYS = ["variant", "metric", "against", "class_index", "class_name", "place", "device"]
COLUMNS = [*ESTIMATE_KEYS, "unit", "value", "low", "high", "interval", "num_patients", "num_runs", "note"]
NUMBERS = ["value", "low", "high"]
INTEGERS = ["class_index", "num_patients", "num_runs"]
SPEED_UNITS = {"_ms": "ms", "_voxels_per_s": "voxel/s", "_s": "s", "_mib": "MiB"}
"""Units of what a benchmark measures, by the end of its name; all others are ratios or counts."""
SET_NAMES = {
    "avx2": "AVX2",
    "avx512_f": "AVX-512",
    "avx512_vnni": "VNNI",
    "avx512_bf16": "bf16",
    "amx_bf16": "AMX",
    "amx_int8": "AMX",
}
"""What users call instruction sets; others have the name that torch gives them."""
CONVERGENCE = {
    "area": "Dice",
    "area_difference": "Dice",
    "steps_to_own": "step",
    "steps_to_baseline": "step",
    "steps_to_baseline_ratio": "1",
    "seconds_to_own": "s",
    "seconds_to_baseline": "s",
}

Row = dict[str, Any]


def estimates(analysis: Analysis) -> pd.DataFrame:
    """Puts every estimate of an analysis into one table.

    Returns:
        A row for each estimate, with `COLUMNS`. ``value`` is missing where ``note`` says ``not measured`` or ``left
        out``. ``interval`` names what ``low`` and ``high`` are: ``ci95`` (95 % confidence), ``iqr`` (quartiles of
        rounds), ``at_most`` (the value is an upper bound) or nothing.
    """
    frame = pd.DataFrame(list(_rows(analysis)), columns=COLUMNS)
    frame[NUMBERS] = frame[NUMBERS].astype(float)
    frame[INTEGERS] = frame[INTEGERS].astype("Int64")
    texts = frame.columns.difference([*NUMBERS, *INTEGERS])
    frame[texts] = frame[texts].fillna("")
    if analysis.results.study.nominal_spacing:
        in_space = tuple(name for name, metric in METRICS.items() if metric.in_space)
        distances = frame["metric"].str.removeprefix("contrast_").str.startswith(in_space)
        frame.loc[distances, NUMBERS] = float("nan")
        frame.loc[distances, ["interval", "note"]] = ["", LEFT_OUT]
    return frame


def to_csv(frame: pd.DataFrame) -> str:
    """Returns a table as CSV text, with text cells escaped that a spreadsheet would run as formulas."""
    return str(frame.map(lambda cell: escaped_cell(cell) if isinstance(cell, str) else cell).to_csv(index=False))


def device_label(device: Any) -> str:
    """Names a device of ``speed.json`` with its threads, precision and engine; of torch, the memory format.

    Processors of one model name that differ in their instruction sets have those in their names.
    """
    threads = device.get("threads") if device["kind"] == "cpu" else None
    sets = entry_instruction_sets(device) if device["kind"] == "cpu" else ()
    shown = [SET_NAMES.get(name, name) for name in sets if not (name == "avx2" and "avx512_f" in sets)]
    model = device.get("device") or "not stated"
    parts = [
        f"{model} ({' '.join(dict.fromkeys(shown))})" if shown else model,
        counted(threads, "thread") if threads else "",
    ]
    engine = device.get("engine", "torch")
    how = device.get("memory_format") if engine == "torch" else engine
    return ", ".join(filter(None, (*parts, device.get("precision"), how)))


def _rows(analysis: Analysis) -> Iterator[Row]:
    devices = [device_label(device) for device in analysis.results.devices]
    for variant in analysis.results.study.variants:
        name = variant.name
        yield _row(name, "parameters", variant.parameters)
        yield _row(name, "macs", variant.macs)
        dice = analysis.dice.get(name, {})
        yield _effect(name, "dice", dice.get(0), "Dice")
        for index, class_name in _classes(analysis):
            yield _effect(name, "dice", dice.get(index), "Dice", class_index=index, class_name=class_name)
        if name != analysis.baseline:
            yield from _comparison(analysis, name)
        yield from _speed(analysis, name, devices)
        yield from _learning(analysis, name, devices)
    yield from _contrasts(analysis)
    yield from _recommendations(analysis, devices)
    yield from _ranks(analysis)
    yield from _preservation(analysis)


def _row(variant: str, metric: str, value: float | None, *, unit: str = "1", **rest: Any) -> Row:
    note = {"note": NOT_MEASURED} if value is None else {}
    return {"variant": variant, "metric": metric, "unit": unit, "value": value} | note | rest


def _effect(variant: str, metric: str, effect: Effect | None, unit: str, **rest: Any) -> Row:
    if effect is None:
        return _row(variant, metric, None, unit=unit, **rest)
    low, high = effect.ci95 or (None, None)
    counts: Row = {"num_patients": effect.num_patients, "num_runs": effect.num_runs}
    interval = "ci95" if effect.ci95 else ""
    return _row(variant, metric, effect.difference, unit=unit, low=low, high=high, interval=interval, **counts, **rest)


def _mean(variant: str, metric: str, mean: Mean | None, unit: str, **rest: Any) -> Row:
    if mean is None or mean.mean is None:
        return _row(variant, metric, None, unit=unit, **rest)
    low, high = mean.ci95 or (None, mean.mean if mean.num_censored else None)
    interval = "ci95" if mean.ci95 else "at_most" if mean.num_censored else ""
    ends: Row = {"low": low, "high": high, "interval": interval}
    return _row(variant, metric, mean.mean, unit=unit, num_runs=mean.num_runs, **ends, **rest)


def _classes(analysis: Analysis) -> list[tuple[int, str]]:
    return list(enumerate(analysis.results.study.class_names))[1:]


def _comparison(analysis: Analysis, name: str) -> Iterator[Row]:
    """Gives the differences from the baseline, the tests and the verdict."""
    comparison = analysis.comparisons.get(name)
    yield from _differences(name, comparison, "", analysis.baseline)
    effect = comparison.dice if comparison else None
    components = effect.components if effect else None
    for source in ("fold", "run", "patient", "residual"):
        value = getattr(components, source) if components else None
        yield _row(name, f"dice_difference_sd_{source}", value, unit="Dice")
    tested = comparison is not None and comparison.p_noninferior is not None
    yield _row(name, "p_noninferior", comparison.p_noninferior if comparison else None)
    yield _row(name, "p_holm", comparison.p_holm if comparison else None)
    yield _row(name, "non_inferior", int(comparison.non_inferior) if comparison and tested else None)
    verdict = analysis.verdicts.get(name)
    if verdict is not None:
        word = {"class_name": verdict.class_name, "note": verdict.word}
        yield _row(name, "verdict_bound", verdict.bound, unit="Dice", **word)
    by_class = {each.index: each for each in comparison.by_class} if comparison else {}
    for index, class_name in _classes(analysis):
        of_class: Row = {"class_index": index, "class_name": class_name}
        each = by_class.get(index)
        yield from _differences(name, each, "", analysis.baseline, **of_class)
        yield _row(name, "p_noninferior", each.p_noninferior if each else None, **of_class)


def _differences(name: str, found: Any, prefix: str, against: str, **rest: Any) -> Iterator[Row]:
    effects = {} if found is None else {"dice": found.dice, **found.others}
    for metric in COMPARED:
        unit = METRICS[metric].unit or METRICS[metric].label
        yield _effect(name, f"{prefix}{metric}_difference", effects.get(metric), unit, against=against, **rest)


def _contrasts(analysis: Analysis) -> Iterator[Row]:
    for (variant, against), found in analysis.contrasts.items():
        yield from _differences(variant, found, "contrast_", against)
        for each in found.by_class if found else ():
            of_class: Row = {"class_index": each.index, "class_name": each.name}
            yield from _differences(variant, each, "contrast_", against, **of_class)


def _speed(analysis: Analysis, name: str, devices: list[str]) -> Iterator[Row]:
    """Gives what was measured on each device; a measure that some variant has is ``not measured`` for the others."""
    speeds = device_speeds(analysis.results)
    for device, speed in zip(devices, speeds, strict=True):
        for measure in dict.fromkeys(measure for _, measure in speed if measure not in ("parameters", "macs")):
            unit = next((unit for end, unit in SPEED_UNITS.items() if measure.endswith(end)), "1")
            value, low, high = speed.get((name, measure), (None, None, None))
            interval = "" if low is None else "iqr"
            yield _row(name, measure, value, unit=unit, device=device, low=low, high=high, interval=interval)


def _learning(analysis: Analysis, name: str, devices: list[str]) -> Iterator[Row]:
    """Yields the rows of a variant's convergence, and of its gap between training and held-out Dice."""
    found, gap = analysis.convergence.get(name), analysis.gaps.get(name)
    for key, unit in CONVERGENCE.items():
        device = devices[0] if devices and key.startswith("seconds") else ""
        yield _mean(name, f"convergence_{key}", getattr(found, key) if found else None, unit, device=device)
    for key in ("train", "validation"):
        runs = gap.gap.num_runs if gap else None
        value = getattr(gap, key) if gap else None
        yield _row(name, f"generalisation_{key}_dice", value, unit="Dice", num_runs=runs)
    yield _mean(name, "generalisation_gap_dice", gap.gap if gap else None, "Dice")
    if name != analysis.baseline:
        yield _mean(name, "generalisation_gap_dice_difference", gap.difference if gap else None, "Dice")


def _recommendations(analysis: Analysis, devices: list[str]) -> Iterator[Row]:
    for device, found in zip(devices or [""], analysis.recommendations, strict=False):
        if found.fastest:
            yield _row(found.fastest, "recommended_fastest", 1, device=device)
        if found.narrowest:
            yield _row(found.narrowest, "recommended_narrowest", 1, device=device)


def _ranks(analysis: Analysis) -> Iterator[Row]:
    if analysis.ranks is None:
        return
    for name, shares in analysis.ranks.probability.items():
        for rank, share in enumerate(shares, start=1):
            yield _row(name, "rank_probability", share, place=f"rank_{rank}")
    yield _row("", "rank_kendall_tau", analysis.ranks.mean_tau)


def _preservation(analysis: Analysis) -> Iterator[Row]:
    for place in analysis.places.itertuples():
        for key in ("wide", "narrow", *AVERAGED, "probe_wide", "probe_narrow"):
            value = getattr(place, key)
            if pd.notna(value) or pd.notna(
                place.narrow
            ):  # without a bottleneck nothing is narrow that could be measured
                known = None if pd.isna(value) else value
                yield _row(place.variant, f"preservation_{key}", known, place=place.place, num_runs=place.num_runs)
    for law in analysis.laws:
        for kind in ("spearman", "pearson", "partial"):
            if kind == "partial" and law.measure == "ratio":
                continue  # nothing of the ratio is left, given the ratio
            value = getattr(law.correlation, kind) if law.correlation else None
            low, high = (getattr(law.correlation, f"{kind}_ci95") if law.correlation else None) or (None, None)
            interval = "" if low is None else "ci95"
            metric = f"law_{law.measure}_{kind}"
            yield _row("", metric, value, place=law.where, low=low, high=high, interval=interval)
        yield _row("", f"law_{law.measure}_num_points", law.num_points, place=law.where)
