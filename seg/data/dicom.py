"""Slices of a DICOM series: whether they make up one volume, and in which order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from seg.errors import DataError

if TYPE_CHECKING:
    from monai.data import PydicomReader

TAGS = {
    "ImagePositionPatient": "0020|0032",
    "ImageOrientationPatient": "0020|0037",
    "PixelSpacing": "0028|0030",
}
"""Attributes that say where a slice lies: position of its first voxel in mm, direction of its rows and columns (LPS),
and distance of voxels in mm."""
UNEVEN = 0.02
"""Share of the distance of two slices by which one may lie off its place on an even line, and off the normal."""
ROUNDING_MM = 0.06
"""The same in mm, as positions are often rounded to a tenth; but no more than a tenth of the distance."""
SAME_MM = 0.01
"""Slices that are no further apart lie at one place."""
SAME_DIRECTION = 1e-3


@dataclass(frozen=True, kw_only=True)
class Slice:
    """What the header of a slice says of its place.

    Attributes:
        path: The file.
        shape: Columns and rows.
        frames: Images in the file.
        place: Values of `TAGS` by name; absent where the header lacks them.
    """

    path: Path
    shape: tuple[int, int]
    frames: int
    place: dict[str, tuple[float, ...]]


def check_series(slices: Sequence[Slice]) -> None:
    """Refuses slices whose order, distance or grid would have to be guessed.

    Readers take the number of a slice for its order and the ends of a series for its distances, so that a missing slice
    stretches a volume and a second phase doubles it, without a word.

    Args:
        slices: The slices of a folder, or the single file of a volume.

    Raises:
        DataError: A file has several frames, a slice does not say where it lies, slices differ in size, spacing or
            orientation, two lie at one place, they are not evenly spaced, or do not lie along their normal.
    """
    for one in slices:
        if one.frames > 1:
            raise DataError(
                f"{one.path}: DICOM must have one slice a file, got {one.frames} frames in one; export single slices, "
                "or convert it to NIfTI."
            )
        if absent := [name for name in TAGS if name not in one.place]:
            raise DataError(
                f"{one.path}: a slice must say where it lies, got no {', '.join(absent)}; export the original series."
            )
    if len(slices) > 1:
        _check_alike(slices)
        _check_steps(slices)


def distances(slices: Sequence[Slice]) -> npt.NDArray[np.float64]:
    """Returns how far each slice lies along the normal of the first, in mm."""
    positions = np.array([one.place["ImagePositionPatient"] for one in slices])
    along: npt.NDArray[np.float64] = positions @ _normal(slices[0])
    return along


def _normal(one: Slice) -> npt.NDArray[np.float64]:
    row, column = np.reshape(one.place["ImageOrientationPatient"], (2, 3))
    return np.cross(row, column)


def _check_alike(slices: Sequence[Slice]) -> None:
    """Checks that all slices have the grid of the first."""
    first = slices[0]
    for one in slices[1:]:
        differs = {
            "size": (first.shape, one.shape, 0.0),
            **{
                name: (first.place[name], one.place[name], SAME_DIRECTION)
                for name in ("PixelSpacing", "ImageOrientationPatient")
            },
        }
        for name, (expected, got, tolerance) in differs.items():
            if len(expected) != len(got) or not np.allclose(expected, got, rtol=0, atol=tolerance):
                raise DataError(
                    f"{one.path}: slices must have one {name}, got {_listed(got)} where {first.path.name} has "
                    f"{_listed(expected)}; give each stack a folder of its own."
                )


def _check_steps(slices: Sequence[Slice]) -> None:
    """Checks that slices lie one after the other, evenly, along their normal."""
    along = distances(slices)
    order = np.argsort(along, kind="stable")
    ordered = [slices[index] for index in order]
    steps = np.diff(along[order])
    usual = float(np.median(steps))
    doubled = int(steps.argmin())
    if steps[doubled] <= SAME_MM:
        raise DataError(
            f"{ordered[doubled + 1].path}: slices must each lie at a place of their own, got that of "
            f"{ordered[doubled].path.name} again; give each phase, echo or reconstruction a folder of its own."
        )
    positions = np.array([one.place["ImagePositionPatient"] for one in ordered])
    apart = np.linalg.norm(positions - np.linspace(positions[0], positions[-1], len(positions)), axis=1)
    if apart.max() > max(UNEVEN * usual, min(ROUNDING_MM, usual / 10)):
        worst = int(np.abs(steps - usual).argmax())
        raise DataError(
            f"{ordered[worst + 1].path}: slices must be evenly spaced on a line, got {steps[worst]:.4g} mm from "
            f"{ordered[worst].path.name} where {usual:.4g} mm is usual, and slices up to {apart.max():.3g} mm from "
            "their place; add the slices that are missing, or resample the series."
        )
    mean = (positions[-1] - positions[0]) / (len(positions) - 1)
    shift = float(np.linalg.norm(mean - (mean @ _normal(slices[0])) * _normal(slices[0])))
    if shift > UNEVEN * usual:
        raise DataError(
            f"{ordered[1].path}: slices must lie along their normal, got a shift of {shift:.4g} mm from "
            f"{ordered[0].path.name}, as of a tilted gantry; resample the series to a straight grid."
        )


def _listed(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"


def by_position(files: Sequence[Path]) -> PydicomReader:
    """Returns MONAI's reader of pydicom, which orders slices by number, with slices that are numbered by position.

    Args:
        files: What it is to read of a folder, which may hold other files beside.
    """
    from monai.data import PydicomReader

    class ByPosition(PydicomReader):
        """Numbers the slices of a series anew in memory; the files stay as they are."""

        def read(self, data: Any, **kwargs: Any) -> Any:
            found = super().read(data, **kwargs)
            if self.has_series:
                for series in found if isinstance(found[0], list) else [found]:
                    row, column = np.reshape(np.array(series[0].ImageOrientationPatient, dtype=float), (2, 3))
                    normal = np.cross(row, column)
                    along = [float(np.array(one.ImagePositionPatient, dtype=float) @ normal) for one in series]
                    for number, index in enumerate(np.argsort(along)):
                        series[index].InstanceNumber = number
            return found

    return ByPosition(fname_regex="|".join(rf"{re.escape(str(file))}\Z" for file in files))
