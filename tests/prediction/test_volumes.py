from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from seg.errors import DataError
from seg.inference.cleaning import file_volumes

NAMES = ("background", "liver", "tumour")


@pytest.fixture
def labels():
    return np.random.default_rng(0).choice(3, (7, 6, 5), p=[0.6, 0.3, 0.1])


def write(path, array, *, slope=None):
    image = nib.Nifti1Image(
        array, nib.affines.from_matvec(nib.eulerangles.euler2mat(0.1, 0.2, 0) @ np.diag([2, -2.5, 3]))
    )
    if slope is not None:
        image.header.set_slope_inter(slope, 0)
    nib.save(image, path)
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.float64, ">i4"])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_volumes_are_voxels_of_the_file_times_their_size(tmp_path, labels, dtype, name):
    volumes = file_volumes(write(tmp_path / name, labels.astype(dtype)), NAMES)
    expected = {"liver": 0.015 * np.sum(labels == 1), "tumour": 0.015 * np.sum(labels == 2)}
    assert volumes == pytest.approx(expected)


def test_stored_values_are_scaled(tmp_path, labels):
    path = write(tmp_path / "a.nii", (2 * labels).astype(np.uint8), slope=0.5)
    found = np.asarray(nib.load(path).dataobj)  # nibabel stores what gives these values once scaled
    assert file_volumes(path, (*NAMES, "c", "d"))["liver"] == pytest.approx(0.015 * np.sum(found == 1))


@pytest.mark.parametrize(("value", "said"), [(3, "3"), (-1, "-1"), (0.5, "0.5"), (np.nan, "nan"), (1e30, "1e+30")])
def test_values_that_are_no_class_are_named(tmp_path, labels, value, said):
    array = labels.astype(np.float32)
    array[3, 2, 1] = value
    path = write(tmp_path / "a.nii.gz", array)
    with pytest.raises(DataError) as caught:
        file_volumes(path, NAMES)
    assert str(caught.value) == (
        f"{path}: labels must be integers from 0 to 2, got {said}; another data set's label map? Move it elsewhere."
    )


def test_channels_are_no_label_map(tmp_path):
    path = write(tmp_path / "a.nii", np.zeros((3, 4, 5, 2), np.uint8))
    with pytest.raises(DataError, match=r"got shape \(3, 4, 5, 2\)"):
        file_volumes(path, NAMES)
