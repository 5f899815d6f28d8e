"""Tiny data sets, written with nibabel alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

AFFINE = np.array([[1.5, 0, 0, -20], [0, 2, 0, 7], [0, 0, 4, 1], [0, 0, 0, 1]], dtype=float)
SHAPE = (6, 5, 4)

Writer = Callable[..., Path]


@pytest.fixture
def write_nifti():
    """Gives a function that writes an array as NIfTI and returns its path."""

    def write(path, array, affine=AFFINE):
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, affine), path)
        return path

    return write


@pytest.fixture
def write_json():
    """Gives a function that writes JSON and returns its path."""

    def write(path, content):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
        return path

    return write


@pytest.fixture
def image_array():
    """An image of random numbers."""
    return np.random.default_rng(0).normal(100, 10, SHAPE).astype(np.float32)


@pytest.fixture
def label_array():
    """A label with a box of class 1 and a voxel of class 2."""
    label = np.zeros(SHAPE, dtype=np.uint8)
    label[1:4, 2:4, 1:3] = 1
    label[2, 2, 2] = 2
    return label


@pytest.fixture
def msd(tmp_path, write_nifti, write_json, image_array, label_array):
    """A sound data set of three cases in MSD layout."""
    root = tmp_path / "msd"
    for name in "abc":
        write_nifti(root / f"imagesTr/{name}.nii.gz", image_array)
        write_nifti(root / f"labelsTr/{name}.nii.gz", label_array)
    write_json(root / "dataset.json", msd_description("abc"))
    return root


def msd_description(names):
    return {
        "name": "Tiny",
        "licence": "CC0",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "organ", "2": "tumour"},
        "training": [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names],
    }


@pytest.fixture
def nnunet(tmp_path, write_json):
    """A folder of two cases with two channels in nnU-Net's layout; the files are empty."""
    root = tmp_path / "Dataset001_Tiny"
    write_json(
        root / "dataset.json",
        {
            "channel_names": {"0": "T1", "1": "T2"},
            "labels": {"background": 0, "organ": 1, "tumour": 2, "ignore": 3},
            "file_ending": ".nii.gz",
            "numTraining": 2,
        },
    )
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir()
    for case in ("b_1", "a"):
        (root / "labelsTr" / f"{case}.nii.gz").touch()
        for channel in range(2):
            (root / "imagesTr" / f"{case}_{channel:04d}.nii.gz").touch()
    (root / "imagesTr" / "._a_0000.nii.gz").touch()
    return root
