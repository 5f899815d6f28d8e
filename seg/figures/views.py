"""What a picture shows of a case: the directions of slicing, the part of the volume, and which cases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Box = tuple[slice, slice, slice]

MARGIN_MM = 10.0
"""Tissue shown around the structures, at least; half their extent where that is more."""


@dataclass(frozen=True, kw_only=True)
class FigureRow:
    """One case of a picture.

    Attributes:
        case_id: The case.
        image: One channel, shape (X, Y, Z), oriented to RAS.
        prediction: Integer label map of the same shape.
        reference: Integer label map of the same shape, or None where there is none.
        spacing_mm: Distance between voxel centres along X, Y and Z, in mm.
        dice: Dice by class index; NaN where both masks are empty.
        note: A word before the case id, such as "worst".
    """

    case_id: str
    image: npt.NDArray[np.floating]
    prediction: npt.NDArray[np.integer]
    reference: npt.NDArray[np.integer] | None
    spacing_mm: tuple[float, float, float]
    dice: Mapping[int, float]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Plane:
    """A direction of slicing: the array axes along the picture's width and height, and the letters of its sides.

    Width runs against the array axis in all three planes: RAS has right and anterior last, the picture has them left.
    """

    name: str
    normal: int
    width: int
    height: int
    letters: tuple[str, str, str, str]


PLANES = (
    Plane(name="axial", normal=2, width=0, height=1, letters=("R", "L", "P", "A")),
    Plane(name="coronal", normal=1, width=0, height=2, letters=("R", "L", "I", "S")),
    Plane(name="sagittal", normal=0, width=1, height=2, letters=("A", "P", "I", "S")),
)


def pick_cases(mean_dice: Mapping[str, float | None]) -> dict[str, str]:
    """Picks the cases that show what a model does: its worst, its median and its best.

    Args:
        mean_dice: Mean Dice by case id; cases without one are not picked.

    Returns:
        Case ids by "worst", "median" and "best"; fewer where there are fewer cases.
    """
    ranked = sorted((dice, case_id) for case_id, dice in mean_dice.items() if dice is not None)
    positions = {"worst": 0, "best": len(ranked) - 1, "median": len(ranked) // 2} if ranked else {}
    picked: dict[str, str] = {}
    for note, position in positions.items():
        if ranked[position][1] not in picked.values():
            picked[note] = ranked[position][1]
    return {note: picked[note] for note in ("worst", "median", "best") if note in picked}


def foreground(row: FigureRow) -> npt.NDArray[np.bool_]:
    """Gives the mask that decides what is shown: the reference, else the prediction."""
    if row.reference is not None and (row.reference > 0).any():
        return np.asarray(row.reference > 0)
    return np.asarray(row.prediction > 0)


def visible_box(row: FigureRow) -> Box:
    """Gives the box of voxels around prediction and reference that is shown; all of them where both are empty."""
    mask = row.prediction > 0
    if row.reference is not None:
        mask = mask | (row.reference > 0)
    box = []
    for axis in range(3):
        hits = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        size = mask.shape[axis]
        if not len(hits):
            box.append(slice(0, size))
            continue
        extent = int(hits[-1]) - int(hits[0]) + 1
        margin = math.ceil(max(MARGIN_MM / row.spacing_mm[axis], 0.5 * extent))
        box.append(slice(max(0, int(hits[0]) - margin), min(size, int(hits[-1]) + 1 + margin)))
    return box[0], box[1], box[2]


def joint_box(rows: Sequence[FigureRow]) -> Box:
    """Gives the box that holds all that is shown of several rows on one grid."""
    boxes = [visible_box(row) for row in rows]
    x, y, z = (
        slice(min(each.start for each in axis), max(each.stop for each in axis)) for axis in zip(*boxes, strict=True)
    )
    return x, y, z


def slice_positions(row: FigureRow) -> dict[str, int]:
    """Gives the slice of each plane, by the plane's name, that holds the most foreground; the middle without any."""
    return fullest_slices(foreground(row))


def fullest_slices(mask: npt.NDArray[np.bool_]) -> dict[str, int]:
    """Gives the slice of each plane, by the plane's name, that holds the most of a mask; the middle of an empty one."""
    positions = {}
    for plane in PLANES:
        areas = mask.sum(axis=(plane.width, plane.height))
        positions[plane.name] = int(areas.argmax()) if areas.any() else mask.shape[plane.normal] // 2
    return positions


def view_extent(box: Box, plane: Plane, spacing_mm: tuple[float, float, float]) -> tuple[float, float]:
    """Gives width and height of a slice through a box, in mm."""
    width, height = ((box[axis].stop - box[axis].start) * spacing_mm[axis] for axis in (plane.width, plane.height))
    return width, height


def is_flat(extents: Sequence[tuple[float, float]]) -> bool:
    """Tells whether the coronal and the sagittal slice fit one above the other beside the axial one.

    Args:
        extents: Width and height of the three slices, in the order of `PLANES`.
    """
    axial, coronal, sagittal = (height for _, height in extents)
    return coronal + sagittal <= axial


def cut(array: npt.NDArray[Any], box: Box, plane: Plane, position: int) -> npt.NDArray[Any]:
    """Gives a slice through a box as a picture: rows bottom up, columns left to right as shown, (height, width)."""
    where = list(box)
    where[plane.normal] = slice(position, position + 1)
    flat = np.squeeze(array[tuple(where)], axis=plane.normal)
    # What is left is in ascending order of axes, and in every plane width is the lower one.
    return np.asarray(flat.T[:, ::-1])
