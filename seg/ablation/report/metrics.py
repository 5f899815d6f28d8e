"""The metrics of a report: a column of a table is one entry here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from seg.words import fixed, interval, significant


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A quantity that the tables of a report show.

    Attributes:
        name: Name in the table of estimates.
        label: Heading of its column.
        unit: Unit as it is shown; empty for shares, counts and ratios.
        digits: Decimals; with ``significant`` significant figures.
        better: Which direction is better; None where neither is.
        help: Definition, shown on hover.
        tables: Tables that have the column.
        scale: Factor from the stored to the shown unit.
        signed: Whether positive values have a plus sign.
        significant: Whether ``digits`` counts significant figures.
        per_device: Whether every device has a value of its own.
    """

    name: str
    label: str
    unit: str = ""
    digits: int = 2
    better: Literal["higher", "lower"] | None = None
    help: str
    tables: tuple[str, ...]
    scale: float = 1.0
    signed: bool = False
    significant: bool = False
    per_device: bool = False

    def write(self, value: float) -> str:
        """Writes a value in the shown unit, without the unit."""
        if self.significant:
            return significant(value * self.scale, self.digits)
        return fixed(value * self.scale, self.digits, sign=self.signed)

    def write_interval(self, low: float, high: float) -> str:
        """Writes an interval in the shown unit."""
        if self.significant:
            return f"{self.write(low)}\N{EN DASH}{self.write(high)}"
        return interval(low * self.scale, high * self.scale, self.digits, sign=self.signed)


METRICS = (
    Metric(
        name="dice_difference",
        label="Dice difference",
        digits=4,
        better="higher",
        signed=True,
        tables=("main", "classes", "compare"),
        help="Mean Dice over classes less that of the baseline, paired by patient, fold and seed; below it the 95 % "
        "interval over training runs and patients.",
    ),
    Metric(
        name="prediction_ratio",
        label="File to file",
        unit="×",
        better="higher",
        per_device=True,
        tables=("main",),
        help="Speed of a prediction from file to file, as a multiple of the baseline's in the same round; above 1 is "
        "faster. Below it the quartiles over rounds.",
    ),
    Metric(
        name="latency_ratio",
        label="Network",
        unit="×",
        better="higher",
        per_device=True,
        tables=("main",),
        help="Speed of the network alone on one patch, as a multiple of the baseline's in the same round; above 1 is "
        "faster. Below it the quartiles over rounds.",
    ),
    Metric(
        name="peak_memory_inference_mib",
        label="Memory",
        unit="MiB",
        digits=3,
        significant=True,
        better="lower",
        per_device=True,
        tables=("main", "speed"),
        help="Peak memory of predicting one patch.",
    ),
    Metric(
        name="macs",
        label="GMAC",
        digits=2,
        scale=1e-9,
        better="lower",
        tables=("main",),
        help="Multiply-accumulates of one patch, in thousands of millions.",
    ),
    Metric(
        name="parameters",
        label="Parameters",
        unit="M",
        digits=2,
        scale=1e-6,
        better="lower",
        tables=("main",),
        help="Parameters of the network, in millions.",
    ),
    Metric(
        name="dice",
        label="Dice",
        digits=4,
        better="higher",
        tables=("main",),
        help="Mean Dice over classes and held-out cases with its 95 % interval. Differences tell variants apart far "
        "better, since the same patients are easy or hard for every variant.",
    ),
    Metric(
        name="p_holm",
        label="p (Holm)",
        digits=2,
        significant=True,
        better="lower",
        tables=("tests",),
        help="One-sided p-value that some class loses the margin or more, after Holm's correction over variants; "
        "0.025 and below passes.",
    ),
    Metric(
        name="nsd_difference",
        label="NSD difference",
        digits=4,
        better="higher",
        signed=True,
        tables=("classes",),
        help="Difference in normalised surface Dice.",
    ),
    Metric(
        name="hd95_mm_difference",
        label="HD95 difference",
        unit="mm",
        digits=3,
        better="lower",
        signed=True,
        tables=("classes",),
        help="Difference in the 95th percentile of surface distances. Cases where one mask is empty are left out.",
    ),
    Metric(
        name="latency_ms",
        label="Network",
        unit="ms",
        digits=3,
        significant=True,
        better="lower",
        per_device=True,
        tables=("speed",),
        help="Time of the network on one patch; medians with quartiles over rounds.",
    ),
    Metric(
        name="prediction_s",
        label="File to file",
        unit="s",
        digits=3,
        significant=True,
        better="lower",
        per_device=True,
        tables=("speed",),
        help="Time of a prediction from file to file.",
    ),
    Metric(
        name="training_step_ms",
        label="Training step",
        unit="ms",
        digits=3,
        significant=True,
        better="lower",
        per_device=True,
        tables=("speed",),
        help="Time of a training step.",
    ),
    Metric(
        name="training_step_ratio",
        label="Training step, ratio",
        unit="×",
        better="higher",
        per_device=True,
        tables=("speed",),
        help="Speed of a training step, as a multiple of the baseline's in the same round; above 1 is faster.",
    ),
    Metric(
        name="throughput_voxels_per_s",
        label="Throughput",
        unit="million voxels/s",
        digits=3,
        significant=True,
        scale=1e-6,
        better="higher",
        per_device=True,
        tables=("speed",),
        help="Voxels that the network processes in a second.",
    ),
    Metric(
        name="peak_memory_training_mib",
        label="Training memory",
        unit="MiB",
        digits=3,
        significant=True,
        better="lower",
        per_device=True,
        tables=("speed",),
        help="Peak memory of a training step.",
    ),
    Metric(
        name="checkpoint_mib",
        label="Weights",
        unit="MiB",
        digits=3,
        significant=True,
        better="lower",
        per_device=True,
        tables=("speed",),
        help="Size of the weights on disk.",
    ),
    Metric(
        name="convergence_area",
        label="Mean Dice of training",
        digits=4,
        better="higher",
        tables=("convergence",),
        help="Mean validation Dice from the first to the last validation.",
    ),
    Metric(
        name="convergence_steps_to_own",
        label="Steps to 95 % of its own Dice",
        digits=0,
        better="lower",
        tables=("convergence",),
        help="Steps until a run reaches 95 % of its own final Dice; ≤ where a run was there by its first validation.",
    ),
    Metric(
        name="convergence_steps_to_baseline",
        label="Steps to 95 % of the baseline's",
        digits=0,
        better="lower",
        tables=("convergence",),
        help="Steps until a run reaches 95 % of the final Dice of the baseline.",
    ),
    Metric(
        name="convergence_seconds_to_baseline",
        label="Time to 95 % of the baseline's",
        unit="s",
        digits=1,
        better="lower",
        tables=("convergence",),
        help="The same in time: steps times the time of a step measured apart.",
    ),
    Metric(
        name="generalisation_gap_dice",
        label="Training less held-out Dice",
        digits=4,
        better="lower",
        signed=True,
        tables=("convergence",),
        help="Dice of the final weights on training cases less that on held-out cases.",
    ),
    Metric(
        name="generalisation_gap_dice_difference",
        label="The same, less the baseline's",
        digits=4,
        better="lower",
        signed=True,
        tables=("convergence",),
        help="The gap between training and held-out Dice less that of the baseline, paired by fold and seed.",
    ),
    Metric(
        name="preservation_r2",
        label="R²",
        digits=3,
        better="higher",
        tables=("preservation",),
        help="Share of the variance of the wide features that a linear map recovers from the narrow ones.",
    ),
    Metric(
        name="preservation_r2_pca",
        label="Best R²",
        digits=3,
        better="higher",
        tables=("preservation",),
        help="What the best linear code of the same width recovers.",
    ),
    Metric(
        name="preservation_cka",
        label="CKA",
        digits=3,
        better="higher",
        tables=("preservation",),
        help="Centred kernel alignment between the wide and the narrow features.",
    ),
    Metric(
        name="preservation_probe_wide",
        label="Probe, wide",
        digits=3,
        tables=("preservation",),
        help="Dice of a linear probe on the wide features.",
    ),
    Metric(
        name="preservation_probe_narrow",
        label="Probe, narrow",
        digits=3,
        better="higher",
        tables=("preservation",),
        help="Dice of a linear probe on the narrow features.",
    ),
    Metric(
        name="preservation_effective_rank",
        label="Effective rank",
        digits=1,
        tables=("preservation",),
        help="Effective rank of the wide features.",
    ),
)
BY_NAME = {metric.name: metric for metric in METRICS}


def of_table(table: str) -> tuple[Metric, ...]:
    """Returns the metrics of a table, in the order of its columns."""
    return tuple(metric for metric in METRICS if table in metric.tables)
