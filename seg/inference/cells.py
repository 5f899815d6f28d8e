"""Sums of overlapping windows, kept only where a further window may still add to them.

The volume is cut along every edge of a window into cells, so that a window covers a cell wholly or not at all. A cell
counts the windows that are to come; the last one finishes it, and it is handed on and forgotten. What is held at any
time is the front of the sweep: about (window - stride) rows of the volume, whatever its length.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from seg.inference.windows import Triple, Windows

Cuts = tuple[list[int], list[int], list[int]]


def cell_cuts(plans: Sequence[Windows]) -> Cuts:
    """Returns the coordinates, per axis, of all edges of windows: cells lie between them."""
    x, y, z = (sorted({edge for plan in plans for edge in plan.edges(axis)}) for axis in range(3))
    return x, y, z


def cells_within(cuts: Cuts, box: Sequence[slice]) -> list[Triple]:
    """Lists the cells that share a voxel with a box."""
    ranges = [
        range(bisect.bisect_right(edges, part.start) - 1, bisect.bisect_left(edges, part.stop))
        for edges, part in zip(cuts, box, strict=True)
    ]
    return [(i, j, k) for i, j, k in itertools.product(*ranges)]


def cell_box(cuts: Cuts, cell: Triple) -> tuple[slice, slice, slice]:
    """Returns the voxels of a cell."""
    x, y, z = (slice(edges[i], edges[i + 1]) for edges, i in zip(cuts, cell, strict=True))
    return x, y, z


@dataclass
class _Sum:
    """Weighted logits (K, x, y, z) of a cell by one model, and the sum of weights; no weights after one window."""

    logits: Tensor
    weights: Tensor | None

    def mean(self) -> Tensor:
        return self.logits if self.weights is None else self.logits.div_(self.weights)


@dataclass
class _Cell:
    left: int
    sums: dict[int, _Sum] = field(default_factory=dict)


class Front:
    """The cells that have met a window and wait for another.

    Args:
        plans: Windows of each model over the volume.
        weights: Blending weights of each model's windows, on the device of the sums.
        cuts: Where cells begin and end: every edge of a window and any further coordinates; or the ends of the volume
            alone, to hold all of it.

    Attributes:
        held_bytes: Size of the sums that are held.
        most_bytes: Largest size so far.
    """

    def __init__(self, plans: Sequence[Windows], weights: Sequence[Tensor], cuts: Cuts) -> None:
        self.plans = plans
        self.weights = weights
        self.cuts = cuts
        self.held_bytes = 0
        self.most_bytes = 0
        self._cells: dict[Triple, _Cell] = {}
        self._counts = [
            [[plan.covering(axis, span) for span in itertools.pairwise(cuts[axis])] for axis in range(3)]
            for plan in plans
        ]

    def add(self, model: int, start: Triple, logits: Tensor) -> list[tuple[Triple, Tensor]]:
        """Adds the logits of a window.

        Args:
            model: Which model they are of.
            start: Where the window begins.
            logits: Logits (K, x, y, z) of the window's size, on the device of the weights.

        Returns:
            The cells that are finished by this window, each with its scores (K, x, y, z): logits of a single model,
            probabilities averaged over several.
        """
        window, finished = self.plans[model].inside(start), []
        for key in cells_within(self.cuts, window):
            cell = self._cells.get(key) or self._cells.setdefault(key, _Cell(self._expected(key)))
            self._add_to(cell, key, model, start, logits)
            cell.left -= 1
            if cell.left == 0:
                del self._cells[key]
                finished.append((key, self._finish(cell)))
        return finished

    def _expected(self, key: Triple) -> int:
        return sum(self._expected_of(model, key) for model in range(len(self.plans)))

    def _expected_of(self, model: int, key: Triple) -> int:
        return math.prod(counts[i] for counts, i in zip(self._counts[model], key, strict=True))

    def _add_to(self, cell: _Cell, key: Triple, model: int, start: Triple, logits: Tensor) -> None:
        box = cell_box(self.cuts, key)
        # Only where the whole volume is one cell does a window cover a part of it.
        common = [
            slice(max(b.start, i.start), min(b.stop, i.stop))
            for b, i in zip(box, self.plans[model].inside(start), strict=True)
        ]
        shape = tuple(b.stop - b.start for b in box)
        part = logits[(slice(None), *_moved(common, start))]
        weights = self.weights[model][_moved(common, start)]
        covers = tuple(part.shape[1:]) == shape
        known = cell.sums.get(model)
        if known is None and covers:
            # Class by class in memory, and no view that would keep the window alive.
            first = torch.empty(part.shape, dtype=part.dtype, device=part.device)
            if self._expected_of(model, key) == 1:
                cell.sums[model] = _Sum(first.copy_(part), None)
            else:
                cell.sums[model] = _Sum(torch.mul(part, weights, out=first), weights.clone())
            self._hold(cell.sums[model], 1)
            return
        if known is None:
            known = cell.sums[model] = _Sum(part.new_zeros((len(part), *shape)), weights.new_zeros(shape))
            self._hold(known, 1)
        assert known.weights is not None  # more than one window was counted
        inside = _moved(common, [b.start for b in box])
        known.logits[(slice(None), *inside)].addcmul_(part, weights)
        known.weights[inside] += weights

    def _hold(self, part: _Sum, sign: int) -> None:
        self.held_bytes += sign * 4 * (part.logits.numel() + (0 if part.weights is None else part.weights.numel()))
        self.most_bytes = max(self.most_bytes, self.held_bytes)

    def _finish(self, cell: _Cell) -> Tensor:
        for part in cell.sums.values():
            self._hold(part, -1)
        first, *others = cell.sums.values()
        if not others:
            return first.mean()
        # One model after the other, in the order of models whatever the order of windows.
        total = torch.zeros_like(first.logits)
        for _, part in sorted(cell.sums.items()):
            total += part.mean().softmax(0)
        return total / len(cell.sums)


def _moved(box: Sequence[slice], origin: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(part.start - o, part.stop - o) for part, o in zip(box, origin, strict=True))
