"""The table of speed, and sentences on ranks."""

from __future__ import annotations

from seg.ablation.report.analysis import Analysis
from seg.ablation.report.document import Cell, Table, row
from seg.ablation.report.numbers import NOT_MEASURED, figures, fixed, listed
from seg.ablation.report.study import DeviceSpeed

MEASURES = (
    ("latency_ms", "Latency (ms)", 1.0),
    ("throughput_voxels_per_s", "Throughput (million voxels/s)", 1e-6),
    ("training_step_ms", "Training step (ms)", 1.0),
    ("prediction_s", "End to end (s)", 1.0),
)
NUMBERS = (
    ("peak_memory_inference_mib", "Memory, inference (MiB)"),
    ("peak_memory_training_mib", "Memory, training (MiB)"),
    ("checkpoint_mib", "Checkpoint (MiB)"),
)


def speed_table(device: DeviceSpeed, names: tuple[str, ...]) -> Table:
    """Gives the speed of every variant on one device."""
    rows = []
    for name in names:
        spreads = [_spread(device.spread(name, key), scale) for key, _, scale in MEASURES]
        rows.append(row(name, *spreads, *(figures(device.value(name, key)) for key, _ in NUMBERS)))
    about = device.about
    patch = " x ".join(map(str, about["patch_size"])) if about.get("patch_size") else "not stated"
    return Table(
        columns=("Variant", *(words for _, words, _ in MEASURES), *(words for _, words in NUMBERS)),
        rows=tuple(rows),
        caption=f"{device.label}: medians with quartiles over {about.get('rounds', 'not stated')} rounds (end to end: "
        f"{about.get('prediction_rounds', 'not stated')}), in each of which every variant ran once, after "
        f"{about.get('warmup', 'not stated')} untimed ones (end to end: 1); patch {patch}. Latency is that of one "
        f"patch, end to end from file to file.{_load(device)}{_initial(device, names)}{_copied(device)}",
        wide=True,
    )


def _load(device: DeviceSpeed) -> str:
    """Says that something else was running, where the load before was above half the cores."""
    load = device.about.get("load_1min")
    environment = device.about.get("environment") or {}
    cores = environment.get("cores") or device.about.get("threads")
    if load is None or not cores or load <= cores / 2:
        return ""
    return f" Before it began another load of {load:.2f} was on the machine: read small differences with care."


def _copied(device: DeviceSpeed) -> str:
    """Says which study a table was taken from, where it was not measured for this one."""
    source = device.about.get("copied_from")
    return f" Not measured anew: copied from the study {source}, whose networks are the same." if source else ""


def _initial(device: DeviceSpeed, names: tuple[str, ...]) -> str:
    """Names the variants that were measured before any of their runs was finished."""
    found = [name for name in names if device.variants.get(name, {}).get("weights") == "initial"]
    if not found:
        return ""
    whom = "all variants" if len(found) == len(names) > 1 else listed(found)
    return (
        f" Measured with initial weights, as no run was finished: {whom}; a network is as fast with them, but "
        "end to end also takes the clean-up and writing of its label maps, which are of no use yet."
    )


def _spread(spread: tuple[float, float, float] | None, scale: float) -> Cell:
    if spread is None:
        return Cell(text=NOT_MEASURED)
    middle, low, high = (value * scale for value in spread)
    return Cell(text=figures(middle), note=f"{figures(low)} to {figures(high)}")


def rank_sentences(analysis: Analysis) -> list[str]:
    """Says how far seeds agree on the order of variants."""
    ranks = analysis.ranks
    if ranks is None:
        return ["Variants were not ranked: fewer than two, or no baseline, have a finished trial."]
    said = []
    if ranks.mean_tau is None:
        said.append("Agreement of seeds on the order of variants: not measured, as there is a single seed.")
    else:
        pairs = ", ".join(f"{one} and {other}: {fixed(tau, 2)}" for (one, other), tau in ranks.kendall_tau.items())
        said.append(
            f"Agreement of seeds on the order of variants (Kendall's tau, 1 is the same order): "
            f"{fixed(ranks.mean_tau, 2)} on average (seeds {pairs})."
        )
    if ranks.left_out:
        said.append(f"Not ranked, as trials are missing: {', '.join(ranks.left_out)}.")
    return said
