"""What lies around the voxels of a NIfTI file: nothing, too little, too much, or axes that others write."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from seg.config import DataConfig
from seg.data.geometry import geometry_of_affine
from seg.data.images import read_image
from seg.data.nifti import is_whole, read_channels, read_header, read_volume
from seg.data.transforms import preparation
from seg.data.writing import write_labels
from seg.errors import DataError
from tests.data.conftest import AFFINE, SHAPE

ARRAY = np.random.default_rng(0).integers(0, 99, SHAPE).astype(np.uint8)


def save(path: Path, array: np.ndarray = ARRAY) -> Path:
    nib.save(nib.Nifti1Image(array, AFFINE), path)
    return path


@pytest.mark.parametrize("count", [1, 2, 3])
def test_vectors_of_itk_are_channels(tmp_path: Path, count: int) -> None:
    sitk = pytest.importorskip("SimpleITK", reason="writes files with SimpleITK; pip install SimpleITK")
    array = np.random.default_rng(0).random((*SHAPE, count)).astype(np.float32)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0, 3)), isVector=True)
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))  # RAS
    sitk.WriteImage(image, str(tmp_path / "a.nii.gz"))
    path = tmp_path / "a.nii.gz"
    assert nib.load(path).shape == ((*SHAPE, 1, count) if count > 1 else SHAPE)
    names = ("a", "b", "c")[:count]
    np.testing.assert_array_equal(read_image([path], names).array, array.transpose(3, 0, 1, 2))
    np.testing.assert_array_equal([one.array for one in read_channels([path])], array.transpose(3, 0, 1, 2))
    prepared = preparation(DataConfig(normalization=("none",)), with_label=False)({"image": [str(path)]})
    np.testing.assert_array_equal(np.asarray(prepared["image"]), array.transpose(3, 0, 1, 2))


def problem(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_volume(path)
    with pytest.raises(DataError) as other:
        read_image([path], ("CT",))
    assert str(caught.value) == str(other.value)
    return str(caught.value)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_an_empty_file_is_said_to_be_empty(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    path.write_bytes(b"")
    assert problem(path) == f"{path}: must be a NIfTI file, got an empty one; copy or export it again."
    assert not is_whole(path)


def test_a_stream_that_goes_on_is_not_unpacked_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, plain = tmp_path / "a.nii.gz", save(tmp_path / "a.nii").read_bytes()
    path.write_bytes(gzip.compress(plain + bytes(1 << 20)))
    np.testing.assert_array_equal(read_volume(path).array, ARRAY)
    tail = gzip.compress(bytes(1 << 25), 1)
    path.write_bytes(gzip.compress(plain + bytes(1 << 25), 1) + tail * 8)
    read = []
    real = gzip.GzipFile.read

    def count(file: gzip.GzipFile, size: int = -1) -> bytes:
        content = real(file, size)
        read.append(len(content))
        return content

    monkeypatch.setattr(gzip.GzipFile, "read", count)
    assert problem(path) == (
        f"{path}: file must end behind its last voxel, got 4 MiB and more after it; export it again."
    )
    assert sum(read) < 2 * (8 << 20)  # of 288 MiB, by each of two readers


def test_a_unit_that_is_none_of_length_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii")
    content = bytearray(path.read_bytes())
    content[123] = 5  # xyzt_units
    path.write_bytes(content)
    assert problem(path) == f"{path}: unit of length must be mm, micron or metre, got code 5; export it in mm."
    with pytest.raises(DataError, match="got code 5"):
        read_header(path)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_whole_file_is_told_from_others(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    write_labels(path, ARRAY, geometry_of_affine(ARRAY.shape, AFFINE))
    whole = path.read_bytes()
    assert is_whole(path)
    for content in (whole[:60], whole[:-9], b"mine", whole[: len(whole) // 2]):
        path.write_bytes(content)
        assert not is_whole(path)
    path.unlink()
    assert not is_whole(path)
    if ending == ".nii.gz":  # in two parts, as others may pack
        plain = gzip.decompress(whole)
        path.write_bytes(gzip.compress(plain[:400]) + gzip.compress(plain[400:]))
        assert is_whole(path)
        path.write_bytes(path.read_bytes()[:-9])
        assert not is_whole(path)
