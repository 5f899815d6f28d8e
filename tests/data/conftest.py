"""Tiny data sets."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.data.builders import save

SHAPE = (6, 5, 4)


@pytest.fixture
def write_nifti():
    """Gives the function that writes an array as NIfTI and returns its path."""
    return save


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
def msd(tmp_path, write_json, image_array, label_array):
    """A sound data set of three cases in MSD layout."""
    root = tmp_path / "msd"
    for name in "abc":
        save(root / f"imagesTr/{name}.nii.gz", image_array)
        save(root / f"labelsTr/{name}.nii.gz", label_array)
    description = {
        "name": "Tiny",
        "licence": "CC0",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "organ", "2": "tumour"},
        "training": [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in "abc"],
    }
    write_json(root / "dataset.json", description)
    return root


@pytest.fixture
def nnunet(tmp_path, write_json):
    """A folder of two cases with two channels in nnU-Net's layout; the files are empty."""
    root = tmp_path / "Dataset001_Tiny"
    description = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "organ": 1, "tumour": 2, "ignore": 3},
        "file_ending": ".nii.gz",
        "numTraining": 2,
    }
    write_json(root / "dataset.json", description)
    for name in ("labelsTr/a", "labelsTr/b_1", *(f"imagesTr/{case}_000{n}" for case in ("a", "b_1") for n in (0, 1))):
        (root / name).parent.mkdir(exist_ok=True)
        (root / f"{name}.nii.gz").touch()
    (root / "imagesTr" / "._a_0000.nii.gz").touch()
    return root
