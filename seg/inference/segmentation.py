"""Input and output of the segmentation of one image: prepared image, grids, label map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from seg.data.geometry import Geometry, oriented_grid
from seg.data.prepare import Step
from seg.inference.arrays import Array, most_likely, softmax, to_numpy
from seg.inference.windows import Triple


class LabelMap:
    """Labels, and probabilities where wanted, on an image's own grid, written piece by piece in RAS coordinates.

    Args:
        grid: The image's own grid.
        num_classes: Classes, background included.
        probabilities: Whether probabilities are kept.
        logits: Whether scores are logits; else they are probabilities.

    Attributes:
        labels: Class indices (X, Y, Z) on the grid. Memory is in the order of NIfTI files, X fastest.
        probabilities: Probabilities f32 (K, X, Y, Z), or None.
        shape: Shape of the grid once oriented to RAS.
    """

    def __init__(self, grid: Geometry, num_classes: int, *, probabilities: bool, logits: bool) -> None:
        orientation, self.shape, _ = oriented_grid(grid.shape, grid.affine)
        dtype = f"u{label_bytes(num_classes)}"
        self.labels: npt.NDArray[Any] = np.zeros(grid.shape, dtype=dtype, order="F")
        self._labels = nib.orientations.apply_orientation(self.labels, orientation)
        self.probabilities: npt.NDArray[Any] | None = None
        self._probabilities: list[npt.NDArray[Any]] = []
        if probabilities:
            # X fastest and classes slowest, as in a 4-D NIfTI file.
            self.probabilities = np.empty((*grid.shape, num_classes), np.float32, order="F").transpose(3, 0, 1, 2)
            self._probabilities = [
                nib.orientations.apply_orientation(single, orientation) for single in self.probabilities
            ]
        self._logits = logits

    def write(self, origin: Triple, scores: Array) -> None:
        """Takes the most likely class of a block of voxels.

        Args:
            origin: Where the block begins, in RAS coordinates.
            scores: Scores (K, x, y, z), class by class in memory.
        """
        box = tuple(slice(o, o + n) for o, n in zip(origin, scores.shape[1:], strict=True))
        if self.probabilities is not None:
            values = to_numpy(softmax(scores) if self._logits else scores)
            for target, own in zip(self._probabilities, values, strict=True):
                target[box] = own
        self._labels[box] = to_numpy(most_likely(scores))


def label_bytes(num_classes: int) -> int:
    """Returns the bytes of a voxel of a label map."""
    return 1 if num_classes <= 256 else 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """A normalised image at the spacing of the network, with the grid that labels are wanted on.

    Attributes:
        image: Normalised image f32 (C, X, Y, Z), oriented to RAS, at the network's spacing.
        step: Voxels of the target, oriented to RAS, that a voxel of the image spans along X, Y and Z.
        target: Grid of the image's file, on which labels are wanted.
        seconds: Time of the stages so far.
        warnings: Sentences on what is doubtful about the image.
    """

    image: Array
    step: Step
    target: Geometry
    seconds: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Segmentation:
    """Labels of one image on the grid of its file.

    Attributes:
        labels: Class indices (X, Y, Z), in the file's own order of axes; u8, or u16 above 256 classes.
        probabilities: Probabilities f32 (K, X, Y, Z) where they were asked for.
        geometry: The grid.
        seconds: Time per stage: ``network``, ``sums`` (blending of windows), ``labels`` (resampling and choice).
        held_mib: Largest size of the sums that were held at once, in MiB.
        warnings: Sentences on what went other than planned, such as smaller windows for want of memory.
    """

    labels: npt.NDArray[Any]
    probabilities: npt.NDArray[Any] | None
    geometry: Geometry
    seconds: dict[str, float]
    held_mib: float = 0.0
    warnings: tuple[str, ...] = ()
