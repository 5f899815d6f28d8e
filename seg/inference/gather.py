"""Finished cells become labels as soon as what they are interpolated from is complete."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from seg.inference.cells import Cuts, cell_box, cells_within
from seg.inference.resampling import Resampling, Tile
from seg.inference.target import LabelMap
from seg.inference.windows import Triple


def thin_cuts(cuts: Cuts, axis: int) -> Cuts:
    """Cuts one voxel off the end of each cell along an axis.

    Interpolation needs the last row of a cell once more when the next cell is complete; cut off, it stays alone.
    """
    edges = sorted({*cuts[axis], *(edge - 1 for edge in cuts[axis][1:])})
    x, y, z = (edges if own == axis else cuts[own] for own in range(3))
    return x, y, z


class Gather:
    """Cells that wait until a block of labels can be interpolated from them.

    Args:
        resampling: From the grid of the cells to the grid of the labels.
        cuts: Where cells begin and end.
        tiles: Blocks of the target.
        labels: Where they are written.
    """

    def __init__(self, resampling: Resampling, cuts: Cuts, tiles: Sequence[Tile], labels: LabelMap) -> None:
        self._resampling = resampling
        self._cuts = cuts
        self._labels = labels
        self._held: dict[Triple, Tensor] = {}
        self._needs: dict[Tile, list[Triple]] = {}
        self._tiles: defaultdict[Triple, list[Tile]] = defaultdict(list)
        for tile in tiles:
            self._needs[tile] = cells_within(cuts, tile.source)
            for cell in self._needs[tile]:
                self._tiles[cell].append(tile)
        self._missing = {tile: len(needs) for tile, needs in self._needs.items()}
        self._uses = Counter(itertools.chain(*self._needs.values()))

    @property
    def held_bytes(self) -> int:
        """Size of the cells that wait."""
        return sum(4 * scores.numel() for scores in self._held.values())

    def take(self, cell: Triple, scores: Tensor) -> None:
        """Takes the scores (K, x, y, z) of a finished cell and writes every block that it completes."""
        if self._resampling.same:
            x, y, z = (part.start for part in cell_box(self._cuts, cell))
            self._labels.write((x, y, z), scores)
            return
        if cell in self._uses:
            self._held[cell] = scores
        for tile in self._tiles[cell]:
            self._missing[tile] -= 1
            if self._missing[tile] == 0:
                self._write(tile)

    def _write(self, tile: Tile) -> None:
        source = self._collect(tile)
        for block in self._resampling.blocks(tile, source):
            part = tuple(
                slice(own.start - whole.start, own.stop - whole.start)
                for own, whole in zip(block.source, tile.source, strict=True)
            )
            x, y, z = (axis.start for axis in block.target)
            self._labels.write((x, y, z), self._resampling.interpolate(block, source[(slice(None), *part)]))
        for cell in self._needs[tile]:
            self._uses[cell] -= 1
            if self._uses[cell] == 0:
                del self._held[cell]

    def _collect(self, tile: Tile) -> Tensor:
        """Joins the parts of cells that make up a tile's source."""
        first = self._held[self._needs[tile][0]]
        size = [part.stop - part.start for part in tile.source]
        source = torch.empty((len(first), *size), dtype=first.dtype, device=first.device)
        for cell in self._needs[tile]:
            box = cell_box(self._cuts, cell)
            common = [slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(box, tile.source, strict=True)]
            into = tuple(slice(c.start - s.start, c.stop - s.start) for c, s in zip(common, tile.source, strict=True))
            out = tuple(slice(c.start - b.start, c.stop - b.start) for c, b in zip(common, box, strict=True))
            source[(slice(None), *into)] = self._held[cell][(slice(None), *out)]
        return source
