"""NIfTI files against nibabel's own reading, and every fault by its sentence."""

from __future__ import annotations

import errno
import gzip
import os
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seg.data.geometry import geometry_of_affine
from seg.data.nifti import read_channels, read_header, read_volume
from seg.data.writing import write_labels
from seg.errors import DataError

Writer = Callable[..., Path]
AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])
HEADER_BYTES = 348
ARRAY = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
GEOMETRY = geometry_of_affine((2, 3, 4), AFFINE)


def problem_of(path: Path, read: Callable[[Path], object] = read_volume) -> str:
    with pytest.raises(DataError) as caught:
        read(path)
    return str(caught.value).replace(str(path), "FILE")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.permutations(range(3)),
    signs=st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3),
    tilt=st.floats(-0.3, 0.3),
    ending=st.sampled_from([".nii", ".nii.gz"]),
    dtype=st.sampled_from(["u1", "i2", "f4", "f8"]),
)
def test_any_orientation_is_read_as_ras(
    tmp_path: Path,
    write_nifti: Writer,
    order: list[int],
    signs: tuple[float, ...],
    tilt: float,
    ending: str,
    dtype: str,
) -> None:
    turn = np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.eye(3)[:, order] @ np.diag(signs) @ np.diag([1.0, 2.0, 3.0])
    affine[:3, 3] = 4, 5, 6
    path = write_nifti(tmp_path / f"a{ending}", ARRAY.astype(dtype), affine)
    expected = nib.as_closest_canonical(nib.load(path))
    volume, header = read_volume(path), read_header(path)
    np.testing.assert_array_equal(volume.array, np.asarray(expected.dataobj))
    assert volume.array.dtype == np.dtype(dtype) == header.dtype
    assert header.shape == volume.array.shape == expected.shape
    np.testing.assert_allclose(volume.affine, expected.affine, atol=1e-6)
    np.testing.assert_array_equal(header.affine, volume.affine)
    np.testing.assert_allclose(volume.spacing_mm, nib.affines.voxel_sizes(expected.affine), rtol=1e-6)
    assert header.spacing_mm == volume.spacing_mm


def test_scaled_values_and_nifti_2(tmp_path: Path) -> None:
    image = nib.Nifti2Image(ARRAY, AFFINE)
    image.header.set_slope_inter(0.5, -3)
    path = tmp_path / "a.nii.gz"
    nib.save(image, path)
    # nibabel stores (value - inter) / slope, so the values come back as they were, to rounding.
    np.testing.assert_allclose(read_volume(path).array, nib.load(path).get_fdata())


def test_the_other_byte_order(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    nib.save(nib.Nifti1Image(ARRAY, AFFINE, header=nib.Nifti1Header(endianness=">"), dtype="i2"), path)
    assert nib.load(path).get_data_dtype() == np.dtype(">i2")
    volume = read_volume(path)
    assert volume.array.dtype == np.dtype("=i2")
    np.testing.assert_array_equal(volume.array, ARRAY)


def test_trailing_axes_of_length_one_are_dropped(tmp_path: Path, write_nifti: Writer) -> None:
    path = write_nifti(tmp_path / "a.nii", ARRAY[..., None], AFFINE)
    assert read_header(path).shape == ARRAY.shape
    np.testing.assert_array_equal(read_volume(path).array, ARRAY)


def test_channels_of_one_file_and_of_several(tmp_path: Path, write_nifti: Writer) -> None:
    affine = np.diag([-1.0, 2.0, 3.0, 1.0])
    whole = write_nifti(tmp_path / "whole.nii.gz", np.stack([ARRAY, ARRAY + 100], axis=-1), affine)
    parts = [write_nifti(tmp_path / f"{n}.nii.gz", ARRAY + 100 * n, affine) for n in range(2)]
    assert read_header(whole).shape == (2, 3, 4, 2)
    for one, other, number in zip(read_channels([whole]), read_channels(parts), range(2), strict=True):
        np.testing.assert_array_equal(one.array, ARRAY[::-1] + 100 * number)
        np.testing.assert_array_equal(other.array, one.array)
        np.testing.assert_array_equal(other.affine, one.affine)


def test_missing_and_misnamed(tmp_path: Path) -> None:
    assert problem_of(tmp_path / "a.nii.gz") == "FILE: file must exist, got none; restore it or remove the case."
    assert problem_of(tmp_path / "a.nrrd") == "FILE: must be a NIfTI file named .nii or .nii.gz; convert it."
    (tmp_path / "b.nii").mkdir()
    assert "must be readable, got 'Is a directory'" in problem_of(tmp_path / "b.nii")


@pytest.mark.parametrize("content", [b"hello", bytes(352), bytes(1000)])
def test_not_a_nifti(tmp_path: Path, content: bytes) -> None:
    plain, packed = tmp_path / "a.nii", tmp_path / "a.nii.gz"
    plain.write_bytes(content)
    packed.write_bytes(gzip.compress(content))
    for path in (plain, packed):
        for read in (read_volume, read_header):
            assert problem_of(path, read) == "FILE: must be a NIfTI file, got other content; convert it."


def test_not_a_gzip_file(tmp_path: Path, write_nifti: Writer) -> None:
    plain = write_nifti(tmp_path / "a.nii", ARRAY)
    path = plain.rename(tmp_path / "a.nii.gz")
    assert problem_of(path).startswith("FILE: must be a whole gzip file, got 'Not a gzipped file")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_every_truncation_is_seen(tmp_path: Path, write_nifti: Writer, ending: str) -> None:
    path = write_nifti(tmp_path / f"a{ending}", ARRAY)
    whole = path.read_bytes()
    # The last bytes of a gzip file are its checksum: a reader that stops after the voxels does not miss them.
    for length in (len(whole) - 1, len(whole) - 8, len(whole) // 2, 20):
        path.write_bytes(whole[:length])
        problem = problem_of(path)
        assert "truncated" in problem or (length < HEADER_BYTES and "must be a NIfTI file" in problem), problem


def test_damaged_voxels_are_seen(tmp_path: Path, write_nifti: Writer) -> None:
    path = write_nifti(tmp_path / "a.nii.gz", np.random.default_rng(0).integers(0, 9, (9, 9, 9)).astype(np.uint8))
    content = bytearray(path.read_bytes())
    content[-8] ^= 1  # the checksum of the content
    path.write_bytes(content)
    assert problem_of(path).startswith("FILE: must be a whole gzip file, got 'CRC check failed")


def test_an_axis_without_voxels(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    nib.save(nib.Nifti1Image(np.zeros((2, 0, 4), dtype=np.uint8), AFFINE), path)
    assert problem_of(path) == "FILE: every axis must have at least one voxel, got shape (2, 0, 4); export it again."


@pytest.mark.parametrize(
    "matrix",
    [np.diag([1.0, 0, 1]), np.array([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]]), np.diag([np.nan, 1, 1])],
    ids=["no width", "parallel axes", "not a number"],
)
def test_singular_affine(tmp_path: Path, matrix: np.ndarray) -> None:
    path = tmp_path / "a.nii"
    nib.save(nib.Nifti1Image(ARRAY, AFFINE), path)
    content = bytearray(path.read_bytes())
    rows = np.column_stack([matrix, np.zeros(3)])
    struct.pack_into("<hh", content, 252, 0, 1)  # qform_code, sform_code
    struct.pack_into("<12f", content, 280, *rows.ravel())
    path.write_bytes(content)
    assert problem_of(path) == f"FILE: affine must be invertible, got {rows.tolist()}; export it with its geometry."


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_absurd_sizes_are_refused_before_anything_is_allocated(tmp_path: Path, ending: str) -> None:
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float64)
    header.set_data_shape((32767, 32767, 32767))
    header.set_sform(AFFINE, code=1)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    content = header.binaryblock + bytes(100)
    path = tmp_path / f"a{ending}"
    path.write_bytes(content if ending == ".nii" else gzip.compress(content))
    size = path.stat().st_size
    for read in (read_volume, read_header):
        assert problem_of(path, read) == (
            f"FILE: file must hold the {352 + 8 * 32767**3} bytes of shape (32767, 32767, 32767), "
            f"got a truncated file of {size} bytes; copy or export it again."
        )


def test_other_numbers_of_axes_and_other_voxels(tmp_path: Path, write_nifti: Writer) -> None:
    flat = write_nifti(tmp_path / "flat.nii", ARRAY[0])
    assert "must have 3 axes, or 4 with channels last, got shape (3, 4)" in problem_of(flat)
    deep = write_nifti(tmp_path / "deep.nii", np.zeros((2, 2, 2, 2, 2), dtype=np.uint8))
    assert "must have 3 axes, or 4 with channels last, got shape (2, 2, 2, 2, 2)" in problem_of(deep)
    waves = write_nifti(tmp_path / "waves.nii", ARRAY.astype(np.complex64))
    assert problem_of(waves) == "FILE: voxels must be real numbers, got complex64; export one number per voxel."


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_label_map_is_written_on_its_grid(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "new" / f"a{ending}"
    affine = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1]])
    write_labels(path, ARRAY, geometry_of_affine(ARRAY.shape, affine))
    image = nib.load(path)
    np.testing.assert_array_equal(np.asarray(image.dataobj), ARRAY)
    np.testing.assert_allclose(image.get_sform(), affine)
    np.testing.assert_allclose(image.get_qform(), affine, atol=1e-5)
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 1)
    assert image.get_data_dtype() == np.uint8
    assert image.header.get_xyzt_units()[0] == "mm"
    before = path.read_bytes()
    write_labels(path, ARRAY.astype(np.int64), geometry_of_affine(ARRAY.shape, affine))
    assert path.read_bytes() == before
    assert ending == ".nii" or before[4:8] == bytes(4)  # no time of writing
    assert os.listdir(path.parent) == [path.name]


def test_many_labels_take_two_bytes(tmp_path: Path) -> None:
    write_labels(tmp_path / "a.nii.gz", ARRAY.astype(np.int32) * 100, GEOMETRY)
    image = nib.load(tmp_path / "a.nii.gz")
    assert image.get_data_dtype() == np.uint16
    np.testing.assert_array_equal(np.asarray(image.dataobj), ARRAY * 100)


@pytest.mark.parametrize("array", [ARRAY[0], ARRAY / 2, ARRAY - 1, ARRAY.astype(np.int64) * 10_000])
def test_what_is_no_label_map_is_not_written(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(ValueError, match="must"):
        write_labels(tmp_path / "a.nii.gz", array, GEOMETRY)
    assert not os.listdir(tmp_path)


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.nii.gz"
    write_labels(path, ARRAY, GEOMETRY)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError) as caught:
        write_labels(path, ARRAY * 2, GEOMETRY)
    assert str(caught.value) == (
        f"{path} must be writable, got 'No space left on device'; free space or choose another folder."
    )
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.nii.gz"]


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(DataError, match=r"must be writable, got '.+'; free space or choose another folder\."):
        write_labels(tmp_path / "taken" / "a.nii.gz", ARRAY, GEOMETRY)
