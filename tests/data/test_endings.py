from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from seg.config import DataConfig
from seg.data.endings import in_small_letters, split_ending
from seg.data.geometry import geometry_of_affine
from seg.data.images import read_image
from seg.data.nifti import read_volume
from seg.data.transforms import preparation
from seg.data.writing import write_labels

ARRAY = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
ENDINGS = [".NII", ".NII.GZ", ".Nii.Gz"]


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("ending", ENDINGS)
def test_files_are_read_alike(tmp_path: Path, ending: str, kind: Any) -> None:
    nib.save(kind(ARRAY, np.eye(4)), tmp_path / f"a{ending.lower()}")
    path = (tmp_path / f"a{ending.lower()}").rename(tmp_path / f"UP{ending}")
    prepared = preparation(DataConfig(normalization=("none",)), with_label=False)({"image": [str(path)]})
    for array in (read_volume(path).array, read_image([path], ("CT",)).array[0], prepared["image"][0]):
        np.testing.assert_array_equal(np.asarray(array), ARRAY)


@pytest.mark.parametrize("ending", ENDINGS)
def test_files_are_packed_as_their_names_say(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"labels{ending}"
    write_labels(path, ARRAY, geometry_of_affine((2, 3, 4), np.eye(4)))
    content = path.read_bytes()
    image = nib.Nifti1Image.from_bytes(content if ending == ".NII" else gzip.decompress(content))
    np.testing.assert_array_equal(np.asarray(image.dataobj), ARRAY)


@pytest.mark.parametrize(
    ("name", "stem", "ending"),
    [
        ("a.b.nii.gz", "a.b", ".nii.gz"),
        ("UP.NII.GZ", "UP", ".NII.GZ"),
        ("a.nii", "a", ".nii"),
        ("a.gz", "a.gz", ""),
        (".nii", ".nii", ""),
    ],
)
def test_a_name_is_split_before_its_ending(name: str, stem: str, ending: str) -> None:
    assert split_ending(name) == (stem, ending)
    assert in_small_letters(name) == stem + ending.lower()
