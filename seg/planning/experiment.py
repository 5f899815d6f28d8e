"""From the fingerprint of a data set to the configuration of an experiment on it.

Grid, patch, batch and network follow the rules of nnU-Net within a budget of memory; docs/planning.md names deviations.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from seg.config import (
    AugmentationConfig,
    BottleneckConfig,
    CtConfig,
    DataConfig,
    ExperimentConfig,
    NetworkConfig,
    OptimizerConfig,
    PatchConfig,
    Precision,
    SpatialConfig,
    TrainingConfig,
)
from seg.errors import ConfigError, DataError, Problem
from seg.files import real_path
from seg.planning.fingerprint import ChannelIntensity, Fingerprint
from seg.planning.topology import MIN_EDGE, Size, Topology, Triple, plan_topology, round_up
from seg.training.cost import Cost, step_cost

ANISOTROPY = 3.0
THICK_PERCENTILE = 10.0
SPACING_TOLERANCE = 1e-3
START_VOXELS = 256**3
EXTENT_PERCENTILE = 95.0
EXTENT_MARGIN = 1.5
MIN_CONTEXT = 64
MIN_BATCH = 2
MIN_PATCH = 16
MAX_SHARE = 0.05
STEP_VOXELS_PER_GIB = 2**16


@dataclass(frozen=True, kw_only=True)
class PlannedGrid:
    """The grid that volumes are brought to.

    Attributes:
        resampled: Whether volumes are resampled at all; not where all have the same spacing.
        spacing_mm: Spacing of the grid, in mm.
        median_shape: Median of the cases' shapes on that grid, in voxels.
        min_shape: Smallest length per axis among the cases, in voxels.
        extent: Length per axis that holds the foreground of 95 % of cases, in voxels.
        thick_axis: The axis along which voxels are more than three times longer and fewer than along both others, or
            null.
        total_voxels: Voxels of all cases together on that grid.
    """

    resampled: bool
    spacing_mm: Triple
    median_shape: Size
    min_shape: Size
    extent: Size
    thick_axis: int | None
    total_voxels: float


def plan_grid(fingerprint: Fingerprint) -> PlannedGrid:
    """Chooses the target spacing: per axis the median, or its 10th percentile along a thick axis.

    References:
        Isensee et al. nnU-Net. 2021. doi:10.1038/s41592-020-01008-z. Deviation: where all spacings agree to 0.1 %,
        nothing is resampled.
    """
    spacings = np.array(fingerprint.spacings_mm)
    shapes = np.array(fingerprint.shapes, dtype=np.float64)
    target = np.median(spacings, axis=0)
    thick = _thick_axis(target, np.median(shapes, axis=0))
    if thick is not None:
        others = np.delete(target, thick).max()
        target[thick] = max(float(np.percentile(spacings[:, thick], THICK_PERCENTILE)), others)
    resampled = not np.allclose(spacings, target, rtol=SPACING_TOLERANCE, atol=0)
    on_grid = np.maximum(1, np.rint(shapes * spacings / target))
    extents = np.array(fingerprint.foreground_extents) * spacings / target
    return PlannedGrid(
        resampled=resampled,
        spacing_mm=_triple(target),
        median_shape=_size(np.median(on_grid, axis=0)),
        min_shape=_size(on_grid.min(axis=0)),
        extent=_size(np.maximum(1, np.percentile(extents, EXTENT_PERCENTILE, axis=0))),
        thick_axis=thick,
        total_voxels=float(on_grid.prod(axis=1).sum()),
    )


def plan_sampling(
    geometry: PlannedGrid, memory_gib: float, memory_of: Callable[[Size, int, Topology], float]
) -> tuple[Size, int, Topology] | None:
    """Chooses the largest patch of the preferred shape whose step fits the memory, then the batch.

    The preferred patch has the same length in mm along every axis, at most the median shape, and at most one and a
    half times the foreground's extent or 64 voxels, whichever is longer. It loses one divisor at a time along the axis
    that is longest against the median shape, until two patches fit; no edge is cut below 16 voxels. The batch then
    grows while it fits, sees no more than 5 % of all voxels, and keeps to 65,536 voxels a step for each GiB of the
    budget.

    ``memory_of`` estimates the memory in GiB for a patch, a batch and a topology.

    Returns:
        Patch, batch and topology, or null where even the smallest patch does not fit.
    """
    for patch, topology in _patches(geometry):
        if memory_of(patch, MIN_BATCH, topology) <= memory_gib:
            cap = min(geometry.total_voxels * MAX_SHARE, memory_gib * STEP_VOXELS_PER_GIB) / prod(patch)
            batch = MIN_BATCH
            while batch + 1 <= cap and memory_of(patch, batch + 1, topology) <= memory_gib:
                batch += 1
            return patch, batch, topology
    return None


def _patches(geometry: PlannedGrid) -> Iterator[tuple[Size, Topology]]:
    """Yields ever smaller patches, and what the network becomes on each."""
    wanted = _preferred_patch(geometry)
    while True:
        topology = plan_topology(wanted, geometry.spacing_mm, _pooling_limits(geometry))
        patch = round_up(wanted, topology.divisors)
        yield patch, topology
        shrinkable = [axis for axis in range(3) if patch[axis] - topology.divisors[axis] >= MIN_PATCH]
        if not shrinkable:
            return
        widest = max(shrinkable, key=lambda axis: (patch[axis] / geometry.median_shape[axis], patch[axis]))
        x, y, z = (patch[axis] - topology.divisors[axis] if axis == widest else wanted[axis] for axis in range(3))
        wanted = (x, y, z)


def _preferred_patch(geometry: PlannedGrid) -> Size:
    inverse = 1 / np.array(geometry.spacing_mm)
    cube = np.rint(inverse * (START_VOXELS / inverse.prod()) ** (1 / 3))
    context = np.maximum(MIN_CONTEXT, np.ceil(np.array(geometry.extent) * EXTENT_MARGIN))
    preferred = np.maximum(1, np.minimum(np.minimum(cube, geometry.median_shape), context))
    if preferred.max() < MIN_EDGE:
        # Halved once, so small a patch would leave a single voxel, which has no variance to normalise by.
        preferred[int(np.argmax(preferred))] = MIN_EDGE
    return _size(preferred)


def _pooling_limits(geometry: PlannedGrid) -> Size:
    """Returns the length per axis that pooling may use up: of the thinnest volume along the thick axis, else any."""
    big = 2**31
    x, y, z = (geometry.min_shape[axis] if axis == geometry.thick_axis else big for axis in range(3))
    return x, y, z


def _thick_axis(spacing: npt.NDArray[np.float64], shape: npt.NDArray[np.float64]) -> int | None:
    axis = int(np.argmax(spacing))
    coarse = spacing[axis] > ANISOTROPY * np.delete(spacing, axis).max()
    few = shape[axis] * ANISOTROPY < np.delete(shape, axis).min()
    return axis if coarse and few else None


def _size(values: npt.NDArray[np.float64]) -> Size:
    x, y, z = (int(value) for value in np.ceil(values))
    return x, y, z


def _triple(values: npt.NDArray[np.float64]) -> Triple:
    x, y, z = (round(float(value), 6) for value in values)
    return x, y, z


FIRST_CHANNELS = 16
MAX_CHANNELS = 128
DECODER = BottleneckConfig(ratio=1.0, norm=True, activation="leaky_relu")  # as docs/results/bottleneck recommends
PLANNED_PRECISION: Precision = "fp32"  # what every machine has; bf16 takes less
TRAINING_SHARE = 0.8
EPOCHS = 26
MIN_STEPS, MAX_STEPS = 1_000, 25_000
VALIDATIONS = 5
EMA_SHARE = 0.05
IN_PLANE_ROTATION_DEG = 30.0
FOREGROUND_FRACTION = 0.5
REPEAT = re.compile(r"^(.+?)[_-](?:frame|phase|time|timepoint|tp|visit|session|ses|scan)[_-]?\d+$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class PlannedExperiment:
    """A planned experiment and what it rests on: grid, strides and kernels, and the estimate of a training step."""

    config: ExperimentConfig
    geometry: PlannedGrid
    topology: Topology
    cost: Cost


def plan_experiment(fingerprint: Fingerprint, data: DataConfig, *, name: str, memory_gib: float) -> PlannedExperiment:
    """Plans an experiment on a data set.

    Args:
        fingerprint: The data set's.
        data: Where the data set is and how it splits; its spacing and normalisation are replaced.
        name: Name of the experiment.
        memory_gib: Memory that the training process may take, in GiB, in fp32.

    Raises:
        ConfigError: Not even two patches of the smallest size fit the memory.
        DataError: A CT channel has one intensity throughout the foreground.
    """
    geometry = plan_grid(fingerprint)
    classes = len(fingerprint.class_names) + 1

    def cost_of(patch: Size, batch: int, topology: Topology) -> Cost:
        return step_cost(plan_network(topology), patch, batch, len(fingerprint.channels), classes)

    sampling = plan_sampling(geometry, memory_gib, lambda *step: cost_of(*step).memory_gib(PLANNED_PRECISION))
    if sampling is None:
        rule = f"must hold a training step on {MIN_BATCH} patches of the smallest size"
        raise ConfigError(Problem("memory_gib", "range", rule, f"{memory_gib:g}", "allow more memory"))
    patch, batch, topology = sampling
    steps = plan_steps(len(fingerprint.case_ids), batch)
    config = ExperimentConfig(
        name=name,
        data=_plan_data(data, fingerprint, geometry),
        patches=PatchConfig(size=patch, batch=batch, foreground_fraction=FOREGROUND_FRACTION),
        augmentation=AugmentationConfig(spatial=_plan_spatial(geometry)),
        network=plan_network(topology),
        optimizer=OptimizerConfig(
            name="muon", momentum=0.95, learning_rate=0.004, weight_decay=0.3, warmup_steps=steps // 20
        ),
        training=TrainingConfig(
            steps=steps, validate_every=steps // VALIDATIONS, ema_decay=round(1 - 1 / (EMA_SHARE * steps), 4)
        ),
    )
    return PlannedExperiment(config=config, geometry=geometry, topology=topology, cost=cost_of(patch, batch, topology))


def plan_network(topology: Topology) -> NetworkConfig:
    """Returns the network: 16 channels doubling per stage up to 128, and one 3x3 between two 1x1 in decoder stages.

    Deep supervision costs little and lets networks of many stages learn from the first steps on.
    """
    channels = tuple(min(MAX_CHANNELS, FIRST_CHANNELS * 2**level) for level in range(len(topology.strides)))
    return NetworkConfig(
        channels=channels,
        strides=topology.strides,
        kernel_sizes=topology.kernel_sizes,
        decoder_bottleneck=DECODER,
        upsample="linear",
        deep_supervision=len(channels) > 2,
    )


def plan_steps(cases: int, batch: int) -> int:
    """Returns the optimiser steps: 26 passes over 4/5 of the cases, 1,000 to 25,000, a multiple of 100."""
    wanted = EPOCHS * cases * TRAINING_SHARE / batch
    return min(MAX_STEPS, max(MIN_STEPS, round(wanted / 100) * 100))


def detect_patient_pattern(case_ids: Sequence[str]) -> str | None:
    """Finds out whether case ids end in a frame, phase, time point, visit, session or scan of a patient.

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
    bare = re.sub(r"^(?:Task|Dataset)\d+_", "", real_path(root).name)
    return re.sub(r"[^a-z0-9_-]+", "_", bare.lower()).strip("_") or "experiment"


def _plan_data(data: DataConfig, fingerprint: Fingerprint, geometry: PlannedGrid) -> DataConfig:
    # As nnU-Net reads the names of channels: CT is calibrated, noNorm asks for none, all else is standardised.
    known: dict[str, Literal["zscore", "ct", "none"]] = {"ct": "ct", "nonorm": "none"}
    normalization = tuple(known.get(channel.strip().casefold(), "zscore") for channel in fingerprint.channels)
    return replace(
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
            rule = "must have foreground intensities that differ, to give a CT window"
            remedy = "look at the images, or name the channel otherwise to standardise it"
            raise DataError(Problem(f"channel {name}", "constant", rule, f"{channel.p00_5:g} throughout", remedy))
        windows.append(channel if kind == "ct" else unused)
    return CtConfig(
        lower=tuple(window.p00_5 for window in windows),
        upper=tuple(window.p99_5 for window in windows),
        mean=tuple(window.mean for window in windows),
        std=tuple(window.std for window in windows),
    )


def _plan_spatial(geometry: PlannedGrid) -> SpatialConfig:
    """Turns, zooms and displaces within the slices alone where an axis is thick, never interpolating across them."""
    if geometry.thick_axis is None:
        return SpatialConfig()
    x, y, z = (IN_PLANE_ROTATION_DEG if axis == geometry.thick_axis else 0.0 for axis in range(3))
    in_plane = tuple(axis for axis in range(3) if axis != geometry.thick_axis)
    return SpatialConfig(rotation_deg=(x, y, z), scale_axes=in_plane, elastic_axes=in_plane)
