"""Where windows lie in a volume, how they are blended, and in which order they are visited."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from seg.config import InferenceConfig

Network = Callable[[Tensor], Tensor]
Triple = tuple[int, int, int]
SIGMA = 0.125
"""Standard deviation of the Gaussian, as a share of the window's edge."""
FLOOR = 1e-3
"""Least weight of a voxel, so that no sum is divided by next to nothing."""


def window_starts(size: int, window: int, overlap: float) -> list[int]:
    """Lists where windows begin along an axis.

    Args:
        size: Length of the axis in voxels.
        window: Length of a window in voxels.
        overlap: Share of a window that its neighbour covers again, in [0, 1).

    Returns:
        Ascending starts. The last window ends with the axis; a window longer than the axis begins before it, at a
        start <= 0 that centres the axis.
    """
    if window >= size:
        return [-((window - size) // 2)]
    step = max(int(window * (1 - overlap)), 1)
    return [*range(0, size - window, step), size - window]


def blend_weights(window: Triple, blend: str) -> Tensor:
    """Weighs the voxels of a window.

    Args:
        window: Window size (X, Y, Z).
        blend: ``gaussian`` about the centre, or ``constant``.

    Returns:
        Weights f32 of the window's shape, in [1e-3, 1].

    References:
        F. Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical image
        segmentation", 2021, doi:10.1038/s41592-020-01008-z. As there, sigma is 1/8 of the edge.
    """
    if blend == "constant":
        return torch.ones(window)
    profiles = []
    for edge in window:
        place = torch.arange(edge) - (edge - 1) / 2
        profiles.append(torch.exp(place**2 / (-2 * (SIGMA * edge) ** 2)))
    x, y, z = profiles
    weights = x[:, None, None] * y[:, None] * z
    return weights.clamp_min(max(float(weights.min()), FLOOR))


@dataclass(frozen=True)
class Windows:
    """The windows over one volume: every combination of starts along the axes.

    Attributes:
        shape: Shape (X, Y, Z) of the volume.
        size: Size of a window.
        starts: Starts along each axis.
    """

    shape: Triple
    size: Triple
    starts: tuple[list[int], list[int], list[int]]

    @classmethod
    def over(cls, shape: Sequence[int], size: Sequence[int], overlap: float) -> Windows:
        """Lays windows over a volume."""
        x, y, z = (window_starts(n, w, overlap) for n, w in zip(shape, size, strict=True))
        return cls(cast(Triple, tuple(shape)), cast(Triple, tuple(size)), (x, y, z))

    def crop(self, image: Tensor, start: Triple) -> Tensor:
        """Returns a window of an image (..., X, Y, Z), with zeros where it reaches beyond."""
        inside = image[(..., *self.inside(start))]
        padding = [
            pad for s, w, n in zip(start, self.size, self.shape, strict=True) for pad in (max(-s, 0), max(s + w - n, 0))
        ]
        # torch names padding from the last axis on, each with its near side first.
        pairs = [padding[0:2], padding[2:4], padding[4:6]]
        return nn.functional.pad(inside, [*pairs[2], *pairs[1], *pairs[0]]) if any(padding) else inside

    def inside(self, start: Triple) -> tuple[slice, slice, slice]:
        """Returns the part of the volume that a window covers."""
        x, y, z = (slice(max(s, 0), min(s + w, n)) for s, w, n in zip(start, self.size, self.shape, strict=True))
        return x, y, z

    def own(self, start: Triple) -> tuple[slice, slice, slice]:
        """Returns that same part in the window's own coordinates."""
        x, y, z = (slice(i.start - s, i.stop - s) for i, s in zip(self.inside(start), start, strict=True))
        return x, y, z

    def edges(self, axis: int) -> list[int]:
        """Returns where windows begin and end along an axis, ends of the volume included."""
        spans = [(max(s, 0), min(s + self.size[axis], self.shape[axis])) for s in self.starts[axis]]
        return sorted({0, self.shape[axis], *itertools.chain(*spans)})

    def covering(self, axis: int, cell: tuple[int, int]) -> int:
        """Counts the starts along an axis whose windows cover any of an interval."""
        return sum(start < cell[1] and start + self.size[axis] > cell[0] for start in self.starts[axis])

    def in_order(self, axes: Triple) -> list[tuple[Triple, ...]]:
        """Lists windows in the order of a sweep along the first of the axes, then the second, then the third.

        The last window of an axis lies closer to its neighbour than others do. Both are visited in one step: between
        them the sweep would have to carry more rows than anywhere else.

        Returns:
            Pairs of sort key and start, sorted; keys of different windows over one volume compare.
        """
        steps = [self._steps(axis) for axis in axes]
        pairs = []
        for places in itertools.product(*steps):
            by_axis = dict(zip(axes, places, strict=True))
            start: Triple = (by_axis[0][1], by_axis[1][1], by_axis[2][1])
            group, own = tuple(place[0] for place in places), tuple(place[1] for place in places)
            pairs.append((cast(Triple, group + own), start))
        return sorted(pairs)

    def _steps(self, axis: int) -> list[tuple[int, int]]:
        starts = self.starts[axis]
        steps = [(start, start) for start in starts]
        if len(starts) > 2 and starts[-1] - starts[-2] < starts[1] - starts[0]:
            steps[-1] = (starts[-2], starts[-1])
        return steps

    def sweep(self) -> Triple:
        """Chooses the order of axes in which the fewest voxels wait for a further window."""

        def waiting(axes: tuple[int, ...]) -> int:
            first, second, third = axes
            carried = [self._carried(axis) for axis in axes]
            return (
                carried[0] * self.shape[second] * self.shape[third]
                + min(self.size[first], self.shape[first]) * carried[1] * self.shape[third]
            )

        return cast(Triple, min(itertools.permutations(range(3)), key=waiting))

    def _carried(self, axis: int) -> int:
        starts = self.starts[axis]
        return self.size[axis] - (starts[1] - starts[0]) if len(starts) > 1 else 0


def whole_window(shape: Sequence[int], multiple: Sequence[int]) -> Triple:
    """Returns the smallest window that holds a volume and is a multiple of the network's total stride.

    Where that leaves one voxel below all strides, which has no variance to normalise by, the first axis is doubled.
    """
    x, y, z = (math.ceil(n / m) * m for n, m in zip(shape, multiple, strict=True))
    return (2 * x, y, z) if (x, y, z) == tuple(multiple) else (x, y, z)


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


def predict_logits(
    network: Network,
    image: Tensor,
    patch_size: tuple[int, int, int],
    config: InferenceConfig,
) -> Tensor:
    """Predicts a whole volume from overlapping windows.

    Args:
        network: From windows (B, C, X, Y, Z) to logits (B, K, X, Y, Z).
        image: Prepared volume of shape (1, C, X, Y, Z); an axis shorter than the window is padded with 0.
        patch_size: Size (X, Y, Z) in voxels of the training patches, and of windows where the config names none.
        config: Overlap, blending, windows per forward pass.

    Returns:
        Logits f32 of shape (1, K, X, Y, Z), averaged where windows overlap.
    """
    windows = Windows.over(image.shape[2:], config.window or patch_size, config.overlap)
    weights = blend_weights(windows.size, config.blend).to(image.device)
    total = image.new_zeros(windows.shape, dtype=torch.float32)
    sums: Tensor | None = None
    starts = [start for _, start in windows.in_order((0, 1, 2))]
    with torch.inference_mode():
        for first in range(0, len(starts), config.batch):
            chosen = starts[first : first + config.batch]
            crops = torch.cat([windows.crop(image, start) for start in chosen])
            for start, logits in zip(chosen, network(crops).float(), strict=True):
                place, own = windows.inside(start), windows.own(start)
                if sums is None:
                    sums = logits.new_zeros((len(logits), *windows.shape))
                sums[(slice(None), *place)].addcmul_(logits[(slice(None), *own)], weights[own])
                total[place] += weights[own]
    assert sums is not None  # a volume has a window
    return (sums / total)[None]
