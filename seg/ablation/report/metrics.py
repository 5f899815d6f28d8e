"""The metrics of a report: a column of a table is one entry here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from seg.words import fixed, interval, significant


@dataclass(frozen=True)
class Column:
    """A quantity that the tables of a report show.

    Attributes:
        name: Name in the table of estimates.
        label: Heading of its column.
        unit: Unit as it is shown; empty for shares, counts and ratios.
        digits: Decimals; with ``significant`` significant figures.
        tables: Names of the tables that have the column, parted by a space.
        scale: Factor from the stored to the shown unit.
        signed: Whether positive values have a plus sign.
        significant: Whether ``digits`` counts significant figures.
        per_device: Whether every device has a value of its own.
    """

    name: str
    label: str
    unit: str
    digits: int
    tables: str
    scale: float = 1.0
    signed: bool = False
    significant: bool = False
    per_device: bool = False

    def write(self, value: float) -> str:
        """Formats a value in the shown unit, without the unit."""
        if self.significant:
            return significant(value * self.scale, self.digits)
        return fixed(value * self.scale, self.digits, sign=self.signed)

    def write_interval(self, low: float, high: float) -> str:
        """Formats an interval in the shown unit."""
        if self.significant:
            return f"{self.write(low)}\N{EN DASH}{self.write(high)}"
        return interval(low * self.scale, high * self.scale, self.digits, sign=self.signed)


TABLE_COLUMNS: Mapping[Column, str] = {
    Column("dice_difference", "Dice difference", "", 4, "main classes", signed=True): (
        "Mean Dice over classes less that of the baseline, paired by patient, fold and seed; below it the 95 % "
        "interval over training runs and patients."
    ),
    Column("prediction_ratio", "File to file", "×", 2, "main", per_device=True): (
        "Speed of a prediction from file to file, as a multiple of the baseline's in the same round; above 1 is "
        "faster. Below it the quartiles over rounds."
    ),
    Column("latency_ratio", "Network", "×", 2, "main", per_device=True): (
        "Speed of the network alone on one patch, as a multiple of the baseline's in the same round; above 1 is "
        "faster. Below it the quartiles over rounds."
    ),
    Column("peak_memory_inference_mib", "Memory", "MiB", 3, "main speed", significant=True, per_device=True): (
        "Peak memory of predicting one patch."
    ),
    Column("macs", "GMAC", "", 2, "main", scale=1e-09): (
        "Multiply-accumulates of one patch, in thousands of millions."
    ),
    Column("parameters", "Parameters", "M", 2, "main", scale=1e-06): ("Parameters of the network, in millions."),
    Column("dice", "Dice", "", 4, "main"): (
        "Mean Dice over classes and held-out cases with its 95 % interval. Differences tell variants apart far "
        "better, since the same patients are easy or hard for every variant."
    ),
    Column("p_holm", "p (Holm)", "", 2, "tests", significant=True): (
        "One-sided p-value that some class loses the margin or more, after Holm's correction over variants; 0.025 and"
        " below passes."
    ),
    Column("nsd_difference", "NSD difference", "", 4, "classes", signed=True): (
        "Difference in normalised surface Dice."
    ),
    Column("hd95_mm_difference", "HD95 difference", "mm", 3, "classes", signed=True): (
        "Difference in the 95th percentile of surface distances. Cases where one mask is empty are left out."
    ),
    Column("latency_ms", "Network", "ms", 3, "speed", significant=True, per_device=True): (
        "Time of the network on one patch; medians with quartiles over rounds."
    ),
    Column("prediction_s", "File to file", "s", 3, "speed", significant=True, per_device=True): (
        "Time of a prediction from file to file."
    ),
    Column("training_step_ms", "Training step", "ms", 3, "speed", significant=True, per_device=True): (
        "Time of a training step."
    ),
    Column("training_step_ratio", "Training step, ratio", "×", 2, "speed", per_device=True): (
        "Speed of a training step, as a multiple of the baseline's in the same round; above 1 is faster."
    ),
    Column(
        "throughput_voxels_per_s",
        "Throughput",
        "million voxels/s",
        3,
        "speed",
        scale=1e-06,
        significant=True,
        per_device=True,
    ): ("Voxels that the network processes in a second."),
    Column("peak_memory_training_mib", "Training memory", "MiB", 3, "speed", significant=True, per_device=True): (
        "Peak memory of a training step."
    ),
    Column("checkpoint_mib", "Weights", "MiB", 3, "speed", significant=True, per_device=True): (
        "Size of the weights on disk."
    ),
    Column("convergence_area", "Mean Dice of training", "", 4, "convergence"): (
        "Mean validation Dice from the first to the last validation."
    ),
    Column("convergence_steps_to_own", "Steps to 95 % of its own Dice", "", 0, "convergence"): (
        "Steps until a run reaches 95 % of its own final Dice; ≤ where a run was there by its first validation."
    ),
    Column("convergence_steps_to_baseline", "Steps to 95 % of the baseline's", "", 0, "convergence"): (
        "Steps until a run reaches 95 % of the final Dice of the baseline."
    ),
    Column("convergence_seconds_to_baseline", "Time to 95 % of the baseline's", "s", 1, "convergence"): (
        "The same in time: steps times the time of a step measured apart."
    ),
    Column("generalisation_gap_dice", "Training less held-out Dice", "", 4, "convergence", signed=True): (
        "Dice of the final weights on training cases less that on held-out cases."
    ),
    Column("generalisation_gap_dice_difference", "The same, less the baseline's", "", 4, "convergence", signed=True): (
        "The gap between training and held-out Dice less that of the baseline, paired by fold and seed."
    ),
    Column("preservation_r2", "R²", "", 3, "preservation"): (
        "Share of the variance of the wide features that a linear map recovers from the narrow ones."
    ),
    Column("preservation_r2_pca", "Best R²", "", 3, "preservation"): (
        "What the best linear code of the same width recovers."
    ),
    Column("preservation_cka", "CKA", "", 3, "preservation"): (
        "Centred kernel alignment between the wide and the narrow features."
    ),
    Column("preservation_probe_wide", "Probe, wide", "", 3, "preservation"): (
        "Dice of a linear probe on the wide features."
    ),
    Column("preservation_probe_narrow", "Probe, narrow", "", 3, "preservation"): (
        "Dice of a linear probe on the narrow features."
    ),
    Column("preservation_effective_rank", "Effective rank", "", 1, "preservation"): (
        "Effective rank of the wide features."
    ),
}
"""Metrics in the order of columns, with their definitions, which are shown on hover."""
BY_NAME = {metric.name: metric for metric in TABLE_COLUMNS}
