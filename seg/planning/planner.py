"""From the fingerprint of a data set to the configuration of an experiment on it."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from seg.config import (
    AugmentationConfig,
    BottleneckConfig,
    CtConfig,
    DataConfig,
    ExperimentConfig,
    NetworkConfig,
    OptimizerConfig,
    PatchConfig,
    SpatialConfig,
    TrainingConfig,
)
from seg.data.fingerprint import Fingerprint
from seg.data.intensity import ChannelIntensity
from seg.errors import ConfigError, DataError
from seg.planning.cost import Cost, step_cost
from seg.planning.geometry import MIN_BATCH, Geometry, Sampling, plan_geometry, plan_sampling
from seg.planning.topology import Size, Topology

FIRST_CHANNELS = 16
MAX_CHANNELS = 128
SKIP_RATIO = 0.25
DECODER_RATIO = 0.5
PLANNED_PRECISION: Literal["fp32", "bf16"] = "fp32"  # what every machine has; bf16 takes less
TRAINING_SHARE = 0.8
PASSES = 26
MIN_STEPS, MAX_STEPS = 1_000, 25_000
VALIDATIONS = 5
EMA_SHARE = 0.05
IN_PLANE_ROTATION_DEG = 30.0
FOREGROUND_FRACTION = 0.5
REPEAT = re.compile(r"^(.+?)[_-](?:frame|phase|time|timepoint|tp|visit|session|ses|scan)[_-]?\d+$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A planned experiment and what it rests on.

    Attributes:
        config: The experiment, complete.
        geometry: Grid and shapes of the data set.
        sampling: Patch, batch and topology.
        cost: Estimate of a training step.
    """

    config: ExperimentConfig
    geometry: Geometry
    sampling: Sampling
    cost: Cost


def plan_experiment(fingerprint: Fingerprint, data: DataConfig, *, name: str, memory_gib: float) -> Plan:
    """Plans an experiment on a data set.

    Args:
        fingerprint: The data set's.
        data: Where the data set is and how it splits; its spacing and normalisation are replaced.
        name: Name of the experiment.
        memory_gib: Memory that the training process may take, in GiB, in fp32.

    Returns:
        The plan.

    Raises:
        ConfigError: Not even two patches of the smallest size fit the memory.
        DataError: A CT channel has one intensity throughout the foreground.
    """
    geometry = plan_geometry(fingerprint)
    classes = len(fingerprint.class_names) + 1

    def cost_of(patch: Size, batch: int, topology: Topology) -> Cost:
        return step_cost(plan_network(topology), patch, batch, len(fingerprint.channels), classes)

    def memory_of(patch: Size, batch: int, topology: Topology) -> float:
        return cost_of(patch, batch, topology).memory_gib(PLANNED_PRECISION)

    sampling = plan_sampling(geometry, memory_gib, memory_of)
    if sampling is None:
        raise ConfigError(
            f"memory_gib must hold a training step on {MIN_BATCH} patches of the smallest size, got {memory_gib:g}; "
            "allow more memory."
        )
    steps = plan_steps(len(fingerprint.case_ids), sampling.batch)
    config = ExperimentConfig(
        name=name,
        data=_plan_data(data, fingerprint, geometry),
        patches=PatchConfig(size=sampling.patch, batch=sampling.batch, foreground_fraction=FOREGROUND_FRACTION),
        augmentation=AugmentationConfig(spatial=_plan_spatial(geometry)),
        network=plan_network(sampling.topology),
        optimizer=OptimizerConfig(
            name="muon", momentum=0.95, learning_rate=0.004, weight_decay=0.3, warmup_steps=steps // 20
        ),
        training=TrainingConfig(
            steps=steps, validate_every=steps // VALIDATIONS, ema_decay=round(1 - 1 / (EMA_SHARE * steps), 4)
        ),
    )
    cost = cost_of(sampling.patch, sampling.batch, sampling.topology)
    return Plan(config=config, geometry=geometry, sampling=sampling, cost=cost)


def plan_network(topology: Topology) -> NetworkConfig:
    """Returns the network: 16 channels doubling per stage up to 128, skips at 1/4 and decoder stages at 1/2 width.

    Deep supervision costs little and lets networks of many stages learn from the first steps on.
    """
    channels = tuple(min(MAX_CHANNELS, FIRST_CHANNELS * 2**level) for level in range(len(topology.strides)))
    return NetworkConfig(
        channels=channels,
        strides=topology.strides,
        kernel_sizes=topology.kernel_sizes,
        skip_bottleneck=BottleneckConfig(ratio=SKIP_RATIO),
        decoder_bottleneck=BottleneckConfig(ratio=DECODER_RATIO, activation="leaky_relu", norm=True),
        upsample="linear",
        deep_supervision=len(channels) > 2,
    )


def plan_steps(cases: int, batch: int) -> int:
    """Returns the optimiser steps: 26 passes over 4/5 of the cases, 1,000 to 25,000, a multiple of 100."""
    wanted = PASSES * cases * TRAINING_SHARE / batch
    return min(MAX_STEPS, max(MIN_STEPS, round(wanted / 100) * 100))


def detect_patient_pattern(case_ids: Sequence[str]) -> str | None:
    """Finds out whether case ids end in a frame, phase, time point, visit, session or scan of a patient.

    Args:
        case_ids: Ids of all cases.

    Returns:
        A pattern whose first group is the patient, or null unless every id fits it, some patient has two cases, and
        there are two patients at least, without whom nothing can be held out.
    """
    matches = [REPEAT.match(case_id) for case_id in case_ids]
    patients = Counter(match.group(1) for match in matches if match)
    repeated = all(matches) and 2 <= len(patients) < len(case_ids)
    return f"(?i){REPEAT.pattern}" if repeated else None


def experiment_name(root: Path) -> str:
    """Returns the folder's own name without the numbering of MSD and nnU-Net, in lower case."""
    bare = re.sub(r"^(?:Task|Dataset)\d+_", "", root.resolve().name)
    return re.sub(r"[^a-z0-9_-]+", "_", bare.lower()).strip("_") or "experiment"


def _plan_data(data: DataConfig, fingerprint: Fingerprint, geometry: Geometry) -> DataConfig:
    normalization: tuple[Literal["zscore", "ct", "none"], ...] = tuple(
        _normalization_of(channel) for channel in fingerprint.channels
    )
    return dataclasses.replace(
        data,
        spacing_mm=geometry.spacing_mm if geometry.resampled else None,
        normalization=normalization,
        ct=_plan_ct(fingerprint, normalization) if "ct" in normalization else None,
    )


def _plan_ct(fingerprint: Fingerprint, normalization: Sequence[str]) -> CtConfig:
    """Takes each CT channel's window from its foreground; channels of another kind get a window that is not used."""
    unused = ChannelIntensity(p00_5=0.0, median=0.0, p99_5=1.0, mean=0.0, std=1.0)
    windows = []
    for name, channel, kind in zip(fingerprint.channels, fingerprint.intensities, normalization, strict=True):
        if kind == "ct" and not channel.p00_5 < channel.p99_5:
            raise DataError(
                f"channel {name}: foreground intensities must differ to give a CT window, got {channel.p00_5:g} "
                "throughout; look at the images, or name the channel otherwise to standardise it."
            )
        windows.append(channel if kind == "ct" else unused)
    return CtConfig(
        lower=tuple(window.p00_5 for window in windows),
        upper=tuple(window.p99_5 for window in windows),
        mean=tuple(window.mean for window in windows),
        std=tuple(window.std for window in windows),
    )


def _normalization_of(channel: str) -> Literal["zscore", "ct", "none"]:
    """Follows nnU-Net's channel names: CT is calibrated, noNorm asks for none, all else is standardised."""
    known: dict[str, Literal["ct", "none"]] = {"ct": "ct", "nonorm": "none"}
    return known.get(channel.strip().casefold(), "zscore")


def _plan_spatial(geometry: Geometry) -> SpatialConfig:
    """Turns, zooms and displaces within the slices alone where an axis is thick, never interpolating across them."""
    if geometry.thick_axis is None:
        return SpatialConfig()
    x, y, z = (IN_PLANE_ROTATION_DEG if axis == geometry.thick_axis else 0.0 for axis in range(3))
    in_plane = tuple(axis for axis in range(3) if axis != geometry.thick_axis)
    return SpatialConfig(rotation_deg=(x, y, z), scale_axes=in_plane, elastic_axes=in_plane)
