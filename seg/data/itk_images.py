"""Images by ITK, whatever their type of voxels: in single precision, with the affine to RAS."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""ITK counts from right to left and from front to back."""


def read_itk(
    paths: Sequence[Path], axes: int, channels: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Reads a file, or the slices of one volume.

    Args:
        paths: A file, or one for each slice, in the order of their places.
        axes: Axes of the file, channels left out: 3, or 4 where volumes follow one another.
        channels: Values for each voxel.

    Returns:
        Voxels (C, X, Y, Z), and the affine (4, 4) from voxel indices to RAS, in mm.
    """
    itk: Any = importlib.import_module("itk")
    kind = itk.VectorImage[itk.F, axes] if channels > 1 else itk.Image[itk.F, axes]
    several = len(paths) > 1
    reader = (itk.ImageSeriesReader if several else itk.ImageFileReader)[kind].New()
    if several:
        reader.SetFileNames([str(path) for path in paths])
    else:
        reader.SetFileName(str(paths[0]))
    reader.Update()
    image = reader.GetOutput()
    # Axes of numpy are those of ITK in reverse: channels of a vector come last, volumes that follow one another first.
    array = itk.array_view_from_image(image)
    voxels = np.moveaxis(array, -1, 0) if channels > 1 else array if axes == 4 else array[None]
    affine = np.eye(4)
    direction = itk.array_from_matrix(image.GetDirection())[:3, :3]
    affine[:3, :3] = direction * np.asarray(image.GetSpacing())[:3]
    affine[:3, 3] = np.asarray(image.GetOrigin())[:3]
    return voxels.transpose(0, 3, 2, 1), LPS_TO_RAS @ affine
