"""What the header of a NIfTI file says, checked before any voxel is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import nibabel
import numpy as np

from seg.data.endings import is_gzip
from seg.data.geometry import UNITS_MM, Affine, affine_of_nifti, doubts_of_nifti, is_invertible, unit_of_nifti
from seg.errors import DataError

nib: Any = nibabel  # only parts of it are annotated
DEFLATE_LIMIT = 1032  # bytes that one byte of a deflate stream can stand for, at most


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a file says of its volume, after orientation to RAS.

    Attributes:
        shape: Voxels per axis (X, Y, Z), and channels last where there are several.
        affine: 4x4 matrix from voxel indices to mm.
        spacing_mm: Voxel size along X, Y and Z, in mm.
        dtype: Type in which voxels are stored.
        warnings: Sentences on what is doubtful about where the volume lies.
    """

    shape: tuple[int, ...]
    affine: Affine
    spacing_mm: tuple[float, float, float]
    dtype: np.dtype[Any]
    warnings: tuple[str, ...] = ()


def image_of(path: Path, stream: IO[bytes]) -> Any:
    """Reads the header of an open file; voxels stay in the file.

    Raises:
        DataError: The file is empty, no NIfTI, or has no valid header.
    """
    start = stream.read(352)
    stream.seek(0)
    if not start:
        raise DataError(f"{path}: must be a NIfTI file, got an empty one; copy or export it again.")
    if start[344:348] == b"n+1\0":
        kind = nib.Nifti1Image
    elif start[4:8] == b"n+2\0":
        kind = nib.Nifti2Image
    else:
        raise DataError(f"{path}: must be a NIfTI file, got other content; convert it.")
    try:
        return kind.from_stream(stream)
    except (nib.spatialimages.HeaderDataError, nib.filebasedimages.ImageFileError, ValueError, TypeError) as error:
        raise DataError(f"{path}: must have a valid NIfTI header, got '{error}'; export it again.") from error


def header_of(path: Path, image: Any) -> Header:
    """Checks a header and orients it to RAS.

    Raises:
        DataError: As for :func:`seg.data.nifti.read_header`.
    """
    shape = trimmed(tuple(int(size) for size in image.shape))
    dtype = image.get_data_dtype()
    if len(shape) not in (3, 4):
        raise DataError(f"{path}: must have 3 axes, or 4 with channels last, got shape {shape}; export volumes.")
    if min(shape) < 1:
        raise DataError(f"{path}: every axis must have at least one voxel, got shape {shape}; export it again.")
    if dtype.kind not in "iuf":
        raise DataError(f"{path}: voxels must be real numbers, got {dtype}; export one number per voxel.")
    # Python's integers: a product of header fields may exceed 64 bits.
    needed = int(image.dataobj.offset) + dtype.itemsize * int(np.prod(np.array(shape, dtype=object)))
    size = path.stat().st_size
    if needed > size * (DEFLATE_LIMIT if is_gzip(path.name) else 1):
        raise DataError(
            f"{path}: file must hold the {needed} bytes of shape {shape}, got a truncated file of {size} bytes; "
            "copy or export it again."
        )
    if (unit := unit_of_nifti(image)) not in UNITS_MM:
        raise DataError(f"{path}: unit of length must be mm, micron or metre, got code {unit}; export it in mm.")
    affine = affine_of_nifti(image)
    if not is_invertible(affine):
        raise DataError(f"{path}: affine must be invertible, got {affine[:3].tolist()}; export it with its geometry.")
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    orientation = nib.io_orientation(affine)
    order = np.argsort(orientation[:, 0])
    oriented = affine @ nib.orientations.inv_ornt_aff(orientation, shape[:3])
    return Header(
        shape=(*(shape[axis] for axis in order), *shape[3:]),
        affine=oriented,
        spacing_mm=(float(lengths[order[0]]), float(lengths[order[1]]), float(lengths[order[2]])),
        dtype=dtype,
        warnings=doubts_of_nifti(image),
    )


def trimmed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Drops axes of length 1 behind the third: of time, before channels, or behind them, as some programs write."""
    return (*shape[:3], *(size for size in shape[3:] if size != 1))
