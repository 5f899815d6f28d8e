from __future__ import annotations

import gzip

import nibabel as nib
import numpy as np
import pytest

from seg.data import memory
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
    return str(caught.value)


@pytest.mark.parametrize(("shape", "found"), [(SHAPE, 1), ((*SHAPE, 3), 3)])
def test_another_number_of_channels_is_named(tmp_path, shape, found):
    path = save(tmp_path / "a.nii", shape)
    assert problem([path]) == (
        f"{path}: image must have 2 channel(s), T1, T2, as the model was trained on, got {found}; name files of one "
        "case _0000, _0001, ... or stack them in a 4-D file."
    )


def test_channels_lie_on_one_grid(tmp_path):
    paths = [save(tmp_path / "a_0000.nii"), save(tmp_path / "a_0001.nii", (6, 5, 3))]
    assert problem(paths) == (
        f"{paths[1]}: channel shape (6, 5, 3) differs from image shape (6, 5, 4); export the channel on the "
        "image's grid."
    )
    save(paths[1], affine=np.diag([1, 1, 1.1, 1]))
    assert problem(paths).startswith(f"{paths[1]}: channel affine differs from image affine by 0.3 mm at a corner")
    save(paths[1], (*SHAPE, 2))
    assert problem(paths).startswith(f"{paths[0]}: image files must be 3-D where there is one per channel, got shape")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_are_finite(tmp_path, value):
    paths = [save(tmp_path / "a_0000.nii"), save(tmp_path / "a_0001.nii", value=value)]
    assert problem(paths) == f"{paths[1]}: image must be finite, got 1 NaN or infinite voxels; mend the image."


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [np.nan, -np.inf, 1e300])
def test_a_volume_without_a_finite_voxel_is_refused_by_a_sentence_alone(tmp_path, value):
    path = tmp_path / "a.nii.gz"
    nib.save(nib.Nifti1Image(np.full(SHAPE, value), np.eye(4)), path)
    assert problem([path], ("T1",)) == (
        f"{path}: image must be finite, got 120 NaN or infinite voxels; mend the image."
    )


def bomb(path, edge, content):
    """A file whose header promises a cube of voxels and whose body is something else."""
    header = nib.Nifti2Header()
    header.set_data_shape((edge, edge, edge))
    header.set_data_dtype(np.uint8)
    header["magic"], header["vox_offset"] = b"n+2\0\r\n\032\n", 544
    header.set_sform(np.eye(4), 1)
    path.write_bytes(gzip.compress(header.structarr.tobytes() + bytes(4) + content, 1))
    return path


def test_a_header_that_promises_more_than_the_file_can_hold_is_refused(tmp_path):
    path = bomb(tmp_path / "bomb.nii.gz", 10_000, b"")
    assert problem([path], ("T1",)).startswith(f"{path}: file must hold the 1000000000544 bytes of shape (10000, 10000")


def test_a_file_that_unpacks_to_more_than_there_is_memory_is_refused(tmp_path, monkeypatch):
    path = bomb(tmp_path / "bomb.nii.gz", 300, bytes(300**3))
    monkeypatch.setattr(memory, "available_bytes", lambda: 1 << 27)
    assert problem([path], ("T1",)) == (
        f"{path}: volume of shape (300, 300, 300) must fit in memory, got 0.126 GiB with 0.125 GiB available; crop the "
        "volume or take a machine with more."
    )
    monkeypatch.setattr(memory, "available_bytes", lambda: None)
    assert read_image([path], ("T1",)).array.shape == (1, 300, 300, 300)


def test_voxels_that_are_missing_are_named(tmp_path):
    path = bomb(tmp_path / "short.nii.gz", 50, bytes(1000) + np.random.default_rng(0).bytes(4000))
    assert problem([path], ("T1",)) == (
        f"{path}: file is truncated or damaged ('voxels are missing at the end'); copy or export it again."
    )
