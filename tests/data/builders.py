"""Small volumes and data sets, written with nibabel alone, and what is said of faulty ones."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from seg.data.augmentation.spatial import Deformations
from seg.data.cases import Case, Dataset
from seg.errors import DataError

AFFINE = np.array([[1.5, 0, 0, -20], [0, 2, 0, 7], [0, 0, 4, 1], [0, 0, 0, 1]], dtype=float)


def save(path, array, affine=AFFINE):
    """Writes an array as NIfTI and returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def problems_of(call, *arguments, error=DataError, **options):
    """Gives path, kind and value of what is said of a call that fails."""
    with pytest.raises(error) as caught:
        call(*arguments, **options)
    return [(problem.path, problem.kind, problem.value) for problem in caught.value.problems]


def dataset_of(cases, *, root=Path("/none"), classes=2, channels=1, ignore_label=None):
    """Describes a data set of cases; no file exists."""
    return Dataset(
        name="tiny",
        root=root,
        layout="manifest",
        cases=tuple(cases),
        class_names=tuple(f"class_{index}" for index in range(classes)),
        channel_names=tuple(f"channel_{index}" for index in range(channels)),
        ignore_label=ignore_label,
        licence="CC0",
    )


def of_patients(patients, folds=None, root=Path("/none")):
    """Describes a data set of cases c0, c1, ... of the given patients."""
    return dataset_of(
        (
            Case(id=f"c{n}", images=(root / f"c{n}.nii",), label=root / f"l{n}.nii", patient=patient, fold=fold)
            for n, (patient, fold) in enumerate(zip(patients, folds or [None] * len(patients), strict=True))
        ),
        root=root,
    )


def drawn_by(*, angles=(0.0, 0.0, 0.0), zooms=(1.0, 1.0, 1.0), shifts=(0.0, 0.0, 0.0), control=None):
    """Gives the deformation of one patch; angles in degrees."""
    return Deformations(
        active=torch.tensor([True]),
        angles=torch.deg2rad(torch.tensor([list(angles)])).float(),
        zooms=torch.tensor([list(zooms)]).float(),
        shifts=torch.tensor([list(shifts)]).float(),
        control=torch.zeros(1, 3, 2, 2, 2) if control is None else control,
        mirrored=torch.zeros(1, 3, dtype=torch.bool),
    )
