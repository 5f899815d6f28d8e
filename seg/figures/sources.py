"""The files of a case that a page shows."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from seg.data.geometry import corner_distance
from seg.data.images import read_first_channel
from seg.data.nifti import Volume, read_volume
from seg.errors import DataError
from seg.figures.views import FigureRow, visible_box

LOG = logging.getLogger(__name__)

GREY_PERCENTILES = (0.5, 99.5)
"""Values of the part that is shown which become black and white."""

MAX_SHIFT_VOXELS = 0.5
"""Largest shift of an image's grid from its label's, at a corner, at which outlines lie on the image to the eye."""


@dataclass(frozen=True, kw_only=True)
class CaseFiles:
    """Where a case lies.

    Attributes:
        prediction: Label map.
        label: Label map of the reference, on the same grid.
        images: The files of its image; none where the case is shown without.
    """

    prediction: Path
    label: Path
    images: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PageCase:
    """A case in memory.

    Attributes:
        row: Its volumes; the reference is not None.
        grey: Values of the image that become black and white; None where no image is shown.
        perfect: Whether prediction and reference are equal.
        faulty_image: Whether an image was given that cannot be drawn.
    """

    row: FigureRow
    grey: tuple[float, float] | None
    perfect: bool
    faulty_image: bool


def read_case(case_id: str, files: CaseFiles, *, ignore_label: int | None) -> PageCase:
    """Reads the volumes of a case.

    Args:
        case_id: The case.
        files: Where it lies.
        ignore_label: Value of reference voxels that count for neither side: they become background in both maps.

    Returns:
        The case. An image that cannot be read, or lies on another grid, is announced and not shown.

    Raises:
        DataError: A label map cannot be read.
    """
    prediction, label = (read_volume(path) for path in (files.prediction, files.label))
    predicted, expected = (np.rint(volume.array).astype(np.int32) for volume in (prediction, label))
    if ignore_label is not None:
        open_ = expected == ignore_label
        predicted[open_], expected[open_] = 0, 0
    image, reason = _read_image(files.images, label)
    if reason:
        LOG.warning("case %s is drawn without its image: %s", case_id, reason)
    row = FigureRow(
        case_id=case_id,
        image=np.broadcast_to(np.float32(0.0), expected.shape) if image is None else image,
        prediction=predicted,
        reference=expected,
        spacing_mm=label.spacing_mm,
        dice={},
    )
    return PageCase(
        row=row,
        grey=None if image is None else _grey(row),
        perfect=np.array_equal(predicted, expected),
        faulty_image=bool(reason),
    )


def _read_image(paths: tuple[Path, ...], label: Volume) -> tuple[npt.NDArray[Any] | None, str]:
    """Gives the first channel of an image, or why it is not shown."""
    if not paths:
        return None, ""
    try:
        image = read_first_channel(paths)
    except DataError as error:
        return None, error.sentences[0]
    if image.array.shape != label.array.shape:
        return None, (
            f"image shape {image.array.shape} differs from label shape {label.array.shape}; "
            "give the image on the label's grid."
        )
    shift = corner_distance(image.array.shape, np.linalg.solve(label.affine, image.affine), np.eye(4))
    if shift > MAX_SHIFT_VOXELS:
        return None, (
            f"image affine differs from label affine by {shift:.3g} voxels at a corner, more than "
            f"{MAX_SHIFT_VOXELS:g}; give the image on the label's grid."
        )
    return image.array, ""


def _grey(row: FigureRow) -> tuple[float, float]:
    """Gives the values of the part shown that become black and white."""
    shown = np.asarray(row.image[visible_box(row)], dtype=np.float64)
    shown = shown[np.isfinite(shown)]
    if not shown.size:
        return 0.0, 0.0
    low, high = np.percentile(shown, GREY_PERCENTILES)
    return float(low), float(high)
