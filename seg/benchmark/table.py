"""Measurements as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from seg.words import NOT_MEASURED, aligned, dimensions

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
    """Returns the tables of a device: times with their quartiles, sizes, and ratios to the baseline."""
    rows = entry["variants"]
    patch = dimensions(entry["patch_size"])
    engine = entry.get("engine", "torch")
    version = entry.get("engine_version") or "of a version that is not known"
    how = entry["memory_format"] if engine == "torch" else f"{engine} {version}"
    files = ""
    if engine == "torch":
        files = f", end to end of {entry['prediction_rounds']} over {entry['prediction_cases']} case(s)"
    head = (
        f"{entry['device']}, {entry['threads']} thread(s), {entry['precision']}, {how}; patch {patch}, batch "
        f"{entry['batch']}; median [quartiles] of {entry['rounds']} rounds{files}; load "
        f"{'not known' if entry['load_1min'] is None else format(entry['load_1min'], '.2f')} before"
    )
    labelled = list(zip(labels(rows), rows, strict=True))
    # An engine measures less, and shows no columns of what it never measures.
    spreads, numbers = ([one for one in table if one[0] in rows[0]] for table in (SPREADS, NUMBERS))
    names = ["network", *(words for _, words, _ in spreads)]
    times = [names, *([label, *(_spread(row[key], by) for key, _, by in spreads)] for label, row in labelled)]
    names = ["network", *(words for _, words, _ in numbers)]
    sizes = [names, *([label, *(_number(row[key], by) for key, _, by in numbers)] for label, row in labelled)]
    parts = [head, aligned(times), *([aligned(sizes)] if numbers else []), *_floors(entry, labelled)]
    if len(rows) > 1:
        compared = [one for one in RATIOS if one[0] in rows[0]]
        names = [f"times as fast as {entry['baseline']}", *(words for _, words in compared)]
        lines = [[label, *(_spread(row[key], 1.0) for key, _ in compared)] for label, row in labelled[1:]]
        parts.append(aligned([names, *lines]))
    return "\n\n".join(parts)


def _floors(entry: Mapping[str, Any], labelled: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Returns the least times and what share of the time taken they are; nothing where an entry has none."""
    if "ceilings" not in entry:
        return []
    ceilings = entry["ceilings"].items()
    reached = [f"{name}: {found['gflops']:.0f} GFLOP/s, {found['gb_per_s']:.0f} GB/s" for name, found in ceilings]
    names = ["forward", "forward, fused", "training step", "training step, fused"]
    lines = [[f"least ms at {'; '.join(reached)}", *names]]
    for label, row in labelled:
        cells = [label]
        for measure in ("latency", "training_step"):
            for kind in ("floor_ms", "floor_fused_ms"):
                least = row[f"{measure}_{kind}"]
                share = 100 * least / row[f"{measure}_ms"]["median"]
                cells.append(f"{_digits(least)} ({share:.0f} % of the time)")
        lines.append(cells)
    return [aligned(lines)]


def labels(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names networks with their precision, layout or engine, and kernels where these differ."""
    differ = len({row.get("kernels") for row in rows}) > 1
    found = []
    for row in rows:
        how = row["memory_format"] if row.get("engine", "torch") == "torch" else row["engine"]
        kernels = f", kernels of {row['kernels']}" if differ and "kernels" in row else ""
        found.append(f"{row['name']} ({row['precision']}, {how}{kernels})")
    return found


def _spread(value: Mapping[str, float] | None, factor: float) -> str:
    if value is None:
        return NOT_MEASURED
    middle, low, high = (_digits(value[key] * factor) for key in ("median", "q1", "q3"))
    return f"{middle} [{low}, {high}]"


def _number(value: float | None, factor: float) -> str:
    return NOT_MEASURED if value is None else _digits(value * factor)


def _digits(value: float) -> str:
    """Formats a number with three significant digits, and never fewer than those before the point."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def volume_text(found: dict[str, Any]) -> str:
    """Returns the measurement of a volume as lines of text."""
    shape = dimensions(found["volume_shape"])
    sizes = [dimensions(found[f"{of}_spacing_mm"], "g") for of in ("volume", "network")]
    lines = [
        f"{found['network']}: {shape} voxels, {found['num_channels']} channel(s), {found['num_classes']} classes, "
        f"{found['device']}, {found['threads']} thread(s), {found['precision']}",
        f"voxels of {sizes[0]} mm, network at {sizes[1]} mm",
        f"{'from file to file':<34}{found['seconds']:>10.1f} s",
    ]
    for key, words in (
        ("start_mib", "resident at the start"),
        ("peak_beyond_start_mib", "peak beyond the start"),
        ("image_mib", "image in 32-bit floats"),
        ("labels_mib", "label map"),
        ("beyond_image_and_labels_mib", "peak beyond image and labels"),
        ("peak_memory_gpu_mib", "peak on the GPU"),
    ):
        if found[key] is not None:
            lines.append(f"{words:<34}{found[key]:>10.0f} MiB")
        elif key != "peak_memory_gpu_mib":
            lines.append(f"{words:<34}{NOT_MEASURED}")
    return "\n".join(lines)
