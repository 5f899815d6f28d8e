"""Small label maps in files."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


def block(start: int = 2, value: int = 1, shape: tuple[int, int, int] = (12, 10, 8)) -> np.ndarray:
    array = np.zeros(shape, np.uint8)
    array[start : start + 4, 2:8, 2:6] = value
    return array
