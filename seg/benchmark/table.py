"""The results of a measurement as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from seg.words import NOT_MEASURED

SPREADS = (
    ("latency_ms", "latency, ms", 1.0),
    ("throughput_voxels_per_s", "Mvoxel/s", 1e-6),
    ("training_step_ms", "training step, ms", 1.0),
    ("prediction_s", "end to end, s/case", 1.0),
)
NUMBERS = (
    ("peak_memory_inference_mib", "inference, MiB", 1.0),
    ("peak_memory_training_mib", "training, MiB", 1.0),
    ("parameters", "M parameters", 1e-6),
    ("macs", "GMAC", 1e-9),
    ("checkpoint_mib", "checkpoint, MiB", 1.0),
)
RATIOS = (
    ("latency_ratio", "latency"),
    ("throughput_ratio", "throughput"),
    ("training_step_ratio", "training step"),
    ("prediction_ratio", "end to end"),
)


def device_tables(entry: Mapping[str, Any]) -> str:
    """Words what was measured on a device: times with their quartiles, sizes, and ratios to the baseline."""
    rows = entry["variants"]
    patch = " x ".join(map(str, entry["patch_size"]))
    head = (
        f"{entry['device']}, {entry['threads']} thread(s), {entry['precision']}, {entry['memory_format']}; patch "
        f"{patch}, batch {entry['batch']}; median [quartiles] of {entry['rounds']} rounds, end to end of "
        f"{entry['prediction_rounds']} over {entry['prediction_cases']} case(s); load {entry['load_1min']:.2f} before"
    )
    names = ["network", *(words for _, words, _ in SPREADS)]
    times = [names, *([label(row), *(_spread(row[key], by) for key, _, by in SPREADS)] for row in rows)]
    names = ["network", *(words for _, words, _ in NUMBERS)]
    sizes = [names, *([label(row), *(_number(row[key], by) for key, _, by in NUMBERS)] for row in rows)]
    parts = [head, _aligned(times), _aligned(sizes)]
    if len(rows) > 1:
        names = [f"times as fast as {entry['baseline']}", *(words for _, words in RATIOS)]
        lines = [[label(row), *(_spread(row[key], 1.0) for key, _ in RATIOS)] for row in rows[1:]]
        parts.append(_aligned([names, *lines]))
    return "\n\n".join(parts)


def label(row: Mapping[str, Any]) -> str:
    """Names a network with its precision and layout."""
    return f"{row['name']} ({row['precision']}, {row['memory_format']})"


def _spread(value: Mapping[str, float] | None, factor: float) -> str:
    if value is None:
        return NOT_MEASURED
    middle, low, high = (_digits(value[key] * factor) for key in ("median", "q1", "q3"))
    return f"{middle} [{low}, {high}]"


def _number(value: float | None, factor: float) -> str:
    return NOT_MEASURED if value is None else _digits(value * factor)


def _digits(value: float) -> str:
    """Writes three digits, and all of those before the point."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
