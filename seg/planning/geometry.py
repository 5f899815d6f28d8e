"""Target spacing, patch size and batch size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from seg.data.fingerprint import Fingerprint
from seg.planning.topology import MIN_EDGE, Size, Topology, Triple, plan_topology, round_up

ANISOTROPY = 3.0
THICK_PERCENTILE = 10.0
SPACING_TOLERANCE = 1e-3
START_VOXELS = 256**3
EXTENT_PERCENTILE = 95.0
EXTENT_MARGIN = 1.5
MIN_BATCH = 2
MIN_PATCH = 16
MAX_SHARE = 0.05
STEP_VOXELS_PER_GIB = 2**16


@dataclass(frozen=True, kw_only=True)
class Geometry:
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


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Size of training patches and of the network that takes them.

    Attributes:
        patch: Patch size in voxels, divided by the topology's divisors.
        batch: Patches per step, >= 2.
        topology: Strides and kernels.
    """

    patch: Size
    batch: int
    topology: Topology


def plan_geometry(fingerprint: Fingerprint) -> Geometry:
    """Chooses the target spacing: per axis the median, or its 10th percentile along a thick axis.

    Args:
        fingerprint: The data set's.

    Returns:
        The grid, and the cases' shapes on it.

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
    return Geometry(
        resampled=resampled,
        spacing_mm=_triple(target),
        median_shape=_size(np.median(on_grid, axis=0)),
        min_shape=_size(on_grid.min(axis=0)),
        extent=_size(np.maximum(1, np.percentile(extents, EXTENT_PERCENTILE, axis=0))),
        thick_axis=thick,
        total_voxels=float(on_grid.prod(axis=1).sum()),
    )


def plan_sampling(
    geometry: Geometry, memory_gib: float, memory_of: Callable[[Size, int, Topology], float]
) -> Sampling | None:
    """Chooses the largest patch of the preferred shape whose step fits the memory, then the batch.

    The preferred patch has the same length in mm along every axis, at most the median shape, and at most one and a
    half times the foreground's extent. It loses one divisor at a time along the axis that is longest against the
    median shape, until two patches fit; no edge is cut below 16 voxels. The batch then grows while it fits, sees no
    more than 5 % of all voxels, and keeps to 65,536 voxels a step for each GiB of the budget.

    Args:
        geometry: The grid.
        memory_gib: Budget of the training process, in GiB.
        memory_of: Estimated memory in GiB for a patch, a batch and a topology.

    Returns:
        Patch, batch and topology, or null where even the smallest patch does not fit.
    """
    for patch, topology in _patches(geometry):
        if memory_of(patch, MIN_BATCH, topology) <= memory_gib:
            cap = min(geometry.total_voxels * MAX_SHARE, memory_gib * STEP_VOXELS_PER_GIB) / prod(patch)
            batch = MIN_BATCH
            while batch + 1 <= cap and memory_of(patch, batch + 1, topology) <= memory_gib:
                batch += 1
            return Sampling(patch=patch, batch=batch, topology=topology)
    return None


def _patches(geometry: Geometry) -> Iterator[tuple[Size, Topology]]:
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


def _preferred_patch(geometry: Geometry) -> Size:
    inverse = 1 / np.array(geometry.spacing_mm)
    cube = np.rint(inverse * (START_VOXELS / inverse.prod()) ** (1 / 3))
    context = np.ceil(np.array(geometry.extent) * EXTENT_MARGIN)
    preferred = np.maximum(1, np.minimum(np.minimum(cube, geometry.median_shape), context))
    if preferred.max() < MIN_EDGE:
        # Halved once, so small a patch would leave a single voxel, which has no variance to normalise by.
        preferred[int(np.argmax(preferred))] = MIN_EDGE
    return _size(preferred)


def _pooling_limits(geometry: Geometry) -> Size:
    """The thick axis is pooled only as far as its thinnest volume bears; the others as the patch does."""
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
