"""Tables of speed, convergence, generalisation and ranks."""

from __future__ import annotations

from collections.abc import Mapping

from seg.ablation.report.analysis import Analysis
from seg.ablation.report.document import Cell, Table, row
from seg.ablation.report.numbers import NOT_MEASURED, counted, figures, fixed, interval, listed
from seg.ablation.report.study import DeviceSpeed
from seg.ablation.statistics import Mean

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
    load = f" The machine's load was {about['load_1min']:.2f} before." if about.get("load_1min") is not None else ""
    return Table(
        columns=("Variant", *(words for _, words, _ in MEASURES), *(words for _, words in NUMBERS)),
        rows=tuple(rows),
        caption=f"{device.label}: medians with quartiles over {about.get('rounds', 'not stated')} rounds (end to end: "
        f"{about.get('prediction_rounds', 'not stated')}), in each of which every variant ran once, after "
        f"{about.get('warmup', 'not stated')} untimed ones (end to end: 1); patch {patch}. Latency is that of one "
        f"patch, end to end from file to file.{load}{_initial(device, names)}",
        wide=True,
    )


def _initial(device: DeviceSpeed, names: tuple[str, ...]) -> str:
    """Names the variants that were measured before any of their runs was finished."""
    found = [name for name in names if device.variants.get(name, {}).get("weights") == "initial"]
    if not found:
        return ""
    return (
        f" Measured with initial weights, as no run was finished: {listed(found)}; a network is as fast with them, but "
        "end to end also takes the clean-up and writing of its label maps, which are of no use yet."
    )


def _spread(spread: tuple[float, float, float] | None, scale: float) -> Cell:
    if spread is None:
        return Cell(text=NOT_MEASURED)
    middle, low, high = (value * scale for value in spread)
    return Cell(text=figures(middle), note=f"{figures(low)} to {figures(high)}")


def convergence_table(analysis: Analysis) -> Table:
    """Gives how soon each variant comes near its final Dice, and the gap between training and validation."""
    rows = []
    for name in analysis.records.study.names:
        one, gap = analysis.convergence.get(name), analysis.gaps.get(name)
        cells = (
            [Cell(text=NOT_MEASURED)] * 7
            if one is None
            else [
                _mean(one.area, 4),
                _mean(one.area_difference, 4, sign=True) if name != analysis.baseline else Cell(text="baseline"),
                _mean(one.steps_to_own, 0),
                _mean(one.steps_to_baseline, 0),
                _mean(one.steps_to_baseline_ratio, 2),
                _mean(one.seconds_to_own, 1),
                _mean(one.seconds_to_baseline, 1),
            ]
        )
        last = Cell(text=NOT_MEASURED)
        if gap is not None:
            last = Cell(
                text=fixed(gap.gap.mean, 4, sign=True), note=f"{fixed(gap.train, 4)} less {fixed(gap.validation, 4)}"
            )
        against = (
            Cell(text="baseline")
            if name == analysis.baseline
            else _mean(None if gap is None else gap.difference, 4, sign=True)
        )
        rows.append(row(name, *cells, last, against))
    return Table(
        columns=(
            "Variant",
            "Area under the curve",
            "Area, difference",
            "Steps to 95 % of its own final Dice",
            "Steps to 95 % of the baseline's",
            "Over the baseline's steps",
            "Seconds to its own",
            "Seconds to the baseline's",
            "Training less validation Dice",
            "Gap, difference",
        ),
        rows=tuple(rows),
        caption="Convergence and generalisation, means over trials with 95 % t intervals. The area is the mean Dice "
        "from the first to the last validation. Where a trial was there by its first validation, steps are an upper "
        "bound and their ratio is not known. Seconds are steps times the measured time of a step. Below the gap "
        "stand the two mean Dice of the final weights, on training cases without augmentation and on held-out ones. "
        "Differences are paired by fold and seed.",
        wide=True,
    )


def convergence_sentences(analysis: Analysis) -> list[str]:
    """Says which variants learn faster than the baseline, and which generalise better, as far as intervals tell."""
    areas = {name: one.area_difference for name, one in analysis.convergence.items() if name != analysis.baseline}
    gaps = {name: one.difference for name, one in analysis.gaps.items() if name != analysis.baseline}
    said = []
    if any(one.ci95 for one in areas.values()):
        said.append(
            "Learning, by the area under the curve of validation Dice against steps: "
            + _told(areas, above="above the baseline's (faster, or better all along)", below="below it")
        )
    if any(one.ci95 for one in gaps.values()):
        said.append(
            "Generalisation, by the gap between training and validation Dice: "
            + _told(gaps, above="wider than the baseline's", below="narrower")
        )
    return said


def _told(differences: Mapping[str, Mean], *, above: str, below: str) -> str:
    """Sorts variants by whether the interval of a difference lies above 0, below it, or holds it."""
    known = {name: one.ci95 for name, one in differences.items() if one.ci95 is not None}
    sides = {
        above: [name for name, (low, _) in known.items() if low > 0],
        below: [name for name, (_, high) in known.items() if high < 0],
    }
    parts = [f"{words} for {listed(names)}" for words, names in sides.items() if names]
    rest = len(known) - sum(map(len, sides.values()))
    if rest:
        parts.append(f"not told from it for {counted(rest, 'variant')}")
    return "; ".join(parts) + f" (95 % t intervals over runs, each alone, of {counted(len(known), 'variant')})."


def _mean(mean: Mean | None, digits: int, *, sign: bool = False) -> Cell:
    if mean is None or (mean.mean is None and not mean.num_without and not mean.num_censored):
        return Cell(text=NOT_MEASURED)
    runs = mean.num_without + mean.num_runs
    early = f"by the first validation in {mean.num_censored} of {runs}" if mean.num_censored else ""
    if mean.mean is None:
        return Cell(text="not known" if early else "never reached", note=early)
    notes = [interval(mean.ci95, digits, sign=sign)] if mean.ci95 else []
    notes += [early] if early else []
    if mean.num_without:
        notes.append(f"never reached in {mean.num_without} of {runs}")
    bound = "\N{LESS-THAN OR EQUAL TO} " if early else ""
    return Cell(text=f"{bound}{fixed(mean.mean, digits, sign=sign)}", note="; ".join(notes))


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
