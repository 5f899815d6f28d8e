"""Configuration of an ablation study: which variants are compared, on what, and how trials are run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class PointConfig:
    """One variant of the grid.

    Attributes:
        name: Name of the variant, part of its folders: lower-case letters, digits, dots, dashes, underscores.
        set: Values by dotted path of the experiment's configuration; null takes an optional section away.
    """

    name: str
    set: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class AxisConfig:
    """One direction of the grid.

    Attributes:
        path: Dotted path of the field that varies.
        values: Values along the axis, each as an experiment's YAML would give it.
        label: Word before the value in the names of variants: ``skip`` makes ``skip_1-4`` of 0.25.
    """

    path: str
    values: tuple[Any, ...]
    label: str


@dataclass(frozen=True, kw_only=True)
class ContrastConfig:
    """A comparison of two variants, beside those with the baseline.

    Attributes:
        variant: Name of a variant.
        against: Name of the variant that it is compared with.
    """

    variant: str
    against: str


@dataclass(frozen=True, kw_only=True)
class SlurmConfig:
    """Request to Slurm, per job.

    Attributes:
        partition: Partition to submit to; null is the cluster's default.
        account: Account to charge; null is the user's default.
        time_minutes: Limit of a trial's wall time, in minutes, >= 1.
        memory_gib: Main memory of a trial, in GiB, > 0.
        max_parallel: Largest number of trials that run at once, >= 1.
    """

    partition: str | None = None
    account: str | None = None
    time_minutes: int = 240
    memory_gib: float = 16.0
    max_parallel: int = 64


@dataclass(frozen=True, kw_only=True)
class BackendConfig:
    """Where trials run.

    Attributes:
        backend: In this process one after the other, in local worker processes, on Slurm, or on Ray.
        workers: Worker processes of the backend workers, >= 1.
        cpus_per_trial: Processor threads of a trial, >= 0; 0 shares all of them among the workers.
        gpus_per_trial: GPUs of a trial, >= 0; below 1 several trials share one.
        retries: Further attempts after a trial failed, >= 0.
        slurm: Request to Slurm.
        ray_address: Address of a running Ray cluster, or ``auto``; null starts Ray on this machine.
    """

    backend: Literal["process", "workers", "slurm", "ray"] = "process"
    workers: int = 1
    cpus_per_trial: int = 0
    gpus_per_trial: float = 0.0
    retries: int = 1
    slurm: SlurmConfig = field(default_factory=SlurmConfig)
    ray_address: str | None = None


@dataclass(frozen=True, kw_only=True)
class SpeedConfig:
    """Measurement of speed, all variants interleaved in one process.

    Attributes:
        rounds: Rounds in which each variant is measured once, >= 3.
        warmup: Untimed rounds before, >= 1.
    """

    rounds: int = 15
    warmup: int = 3


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """An ablation study.

    Attributes:
        schema_version: Version of this layout; a newer one is refused.
        name: Name of the study, also of its experiments: lower-case letters, digits, dots, dashes, underscores.
        base: YAML file of the experiment that is varied, relative to the study's file.
        set: Changes of the base that are common to all variants, by dotted path.
        baseline: The variant to which all others are compared.
        design: How axes make variants: every combination of their values, one axis at a time with the others as in
            the baseline, or no axes but a list of points.
        axes: Directions of the grid.
        points: Variants beside those of the axes, in their order.
        contrasts: Comparisons of two variants that tell the effect of one change from that of another.
        folds: Folds on which every variant is trained.
        seeds: Seeds with which every variant is trained on each fold.
        margin: Loss of Dice that still counts as not inferior, in (0, 1); named before the first trial runs.
        launch: Where trials run.
        speed: Measurement of speed.
        reuse: Whether finished trials count that other code trained; same_code makes them anew and says so.
        notes: What a reader must know that no record says, such as a change of plan; a sentence or a few each, printed
            under the methods of the report.
        nominal_spacing: Whether the voxel spacing in the headers is not the true one; the report then leaves out
            distances (HD95, NSD).
        pictures: Whether the report may show pictures of cases; false where the licence of the data does not allow it.
    """

    schema_version: int = 1
    name: str
    base: str
    set: Mapping[str, Any] = field(default_factory=dict)
    baseline: PointConfig = field(default_factory=lambda: PointConfig(name="baseline"))
    design: Literal["product", "sweep", "list"] = "list"
    axes: tuple[AxisConfig, ...] = ()
    points: tuple[PointConfig, ...] = ()
    contrasts: tuple[ContrastConfig, ...] = ()
    folds: tuple[int, ...] = (0,)
    seeds: tuple[int, ...] = (0, 1, 2)
    margin: float = 0.005
    launch: BackendConfig = field(default_factory=BackendConfig)
    speed: SpeedConfig = field(default_factory=SpeedConfig)
    reuse: Literal["same_code", "any_code"] = "same_code"
    notes: tuple[str, ...] = ()
    nominal_spacing: bool = False
    pictures: bool = True
