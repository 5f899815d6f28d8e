"""Volumes of classes in a label map, in memory or in a file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from seg.data.geometry import geometry_of_nifti
from seg.data.memory import check_memory
from seg.data.nifti import open_nifti
from seg.errors import DataError

COUNTED_VOXELS = 1 << 22


def class_volumes(labels: npt.NDArray[Any], voxel_ml: float, class_names: Sequence[str]) -> dict[str, float]:
    """Returns the volume of each foreground class, in ml.

    Args:
        labels: Class indices; floats of integer value are as good.
        voxel_ml: Volume of a voxel, in ml.
        class_names: Classes, the background first.

    Raises:
        DataError: A value is no class index.
    """
    counts = np.zeros(len(class_names), dtype=np.int64)
    flat = labels.ravel(order="K")
    for first in range(0, flat.size, COUNTED_VOXELS):  # indices take 8 bytes each
        part = flat[first : first + COUNTED_VOXELS]
        with np.errstate(invalid="ignore"):
            indices = part.astype(np.int64)
        wrong = (indices != part) | (indices < 0) | (indices >= len(class_names))
        if wrong.any():
            raise DataError(f"labels must be integers from 0 to {len(class_names) - 1}, got {part[wrong][0]:g}")
        counts += np.bincount(indices, minlength=len(class_names))
    return {name: float(count) * voxel_ml for name, count in zip(class_names[1:], counts[1:], strict=True)}


def file_volumes(path: Path, class_names: Sequence[str]) -> dict[str, float]:
    """Returns the volume of each foreground class in the file of a label map, in ml.

    Raises:
        DataError: The file is no label map of these classes, or does not fit in memory.
    """
    with open_nifti(path) as file:
        shape, proxy = file.header.shape, file.image.dataobj
        if len(shape) != 3:
            raise DataError(f"{path}: a label map must have 3 axes, got shape {shape}; move it elsewhere.")
        geometry = geometry_of_nifti(file.image)
        plain = proxy.dtype == np.uint8 and (proxy.slope, proxy.inter) == (1, 0)
        dtype = np.dtype(np.uint8 if plain else np.float32)
        check_memory(f"{path}: label map of shape {shape}", dtype.itemsize * math.prod(geometry.shape))
        labels = np.empty(geometry.shape, dtype, order="F")
        file.read_into([labels])
    try:
        return class_volumes(labels, geometry.voxel_ml, class_names)
    except DataError as error:
        raise DataError(f"{path}: {error}; another data set's label map? Move it elsewhere.") from error
