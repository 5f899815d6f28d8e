"""What goes into the segmentation of one image, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """The grid that an image lies on in its file.

    Attributes:
        shape: Shape of the array, in the file's own order of axes.
        affine: Affine (4, 4) from voxel indices to mm in the scanner's space, of any orientation, oblique or not.
    """

    shape: tuple[int, int, int]
    affine: npt.NDArray[Any]


@dataclass(frozen=True)
class Prepared:
    """An image as the network takes it.

    Attributes:
        image: Normalised image f32 (C, X, Y, Z), oriented to RAS, at the network's spacing.
        affine: Affine (4, 4) of that grid, in mm.
        target: Grid on which labels are wanted.
    """

    image: Tensor
    affine: npt.NDArray[Any]
    target: Grid


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is wanted, and how much memory may be spent on speed.

    Attributes:
        probabilities: Whether probabilities of the classes are wanted beside the labels.
        resident_mib: Logits of up to this size, in MiB, are held for the whole volume; larger volumes are swept in
            slabs.
    """

    probabilities: bool = False
    resident_mib: float = 128.0


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """Labels of one image on its own grid.

    Attributes:
        labels: Class indices (X, Y, Z), in the file's own order of axes; u8, or u16 above 256 classes.
        probabilities: Probabilities f32 (K, X, Y, Z) where they were asked for.
        seconds: Time per stage: ``network``, ``sums`` (blending of windows), ``labels`` (resampling and choice).
        held_mib: Largest size of the sums that were held at once, in MiB.
        warnings: Sentences on what went other than planned, such as smaller windows for want of memory.
    """

    labels: npt.NDArray[Any]
    probabilities: npt.NDArray[Any] | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    held_mib: float = 0.0
    warnings: tuple[str, ...] = ()
