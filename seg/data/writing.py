"""Writing single NIfTI files, whole or not at all."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt

from seg.data.endings import is_gzip
from seg.data.geometry import Geometry
from seg.errors import DataError, RunError
from seg.files import written_aside

Array = npt.NDArray[Any]
SLAB_BYTES = 1 << 24
LABEL_LEVEL = 4
"""Compression of label maps: the level behind which files hardly shrink and time multiplies."""
FLOAT_LEVEL = 1
"""Compression of floats, which hardly shrink at any level."""


def write_labels(path: Path, array: Array, geometry: Geometry) -> None:
    """Writes a label map beside its target, flushes it to disk and renames it.

    The same array and geometry always give the same bytes.

    Args:
        path: Target, ending in ``.nii`` or ``.nii.gz``; its folder is made where absent.
        array: Integer labels (X, Y, Z) in [0, 65535]; stored in 8 bits where they fit, else in 16.
        geometry: The grid the array is on; every field of it is handed on.

    Raises:
        ValueError: The array is not of three axes, or not of integers in that range.
        DataError: The folder cannot be written or the disk is full; the target is as it was.
    """
    if array.ndim != 3 or array.dtype.kind not in "iub":
        raise ValueError(f"array must hold integers on 3 axes, got {array.dtype} of shape {array.shape}.")
    lowest, highest = int(array.min(initial=0)), int(array.max(initial=0))
    if lowest < 0 or highest > np.iinfo(np.uint16).max:
        raise ValueError(f"labels must lie in [0, 65535], got {lowest} to {highest}.")
    dtype = np.dtype("u1" if highest < 256 else "<u2")
    _write(path, [array], geometry.file_header(array.shape, dtype), dtype, LABEL_LEVEL)


def write_maps(path: Path, maps: Array, geometry: Geometry) -> None:
    """Writes maps of numbers as a 4-D file, channels last, as :func:`write_labels` does.

    Args:
        path: Target, ending in ``.nii`` or ``.nii.gz``; its folder is made where absent.
        maps: Numbers (K, X, Y, Z); stored in 32-bit floats.
        geometry: The grid the maps are on.

    Raises:
        DataError: The folder cannot be written or the disk is full; the target is as it was.
    """
    dtype = np.dtype("<f4")
    header = geometry.file_header((*maps.shape[1:], len(maps)), dtype)
    _write(path, list(maps), header, dtype, FLOAT_LEVEL)


def _write(path: Path, volumes: list[Array], header: bytes, dtype: np.dtype[Any], level: int) -> None:
    try:
        with written_aside(path) as file:
            if not is_gzip(path.name):
                _write_voxels(file, volumes, header, dtype)
                return
            # Without a name and a time, equal content has equal bytes.
            with gzip.GzipFile("", "wb", level, file, mtime=0) as packed:
                _write_voxels(cast(IO[bytes], packed), volumes, header, dtype)
    except RunError as error:
        raise DataError(error.sentences) from error


def _write_voxels(file: IO[bytes], volumes: list[Array], header: bytes, dtype: np.dtype[Any]) -> None:
    """Writes slab by slab, so that no second copy of a large volume comes to be."""
    file.write(header)
    for volume in volumes:
        step = max(1, SLAB_BYTES // max(1, volume.shape[0] * volume.shape[1] * dtype.itemsize))
        for first in range(0, volume.shape[2], step):
            file.write(volume[:, :, first : first + step].astype(dtype, copy=False).tobytes(order="F"))
