"""Which voxels of a window count, so that each voxel of a volume counts once and padding never."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from seg.inference.windows import Triple, Windows


@dataclass(frozen=True, kw_only=True)
class Places:
    """The voxels of a window that count at one stage.

    Attributes:
        own: Their places on the stage's grid within the window, axis by axis.
        volume: Voxels of the volume that lie at their centres, axis by axis.
    """

    own: tuple[slice, slice, slice]
    volume: tuple[slice, slice, slice]

    def features(self, tensor: Tensor) -> Tensor:
        """Takes features (1, C, X, Y, Z) of a window as rows (n, C)."""
        box = tensor[(0, slice(None), *self.own)]
        return box.flatten(1).T

    def labels(self, label: Tensor) -> Tensor:
        """Takes labels (X, Y, Z) of the volume in the same order, shape (n,)."""
        return label[self.volume].flatten()


def places(windows: Windows, start: Triple, stride: Triple) -> Places:
    """Chooses the voxels of a window, on the grid of a stage.

    Between windows that overlap, the volume is cut midway between their centres: every voxel is taken from the window
    in which it lies most central, whose logits weigh most in a prediction. A voxel of a stage lies where its centre
    lies; on an even stride that is the upper of the two voxels beside it. At full resolution the windows share the
    voxels of the volume out without gap or overlap, below it as far as their grids agree.

    Args:
        windows: The windows of the volume.
        start: Where the window begins.
        stride: Voxels of the volume per voxel of the stage, per axis; it divides the window.
    """
    own, volume = [], []
    for axis in range(3):
        low, high = core(windows, axis, start[axis])
        first = start[axis] + stride[axis] // 2
        # the first and the last j with low <= first + stride j < high
        begin = max(-((first - low) // stride[axis]), 0)
        end = min(-((first - high) // stride[axis]), windows.size[axis] // stride[axis])
        end = max(end, begin)
        own.append(slice(begin, end))
        volume.append(slice(first + stride[axis] * begin, first + stride[axis] * end, stride[axis]))
    return Places(own=(own[0], own[1], own[2]), volume=(volume[0], volume[1], volume[2]))


def core(windows: Windows, axis: int, start: int) -> tuple[int, int]:
    """Returns the interval of an axis that is taken from the windows beginning at ``start``."""
    starts = windows.starts[axis]
    place = starts.index(start)
    cuts = [(a + b + windows.size[axis]) // 2 for a, b in itertools.pairwise(starts)]
    edges = [0, *cuts, windows.shape[axis]]
    return edges[place], edges[place + 1]


def known(labels: Tensor, ignore_label: int | None) -> Tensor | None:
    """Returns which voxels are not of the ignore label; None where all count."""
    if ignore_label is None or not bool(torch.any(labels == ignore_label)):
        return None
    return labels != ignore_label
