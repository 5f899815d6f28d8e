"""The grid of an image as its file states it, so that results can be written on exactly that grid."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import nibabel
import numpy as np
import numpy.typing as npt

nib: Any = nibabel  # only parts of it are annotated
Affine = npt.NDArray[np.float64]
FIELDS = (
    "qform_code",
    "sform_code",
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z"),
    "xyzt_units",
)
"""Fields of a NIfTI header that place a volume in space, beside ``pixdim``."""
UNITS_MM = {0: 1.0, 1: 1e3, 2: 1.0, 3: 1e-3}
"""Millimetres of a unit of length, by its code: metre, millimetre, micron; one that is not said is taken to be mm."""
STATED = (0, 2)
"""Codes of units whose numbers are mm as they stand."""
NIFTI1_MAX_EDGE = 32767
SINGULAR = 1e-6  # volume of the unit cell over the product of its edges
SIZE_TOLERANCE = 0.01
"""How far voxel sizes of sform and header may differ, as a fraction: programs round those of the header."""
DIRECTION_DIGITS = 6
"""Decimals of a direction's entries that decide how a volume is oriented; files of one scan differ behind them."""
GRID_TOLERANCE = 0.01
"""How far two grids of one case may lie apart at a corner of the volume, in voxels of the smallest edge.

Files of one grid differ by rounding: headers hold single precision, and a rotation is kept as a quaternion.
"""
FORM_TOLERANCE = 1.0
"""How far sform and qform may put a corner of the volume apart, in voxels of the smallest edge."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Geometry:
    """Where the voxels of a file lie.

    Attributes:
        shape: Voxels per axis (X, Y, Z), in the file's own order of axes.
        affine: Affine (4, 4) from voxel indices to mm.
        header: NIfTI header that holds the fields to hand on: both forms with their codes, voxel sizes, units.
        warnings: Sentences on what is doubtful about it.
    """

    shape: tuple[int, int, int]
    affine: Affine
    header: Any
    warnings: tuple[str, ...] = ()

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel, in ml."""
        return voxel_ml_of(self.affine)

    def file_header(self, shape: Sequence[int], dtype: npt.DTypeLike) -> bytes:
        """Makes all bytes before the voxels of a NIfTI file on this grid; several channels are last in its shape."""
        # The older kind wherever it suffices: it is what every program reads.
        kind = nib.Nifti2Header if max(shape) > NIFTI1_MAX_EDGE else nib.Nifti1Header
        header = kind(endianness="<")
        header.set_data_shape(shape)
        header.set_data_dtype(dtype)
        for name in FIELDS:
            header[name] = self.header[name]
        header["pixdim"][:4] = self.header["pixdim"][:4]
        header["scl_slope"], header["scl_inter"] = 1, 0
        header["vox_offset"] = header.structarr.nbytes + 4
        content: bytes = header.structarr.tobytes() + bytes(4)
        return content


def affine_of_nifti(image: Any) -> Affine:
    """Places an image of nibabel in space, by the one rule that everything here reads files by.

    Returns:
        Affine (4, 4) from voxel indices to mm: the sform where its code is above 0, else the qform where its code is,
        else the voxel sizes alone, centred, with X running right to left; from the header's unit of length to mm.
    """
    return _in_mm(image, image.affine)


def unit_of_nifti(image: Any) -> int:
    """Returns the code of the unit of length; one that `UNITS_MM` lacks is no unit of length."""
    return int(image.header["xyzt_units"]) & 7


def _in_mm(image: Any, affine: Any) -> Affine:
    scaled = np.array(affine, dtype=np.float64)
    scaled[:3] *= UNITS_MM[unit_of_nifti(image)]
    return scaled


def spacing_of(affine: Affine) -> tuple[float, float, float]:
    """Returns the voxel size along each axis, in mm."""
    x, y, z = (float(length) for length in np.linalg.norm(affine[:3, :3], axis=0))
    return x, y, z


def voxel_ml_of(affine: Affine) -> float:
    """Returns the volume of a voxel in ml, at whatever angles its edges meet: the determinant of an affine (4, 4)."""
    x, y, z = affine[:3, :3].T
    return abs(float(np.dot(np.cross(x, y), z))) / 1000


def is_invertible(affine: Affine) -> bool:
    """Says whether an affine (4, 4) is finite and maps the edges of a voxel to three directions."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or not lengths.all():
        return False
    return bool(abs(np.linalg.det(affine[:3, :3] / lengths)) >= SINGULAR)


def orientation_of(affine: Affine) -> npt.NDArray[np.float64]:
    """Finds which axes of an array, placed by an invertible affine (4, 4), run left to right, back to front and up.

    The answer is that of `nibabel.io_orientation`, but for volumes turned by exactly 45 degrees: rounding and the order
    in which a file stores its axes do not change it.

    Returns:
        For each axis of the array, its axis in RAS and 1, or -1 where it runs the other way; of shape (3, 2).
    """
    linear = affine[:3, :3]
    columns = np.round(linear / np.linalg.norm(linear, axis=0), DIRECTION_DIGITS)
    signs = np.array([np.sign(column[np.flatnonzero(column)[0]]) for column in columns.T])
    order = np.lexsort(columns * signs)
    turned = nib.affines.from_matvec((columns * signs)[:, order])
    orientation = np.empty((3, 2))
    orientation[order] = nib.io_orientation(turned)
    orientation[:, 1] *= signs
    return orientation


def oriented_grid(
    shape: Sequence[int], affine: Affine, onto: Affine | None = None
) -> tuple[npt.NDArray[np.float64], tuple[int, int, int], Affine]:
    """Brings the axes of a grid to RAS, or to the axes of a grid of the affine ``onto``.

    Returns:
        The orientation as of :func:`orientation_of`, and shape and affine in the new order of axes.
    """
    orientation = orientation_of(affine if onto is None else np.linalg.solve(onto, affine).astype(np.float64))
    ordered = tuple(int(shape[axis]) for axis in np.argsort(orientation[:, 0]))
    oriented = affine @ nib.orientations.inv_ornt_aff(orientation, shape)
    return orientation, cast(tuple[int, int, int], ordered), oriented


def doubts_of_nifti(image: Any) -> tuple[str, ...]:
    """Says what is doubtful about where a NIfTI image lies; a sentence each."""
    header = image.header
    doubts = [] if header["sform_code"] == 0 else [*_contradictions(image)]
    if header["sform_code"] == 0 and header["qform_code"] == 0:
        doubts.append(
            "the file must say how it is oriented, got neither sform nor qform; left and right may be swapped."
        )
    if unit_of_nifti(image) not in STATED:
        name = header.get_xyzt_units()[0]
        doubts.append(f"the unit of length must be mm, got {name}; sizes were turned into mm.")
    return tuple(doubts)


def _contradictions(image: Any) -> Iterator[str]:
    """Says how a header contradicts its sform, which counts."""
    header, affine = image.header, affine_of_nifti(image)
    stated = UNITS_MM[unit_of_nifti(image)] * np.asarray(header["pixdim"][1:4], float)
    found = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.allclose(stated, found, rtol=SIZE_TOLERANCE, atol=0):
        yield f"voxel sizes of sform and header must agree, got {_mm(found)} and {_mm(stated)} mm; the sform was used."
    elif header["qform_code"] > 0:
        try:
            qform = _in_mm(image, header.get_qform())
        except ValueError:  # a quaternion longer than 1
            yield "the qform must be a rotation, got none; the sform was used."
            return
        apart = corner_distance(image.shape[:3], affine, qform)
        if not apart <= FORM_TOLERANCE * found.min():
            yield (
                f"sform and qform must agree, got forms that put a corner of the volume {apart:.4g} mm apart; the "
                "sform was used, other programs may use the qform."
            )


def corner_distance(
    shape: Sequence[int], one: npt.NDArray[np.floating[Any]], other: npt.NDArray[np.floating[Any]]
) -> float:
    """Measures how far apart two affines put a corner of a volume (X, Y, Z) at most, in mm."""
    corners = np.array([(*corner, 1) for corner in itertools.product(*((0, size - 1) for size in shape))])
    return float(np.linalg.norm((corners @ (one - other).T)[:, :3], axis=1).max())


def geometry_of_nifti(image: Any) -> Geometry:
    """Reads the geometry of a NIfTI image."""
    x, y, z = (int(size) for size in image.shape[:3])
    return Geometry(
        shape=(x, y, z), affine=affine_of_nifti(image), header=image.header, warnings=doubts_of_nifti(image)
    )


def geometry_of_affine(shape: tuple[int, int, int], affine: npt.NDArray[np.floating[Any]]) -> Geometry:
    """Makes the geometry of a grid that comes from no NIfTI file: both forms say the same, in mm.

    Some readers prefer one form and some the other.
    """
    header = nib.Nifti2Header() if max(shape) > NIFTI1_MAX_EDGE else nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_zooms(np.linalg.norm(np.asarray(affine, float)[:3, :3], axis=0))
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1)
    header.set_xyzt_units("mm")
    return Geometry(shape=shape, affine=np.asarray(affine, dtype=np.float64), header=header)


def _mm(sizes: npt.NDArray[np.float64]) -> str:
    return " x ".join(f"{size:.6g}" for size in sizes)
