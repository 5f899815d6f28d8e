"""From an image in memory to the network's input, equal to what training prepares, without MONAI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seg.config import DataConfig
from seg.data.images import Image
from seg.data.memory import check_memory
from seg.data.normalization import normalize
from seg.inference.grid import Grid, Prepared
from seg.inference.resampling import Resampling

Affine = npt.NDArray[Any]
SAME_MM = 1e-3
"""Voxel sizes that differ by less are one."""


def prepare(image: Image, config: DataConfig) -> Prepared:
    """Resamples and normalises an image as training does.

    Args:
        image: The image, whose voxels are changed or handed on: it is of no further use.
        config: Spacing and normalisation.

    Returns:
        The network's input, with the image's own grid as target.

    Raises:
        DataError: The resampled image does not fit in memory.
    """
    tensor, affine = torch.from_numpy(image.array), image.affine
    if config.spacing_mm is not None:
        tensor, affine = resample(tensor, affine, config.spacing_mm)
    normalize(tensor, config.normalization, config.ct)
    return Prepared(tensor, affine, Grid(image.geometry.shape, image.geometry.affine))


def resample(image: Tensor, affine: Affine, spacing_mm: Sequence[float]) -> tuple[Tensor, Affine]:
    """Interpolates an image trilinearly at other voxel sizes; beyond its outermost voxels these continue.

    Args:
        image: Volume f32 (C, X, Y, Z).
        affine: Its affine, in mm.
        spacing_mm: Voxel sizes (X, Y, Z), in mm.

    Returns:
        The resampled volume and its affine.

    Raises:
        DataError: The resampled image does not fit in memory.
    """
    x, y, z = image.shape[1:]
    shape, target = resampled_grid((x, y, z), affine, spacing_mm)
    resampling = Resampling((x, y, z), affine, shape, target)
    if resampling.same:
        return image, target
    spacing = " x ".join(f"{size:g}" for size in spacing_mm)
    voxels = int(np.prod(np.array((len(image), *shape), dtype=object)))
    check_memory(f"image of shape {shape} at the network's {spacing} mm", 4 * voxels)
    resampled = torch.empty((len(image), *shape), dtype=torch.float32)
    for tile in resampling.tiles(([0, x], [0, y], [0, z])):
        for block in resampling.blocks(tile, image):
            resampled[(slice(None), *block.target)] = resampling.interpolate(block, image[(slice(None), *block.source)])
    return resampled, target


def resampled_grid(
    shape: tuple[int, int, int], affine: Affine, spacing_mm: Sequence[float]
) -> tuple[tuple[int, int, int], Affine]:
    """Lays the grid of other voxel sizes over an image: it begins at the same voxel centre, and shears are taken out.

    Args:
        shape: Shape (X, Y, Z) of the image.
        affine: Its affine, in mm.
        spacing_mm: Voxel sizes wanted; the image's own are kept where they differ by less than a micron.

    Returns:
        Shape and affine.
    """
    linear = np.asarray(affine, dtype=np.float64)[:3, :3]
    own = np.linalg.norm(linear, axis=0)
    wanted = np.where(np.abs(own - spacing_mm) <= SAME_MM, own, spacing_mm)
    # R = Q U with orthogonal Q: the rotation without zooms and shears.
    upper = np.linalg.cholesky(linear.T @ linear).T
    target = np.eye(4)
    target[:3, :3] = linear @ np.linalg.inv(upper) * wanted
    ends = [(0.0, size - 1.0) for size in shape]
    corners = np.stack(np.meshgrid(*ends, indexing="ij")).reshape(3, -1)
    world = linear @ corners + affine[:3, 3:]
    places = np.linalg.solve(target[:3, :3], world)
    x, y, z = (int(size) for size in np.round(np.ptp(places, axis=1) + 1))
    first = [index for index in range(corners.shape[1]) if np.allclose(places[:, index], places.min(axis=1))]
    if first:
        target[:3, 3] = world[:, first[0]]
    else:  # a sheared image has no first corner: both volumes share their centre
        target[:3, 3] = linear @ np.divide(shape, 2) + affine[:3, 3] - target[:3, :3] @ np.divide((x, y, z), 2)
    return (x, y, z), target
