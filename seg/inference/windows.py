"""Where windows lie in a volume, how they are blended, and in which order they are visited."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from seg.config import InferenceConfig
from seg.inference.arrays import HOST, Array, Device, add_product, exponential, placed, zeros

if TYPE_CHECKING:
    from torch import Tensor

Network = Callable[[Array], Array]
Triple = tuple[int, int, int]
SIGMA = 0.125
"""Standard deviation of the Gaussian, as a share of the window's edge."""
FLOOR = 1e-3
"""Least weight of a voxel, so that no sum is divided by next to nothing."""


def window_starts(size: int, window: int, overlap: float) -> list[int]:
    """Lists where windows begin along an axis of that size in voxels; neighbours share an overlap in [0, 1).

    Starts ascend. The last window ends with the axis; a window longer than the axis begins before it, at a start <= 0
    that centres the axis.
    """
    if window >= size:
        return [-((window - size) // 2)]
    step = max(int(window * (1 - overlap)), 1)
    return [*range(0, size - window, step), size - window]


def blend_weights(window: Triple, blend: str, device: Device = HOST) -> Array:
    """Returns weights f32 of a window's voxels (X, Y, Z), in [1e-3, 1]: ``gaussian`` about the centre or ``constant``.

    Args:
        window: Size of the window.
        blend: Which weights.
        device: Where they are wanted; :data:`HOST` is an array of NumPy.

    References:
        F. Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical image
        segmentation", 2021, doi:10.1038/s41592-020-01008-z. As there, sigma is 1/8 of the edge.
    """
    if blend == "constant":
        return placed(np.ones(window, np.float32), device)
    profiles = []
    for edge in window:
        place = np.arange(edge, dtype=np.float32) - (edge - 1) / 2
        profiles.append(exponential(place**2 / (-2 * (SIGMA * edge) ** 2), device))
    x, y, z = profiles
    weights: npt.NDArray[np.float32] = x[:, None, None] * y[:, None] * z
    return placed(np.maximum(weights, max(float(weights.min()), FLOOR)), device)


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

    def crop(self, image: Array, start: Triple) -> Array:
        """Returns a window of an image (..., X, Y, Z), with zeros where it reaches beyond."""
        inside = image[(..., *self.inside(start))]
        if tuple(inside.shape[-3:]) == self.size:
            return inside
        window = zeros(image, (*image.shape[:-3], *self.size))
        window[(..., *self.own(start))] = inside
        return window

    def inside(self, start: Triple) -> tuple[slice, slice, slice]:
        """Returns the part of the volume that a window covers."""
        x, y, z = (slice(max(s, 0), min(s + w, n)) for s, w, n in zip(start, self.size, self.shape, strict=True))
        return x, y, z

    def own(self, start: Triple) -> tuple[slice, slice, slice]:
        """Returns the part of the window that lies in the volume, in the window's own coordinates."""
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


def predict_logits(
    network: Network,
    image: Tensor,
    window: Triple,
    config: InferenceConfig,
) -> Tensor:
    """Predicts a whole volume from overlapping windows.

    Args:
        network: From windows (B, C, X, Y, Z) to logits (B, K, X, Y, Z).
        image: Prepared volume of shape (1, C, X, Y, Z); an axis shorter than the window is padded with 0.
        window: Size of a window (X, Y, Z) in voxels.
        config: Overlap, blending, windows per forward pass.

    Returns:
        Logits f32 of shape (1, K, X, Y, Z), averaged where windows overlap.
    """
    import torch

    windows = Windows.over(image.shape[2:], window, config.overlap)
    weights = blend_weights(windows.size, config.blend, image.device)
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
                add_product(sums[(slice(None), *place)], logits[(slice(None), *own)], weights[own])
                total[place] += weights[own]
    assert sums is not None  # a volume has a window
    return (sums / total)[None]
