"""The grid of an image as its file states it, so that results can be written on exactly that grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
UNKNOWN, MM = 0, 2  # codes of the unit of length
NIFTI1_MAX_EDGE = 32767


@dataclass(frozen=True, kw_only=True, eq=False)
class Geometry:
    """Where the voxels of a file lie.

    Attributes:
        shape: Voxels per axis (X, Y, Z), in the file's own order of axes.
        affine: Affine (4, 4) from voxel indices to mm, as training reads it.
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
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000

    def file_header(self, shape: Sequence[int], dtype: npt.DTypeLike) -> bytes:
        """Makes the header of a NIfTI file on this grid.

        Args:
            shape: Shape of the array: this grid's, and channels last where there are several.
            dtype: Type of its voxels.

        Returns:
            All bytes before the voxels: the header and the mark that no extension follows.
        """
        header = type(self.header)(endianness="<")
        header.set_data_shape(shape)
        header.set_data_dtype(dtype)
        for name in FIELDS:
            header[name] = self.header[name]
        header["pixdim"][:4] = self.header["pixdim"][:4]
        header["scl_slope"], header["scl_inter"] = 1, 0
        header["vox_offset"] = header.structarr.nbytes + 4
        content: bytes = header.structarr.tobytes() + bytes(4)
        return content


def geometry_of_nifti(image: Any) -> Geometry:
    """Reads the geometry of a NIfTI image.

    Where the sform contradicts the voxel sizes of the header and the qform does not, the qform counts: MONAI reads
    training images so.
    """
    header = image.header
    x, y, z = (int(size) for size in image.shape[:3])
    affine = np.asarray(image.affine, dtype=np.float64)
    warnings = []
    if len(image.shape) == 3 and header["sform_code"] > 0:
        stated, found = np.asarray(header.get_zooms()[:3], float), np.linalg.norm(affine[:3, :3], axis=0)
        if not np.allclose(stated, found):
            affine = np.asarray(header.get_qform(), dtype=np.float64)
            warnings.append(
                f"voxel sizes of sform and header must agree, got {_mm(found)} and {_mm(stated)} mm; "
                "the qform was used."
            )
    if header["sform_code"] == 0 and header["qform_code"] == 0:
        warnings.append(
            "the file must say how it is oriented, got neither sform nor qform; left and right may be swapped."
        )
    unit = int(header["xyzt_units"]) & 7
    if unit not in (UNKNOWN, MM):
        name = header.get_xyzt_units()[0]
        warnings.append(f"the unit of length must be mm, got {name}; sizes were read as mm, volumes may be wrong.")
    return Geometry(shape=(x, y, z), affine=affine, header=header, warnings=tuple(warnings))


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
    return " x ".join(f"{size:.4g}" for size in sizes)
