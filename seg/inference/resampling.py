"""Scores on the network's grid become scores on the image's grid, block by block."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from seg.inference.windows import Cuts, Triple

SAME_VOXELS = 1e-3
"""Grids of equal shape are one grid where no voxel lies further from its place in the other, in voxels."""
STRAIGHT_VOXELS = 1e-4
"""Axes of two grids are parallel where they part by less than this over the whole volume."""
BLOCK_BYTES = 1 << 26
"""Resampled scores are made in blocks of about this size."""
PLACE_BYTES = 100
"""Memory for each voxel of a block whose place in the source is computed by itself, as measured: triples of f64."""


@dataclass(frozen=True, eq=False)
class Tile:
    """A block of the target and the block of the source that it is interpolated from."""

    target: tuple[slice, slice, slice]
    source: tuple[slice, slice, slice]


class Resampling:
    """Trilinear interpolation from one RAS grid to another; beyond the source its outermost voxels continue.

    Args:
        source_shape: Shape (X, Y, Z) of the source.
        source_affine: Its affine, in mm.
        target_shape: Shape of the target.
        target_affine: Its affine, in mm.

    Attributes:
        matrix: Matrix (4, 4) from voxel indices of the target to those of the source.
        straight: Whether axes of both grids are parallel, so that each axis is interpolated by itself.
        same: Whether both grids are one.
    """

    def __init__(
        self,
        source_shape: Triple,
        source_affine: npt.NDArray[Any],
        target_shape: Triple,
        target_affine: npt.NDArray[Any],
    ) -> None:
        self.source_shape, self.target_shape = source_shape, target_shape
        source, target = (np.asarray(affine, np.float64) for affine in (source_affine, target_affine))
        # From one first voxel to the other: how far both lie from the origin of the scanner plays no part.
        self.matrix = np.eye(4)
        self.matrix[:3, :3] = np.linalg.solve(source[:3, :3], target[:3, :3])
        self.matrix[:3, 3] = np.linalg.solve(source[:3, :3], target[:3, 3] - source[:3, 3])
        linear = self.matrix[:3, :3]
        crooked = np.abs(linear - np.diag(np.diag(linear))) @ np.asarray(target_shape)
        self.straight = bool((crooked < STRAIGHT_VOXELS).all() and (np.diag(linear) > 0).all())
        moved = np.abs(self.matrix - np.eye(4))[:3] @ [*target_shape, 1]
        self.same = source_shape == target_shape and bool((moved < SAME_VOXELS).all())

    def tiles(self, cuts: Cuts) -> list[Tile]:
        """Divides the target so that a tile needs few cells of the source.

        Args:
            cuts: Where cells of the source begin and end.

        Returns:
            Tiles that together are the target. Where grids are parallel, a tile needs no cell behind its own.
        """
        divisions = [self._division(axis, cuts[axis]) for axis in range(3)]
        tiles = []
        for x, y, z in itertools.product(*(itertools.pairwise(division) for division in divisions)):
            target = (slice(*x), slice(*y), slice(*z))
            tiles.append(Tile(target, self._source(target)))
        return tiles

    def _division(self, axis: int, cuts: list[int]) -> list[int]:
        # The largest source index that a target index needs; where grids are not parallel, a guess that only
        # decides on the size of tiles.
        _, _, upper = self._neighbours(axis)
        inner = np.searchsorted(np.maximum.accumulate(upper), cuts[1:-1])
        return sorted({0, self.target_shape[axis], *(int(index) for index in inner)})

    def _neighbours(self, axis: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
        """Source coordinate of each target index along an axis, and the two indices that it lies between."""
        last = self.source_shape[axis] - 1
        places = np.clip(self._places(axis), 0, last)
        low = np.floor(places).astype(np.int64)
        return places, low, np.minimum(low + 1, last)

    def _places(self, axis: int) -> npt.NDArray[Any]:
        # Through the middle of the other axes, on which the coordinate depends unless grids are parallel.
        others = [other for other in range(3) if other != axis]
        offset = self.matrix[axis, 3]
        if not self.straight:
            offset += sum(self.matrix[axis, other] * (self.target_shape[other] - 1) / 2 for other in others)
        places: npt.NDArray[Any] = self.matrix[axis, axis] * np.arange(self.target_shape[axis]) + offset
        return places

    def _source(self, target: tuple[slice, slice, slice]) -> tuple[slice, slice, slice]:
        if self.straight:
            ends = [self._neighbours(axis) for axis in range(3)]
            x, y, z = (
                slice(int(low[part.start]), int(high[part.stop - 1]) + 1)
                for (_, low, high), part in zip(ends, target, strict=True)
            )
            return x, y, z
        corners = np.array(list(itertools.product(*((part.start, part.stop - 1) for part in target))))
        places = corners @ self.matrix[:3, :3].T + self.matrix[:3, 3]
        last = np.asarray(self.source_shape) - 1
        first = np.floor(np.clip(places.min(0), 0, last)).astype(int)
        final = np.minimum(np.floor(np.clip(places.max(0), 0, last)).astype(int) + 1, last)
        x, y, z = (slice(int(a), int(b) + 1) for a, b in zip(first, final, strict=True))
        return x, y, z

    def blocks(self, tile: Tile, scores: Tensor) -> list[Tile]:
        """Divides a tile along X so that the scores of a block have a bounded size."""
        x, y, z = tile.target
        per_voxel = 4 * len(scores) + (0 if self.straight else PLACE_BYTES)
        row = per_voxel * (y.stop - y.start) * (z.stop - z.start)
        step = max(1, BLOCK_BYTES // row)
        targets = [(slice(a, min(a + step, x.stop)), y, z) for a in range(x.start, x.stop, step)]
        return [Tile(target, self._source(target)) for target in targets]

    def interpolate(self, tile: Tile, scores: Tensor) -> Tensor:
        """Interpolates a block of the target.

        Args:
            tile: The block.
            scores: Scores (K, x, y, z) of the tile's source.

        Returns:
            Scores f32 (K, x, y, z) of the tile's target.
        """
        return self._along_axes(tile, scores) if self.straight else self._sample(tile, scores)

    def _along_axes(self, tile: Tile, scores: Tensor) -> Tensor:
        # Axes that lose voxels come first: the later ones have less to do.
        for axis in sorted(range(3), key=lambda axis: -self.matrix[axis, axis]):
            part = tile.target[axis]
            places, low, high = (values[part] for values in self._neighbours(axis))
            first = tile.source[axis].start
            shape = [1] * 4
            shape[axis + 1] = -1
            share = torch.as_tensor(places - low, dtype=scores.dtype, device=scores.device).view(shape)
            indices = [torch.as_tensor(index - first, device=scores.device) for index in (low, high)]
            near, far = (scores.index_select(axis + 1, index) for index in indices)
            scores = near.lerp_(far, share)
        return scores

    def _sample(self, tile: Tile, scores: Tensor) -> Tensor:
        shape = [part.stop - part.start for part in tile.target]
        axes = [torch.arange(part.start, part.stop, dtype=torch.float64) for part in tile.target]
        indices = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).to(scores.device)
        matrix = torch.as_tensor(self.matrix, device=scores.device)
        places = indices @ matrix[:3, :3].T + matrix[:3, 3]
        # grid_sample counts axes from the last, in [-1, 1] from edge to edge of the block.
        low = torch.tensor([part.start for part in tile.source], device=scores.device)
        size = torch.tensor([part.stop - part.start for part in tile.source], device=scores.device)
        last = torch.tensor(self.source_shape, device=scores.device) - 1
        places = places.clamp_min(0).minimum(last.double()) - low
        grid = ((2 * places + 1) / size - 1).flip(-1)[None]
        resampled = torch.empty((len(scores), *shape), dtype=torch.float32, device=scores.device)
        for index, single in enumerate(scores):
            resampled[index] = nn.functional.grid_sample(
                single.double()[None, None], grid, mode="bilinear", padding_mode="border", align_corners=False
            )[0, 0]
        return resampled
