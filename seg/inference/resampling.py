"""Scores on the network's grid become scores on the image's grid, block by block."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from seg.data.prepare import UNCHANGED, Step, neighbours
from seg.inference.arrays import Array, between
from seg.inference.windows import Cuts, Triple

BLOCK_BYTES = 1 << 26
"""Resampled scores are made in blocks of about this size."""


@dataclass(frozen=True, eq=False)
class Tile:
    """A block of the target and the block of the source that it is interpolated from."""

    target: tuple[slice, slice, slice]
    source: tuple[slice, slice, slice]


class Resampling:
    """Trilinear interpolation between grids that begin at the same voxel and run in the same directions.

    Beyond the source its outermost voxels continue.

    Args:
        source_shape: Shape (X, Y, Z) of the source.
        target_shape: Shape of the target.
        step: Voxels of the target that a voxel of the source spans, along each axis.

    Attributes:
        same: Whether both grids are one.
    """

    def __init__(self, source_shape: Triple, target_shape: Triple, step: Step) -> None:
        self.source_shape, self.target_shape = source_shape, target_shape
        self.same = source_shape == target_shape and step == UNCHANGED
        self._step = step
        self._neighbours = [neighbours(1 / step[axis], target_shape[axis], source_shape[axis]) for axis in range(3)]

    def tiles(self, cuts: Cuts) -> list[Tile]:
        """Divides the target so that a tile needs no cell of the source behind its own.

        Args:
            cuts: Where cells of the source begin and end.

        Returns:
            Tiles that together are the target.
        """
        divisions = []
        for axis, (_, upper, _) in enumerate(self._neighbours):
            inner = np.searchsorted(upper, cuts[axis][1:-1])
            divisions.append(sorted({0, self.target_shape[axis], *(int(index) for index in inner)}))
        tiles = []
        for x, y, z in itertools.product(*(itertools.pairwise(division) for division in divisions)):
            target = (slice(*x), slice(*y), slice(*z))
            tiles.append(Tile(target, self._source(target)))
        return tiles

    def _source(self, target: tuple[slice, slice, slice]) -> tuple[slice, slice, slice]:
        x, y, z = (
            slice(int(low[part.start]), int(high[part.stop - 1]) + 1)
            for (low, high, _), part in zip(self._neighbours, target, strict=True)
        )
        return x, y, z

    def blocks(self, tile: Tile, scores: Array) -> list[Tile]:
        """Divides a tile along X so that the scores of a block have a bounded size."""
        x, y, z = tile.target
        row = 4 * len(scores) * (y.stop - y.start) * (z.stop - z.start)
        rows = max(1, BLOCK_BYTES // row)
        targets = [(slice(first, min(first + rows, x.stop)), y, z) for first in range(x.start, x.stop, rows)]
        return [Tile(target, self._source(target)) for target in targets]

    def interpolate(self, tile: Tile, scores: Array) -> Array:
        """Interpolates a block of the target.

        Args:
            tile: The block.
            scores: Scores (K, x, y, z) of the tile's source.

        Returns:
            Scores f32 (K, x, y, z) of the tile's target.
        """
        # Axes that lose voxels come first: the later ones have less to do.
        for axis in sorted(range(3), key=lambda axis: self._step[axis]):
            part, first = tile.target[axis], tile.source[axis].start
            low, high, share = (values[part] for values in self._neighbours[axis])
            scores = between(scores, axis + 1, low - first, high - first, share)
        return scores
