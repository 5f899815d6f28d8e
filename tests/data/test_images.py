"""Images of several channels, in files of their own or in a file of all."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from seg.data.images import read_image
from seg.errors import DataError

SHAPE = (6, 5, 4)


def save(path, shape=SHAPE, affine=None, value=None):
    array = np.random.default_rng(0).random(shape).astype(np.float32)
    if value is not None:
        array[2, 1, 3] = value
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


def problem(paths, channels=("T1", "T2")):
    with pytest.raises(DataError) as caught:
        read_image(paths, channels)
    return caught.value.problems[0]


@pytest.mark.parametrize(("shape", "found"), [(SHAPE, "1"), ((*SHAPE, 3), "3")])
def test_another_number_of_channels_is_named(tmp_path, shape, found):
    path = save(tmp_path / "a.nii", shape)
    said = problem([path])
    assert (said.path, said.kind, said.value) == (str(path), "channels", found)


def test_channels_lie_on_one_grid(tmp_path):
    paths = [save(tmp_path / "a_0000.nii"), save(tmp_path / "a_0001.nii", (6, 5, 3))]
    assert "shape (6, 5, 3)" in str(problem(paths))
    save(paths[1], affine=np.diag([1, 1, 1.1, 1]))
    assert "by 0.3 mm" in str(problem(paths))
    save(paths[1], (*SHAPE, 2))
    assert problem(paths).kind == "axes"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_are_finite(tmp_path, value):
    paths = [save(tmp_path / "a_0000.nii"), save(tmp_path / "a_0001.nii", value=value)]
    said = problem(paths)
    assert (said.path, said.kind, said.value) == (str(paths[1]), "finite", "1 NaN or infinite voxels")
    nib.save(nib.Nifti1Image(np.full(SHAPE, value if np.isnan(value) else 1e300), np.eye(4)), tmp_path / "b.nii.gz")
    assert problem([tmp_path / "b.nii.gz"], ("T1",)).value == "120 NaN or infinite voxels"
