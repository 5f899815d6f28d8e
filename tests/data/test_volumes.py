"""NIfTI files against nibabel's own reading; what every fault names; label maps that are written."""

from __future__ import annotations

import errno
import gzip
import importlib.util
import os
import struct
import tomllib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seg.data import memory
from seg.data.formats import FORMATS
from seg.data.geometry import geometry_of_affine
from seg.data.prepare import read_image
from seg.data.volumes import (
    is_whole,
    open_volume,
    read_header,
    read_label,
    read_volume,
    split_ending,
    write_labels,
)
from tests.data.builders import problems_of

Writer = Callable[..., Path]
AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])
ARRAY = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
GEOMETRY = geometry_of_affine((2, 3, 4), AFFINE)
BOTH = pytest.mark.parametrize("ending", [".nii", ".nii.gz"])


def kind_of(path, read=read_volume):
    """Which rule a refused file breaks; the problem names the file."""
    ((named, kind, _),) = problems_of(read, path)
    assert named == str(path)
    return kind


def write(path, content):
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.permutations(range(3)),
    signs=st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3),
    tilt=st.floats(-0.3, 0.3),
    ending=st.sampled_from([".nii", ".nii.gz", ".NII", ".Nii.Gz"]),
    dtype=st.sampled_from(["u1", "i2", ">i2", "f4", "f8"]),
    channels=st.sampled_from([1, 2]),
    kind=st.sampled_from([nib.Nifti1Image, nib.Nifti2Image]),
    slope=st.sampled_from([None, (0.37, -3.1)]),
)
def test_any_file_is_read_as_nibabel_reads_it(tmp_path, order, signs, tilt, ending, dtype, channels, kind, slope):
    turn = np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.eye(3)[:, order] @ np.diag(signs) @ np.diag([1.0, 2.0, 3.0])
    affine[:3, 3] = 4, 5, 6
    array = (ARRAY if channels == 1 else np.stack([ARRAY, ARRAY + 100], axis=-1)).astype(dtype)
    header = kind.header_class(endianness=">" if ">" in dtype else "<")
    image = kind(array, affine, header=header, dtype=dtype)
    if slope:
        image.header.set_slope_inter(*slope)
    lower = tmp_path / f"a{ending.lower()}"
    nib.save(image, lower)
    own = nib.load(lower)
    stored = np.asarray(own.dataobj).reshape(2, 3, 4, channels)
    canonical = nib.as_closest_canonical(own)
    path = tmp_path / f"b{ending}"
    path.write_bytes(lower.read_bytes())
    volume, header = read_volume(path), read_header(path)
    np.testing.assert_array_equal(volume.array, np.moveaxis(stored, 3, 0))
    assert volume.array.dtype == stored.dtype.newbyteorder("=") == header.dtype
    assert (header.shape, header.channels) == (volume.array.shape[1:], channels)
    np.testing.assert_allclose(header.affine, own.affine, atol=1e-6)
    turned = volume.oriented()
    expected = np.asarray(canonical.dataobj).reshape(*canonical.shape[:3], channels)
    np.testing.assert_array_equal(turned.array, np.moveaxis(expected, 3, 0))
    np.testing.assert_allclose(turned.affine, canonical.affine, atol=1e-6)
    np.testing.assert_allclose(turned.spacing_mm, nib.affines.voxel_sizes(canonical.affine), rtol=1e-6)
    names = ("a", "b")[:channels]
    np.testing.assert_array_equal(read_image([path], names).array, turned.array.astype(np.float32))


@BOTH
def test_a_file_that_is_cut_short_while_it_is_read_is_refused(tmp_path, write_nifti, ending):
    path = write_nifti(tmp_path / f"a{ending}", np.random.default_rng(0).random((64, 64, 64)))
    with open_volume(path) as file:
        os.truncate(path, path.stat().st_size // 2)
        assert kind_of(path, lambda _: file.voxels()) == "truncated"


def test_axes_of_length_one_and_labels(tmp_path, write_nifti):
    path = write_nifti(tmp_path / "a.nii", ARRAY[..., None])
    np.testing.assert_array_equal(read_label(path).array, ARRAY)
    several = write_nifti(tmp_path / "b.nii", np.stack([ARRAY, ARRAY], axis=-1))
    assert kind_of(several, read_label) == "axes"
    sitk = pytest.importorskip("SimpleITK", reason="writes files with SimpleITK; pip install SimpleITK")
    array = np.random.default_rng(0).random((4, 3, 2, 3)).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=True), str(tmp_path / "c.nii.gz"))
    assert nib.load(tmp_path / "c.nii.gz").shape == (2, 3, 4, 1, 3)
    np.testing.assert_array_equal(read_volume(tmp_path / "c.nii.gz").array, array.transpose(3, 2, 1, 0))


@pytest.mark.parametrize(
    ("name", "make", "kind"),
    [
        ("a.nii.gz", None, "missing"),
        ("a.xyz", Path.touch, "format"),
        ("b.nii", Path.mkdir, "format"),
        ("c" * 300 + ".nii", None, "name"),
        ("a\0.nii", None, "name"),
        ("pipe.nii", os.mkfifo, "file"),
    ],
)
def test_files_that_are_none_are_named(tmp_path, name, make, kind):
    if make:
        make(tmp_path / name)
    for read in (read_volume, read_header):
        assert kind_of(tmp_path / name, read) == kind


@BOTH
@pytest.mark.parametrize("content", [b"", b"hello", bytes(352), bytes(1000)])
def test_other_content_is_refused(tmp_path, content, ending):
    path = write(tmp_path / f"a{ending}", content)
    for read in (read_volume, read_header):
        assert kind_of(path, read) == "format"
    path.write_bytes(b"")
    assert kind_of(path) == "format"
    assert not is_whole(path)


@BOTH
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_an_ending_that_does_not_fit_is_to_be_renamed(tmp_path, ending, kind):
    other = {".nii": ".nii.gz", ".nii.gz": ".nii"}[ending]
    nib.save(kind(ARRAY, AFFINE), tmp_path / f"a{other}")
    path = (tmp_path / f"a{other}").rename(tmp_path / f"a{ending}")
    value = "a plain NIfTI file" if other == ".nii" else "a packed one"
    for read in (read_volume, read_header):
        assert problems_of(read, path) == [(str(path), "format", value)]


@BOTH
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_every_truncation_is_seen(tmp_path, ending, kind):
    path = tmp_path / f"a{ending}"
    nib.save(kind(ARRAY, AFFINE), path)
    whole = path.read_bytes()
    # The last bytes of a gzip file are its checksum: a reader that stops after the voxels does not miss them.
    for length in {len(whole) - 1, len(whole) - 8, len(whole) // 2, 500, 349, 20} & set(range(len(whole))):
        path.write_bytes(whole[:length])
        assert kind_of(path) in ("truncated", "header", "format"), length


def test_a_wrong_checksum_is_seen(tmp_path, write_nifti):
    path = write_nifti(tmp_path / "a.nii.gz", np.random.default_rng(0).integers(0, 9, (9, 9, 9)).astype(np.uint8))
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    assert kind_of(path) == "damaged"


@pytest.mark.parametrize(
    ("offset", "form", "values", "kind"),
    [
        (123, "B", [57], "header"),
        (123, "B", [5], "unit"),
        (108, "<f", [np.inf], "header"),  # vox_offset
        (108, "<f", [np.nan], "header"),
        (76, "<f", [np.inf], None),  # pixdim[0], the sign of the qform's third axis
        (70, "<h", [32], "dtype"),  # complex
        (70, "<h", [9999], "header"),
        (40, "<8h", [2, 3, 4, 1, 1, 1, 1, 1], "axes"),
        (40, "<8h", [5, 1, 1, 2, 3, 4, 1, 1], "axes"),
        (40, "<8h", [3, 2, 0, 4, 1, 1, 1, 1], "shape"),
        (40, "<8h", [3, 2, -3, 4, 1, 1, 1, 1], "shape"),
        (40, "<8h", [3, 2000, 3000, 4000, 1, 1, 1, 1], "truncated"),
        (252, "<2h2f", [0, 1, 0, 0], None),  # the sform counts
        (280, "<12f", [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0], "affine"),  # no width
        (280, "<12f", [1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 1, 0], "affine"),  # parallel axes
        (280, "<12f", [np.nan, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0], "affine"),
    ],
)
def test_faulty_fields_are_named(tmp_path, offset, form, values, kind):
    path = tmp_path / "a.nii"
    image = nib.Nifti1Image(ARRAY, AFFINE)
    image.set_sform(AFFINE, code=0 if offset == 76 else 1)
    image.set_qform(AFFINE, code=1)
    nib.save(image, path)
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, offset, *values)
    path.write_bytes(content)
    if kind is None:
        np.testing.assert_array_equal(read_label(path).array, ARRAY)
        return
    for read in (read_header, read_volume, read_label, lambda file: read_image([file], ("CT",))):
        assert kind_of(path, read) == kind


def bomb(path, edge, content, slope=1):
    """Writes a file whose header promises a cube of voxels and whose body is something else."""
    header = nib.Nifti2Header()
    header.set_data_shape((edge, edge, edge))
    header.set_data_dtype(np.uint8)
    header["magic"], header["vox_offset"] = b"n+2\0\r\n\032\n", 544
    header["scl_slope"] = slope
    header.set_sform(np.eye(4), 1)
    path.write_bytes(gzip.compress(header.structarr.tobytes() + bytes(4) + content, 1))
    return path


@pytest.mark.parametrize("slope", [1, 0.5])
def test_what_does_not_fit_in_memory_is_refused_before_it_is_read(tmp_path, monkeypatch, slope):
    # No file of this size holds so many voxels, whatever is in memory.
    assert kind_of(bomb(tmp_path / "a.nii.gz", 10_000, b""), read_header) == "truncated"
    path = bomb(tmp_path / "a.nii.gz", 300, bytes(300**3), slope)
    monkeypatch.setattr(memory, "available_bytes", lambda: (25 << 20) if slope == 1 else (200 << 20))
    for read in (read_volume, read_label):
        assert kind_of(path, read) == "memory"  # 27 MB, or 216 MB of doubles
    assert read_header(path).voxels_bytes == 300**3 * (1 if slope == 1 else 8)
    monkeypatch.setattr(memory, "available_bytes", lambda: None)
    assert read_volume(path).array.shape == (1, 300, 300, 300)


def test_voxels_that_are_missing_in_a_packed_file(tmp_path):
    path = bomb(tmp_path / "short.nii.gz", 50, bytes(1000) + np.random.default_rng(0).bytes(4000))
    assert kind_of(path) == "truncated"


def test_a_stream_that_goes_on_is_not_unpacked_to_its_end(tmp_path, monkeypatch):
    plain = bytes(nib.Nifti1Image(ARRAY, AFFINE).to_bytes())
    path = write(tmp_path / "a.nii.gz", plain + bytes(1 << 20))
    np.testing.assert_array_equal(read_label(path).array, ARRAY)
    path.write_bytes(gzip.compress(plain + bytes(1 << 25), 1) + gzip.compress(bytes(1 << 25), 1) * 8)
    read = []
    real = gzip.GzipFile.read

    def count(file, size=-1):
        content = real(file, size)
        read.append(len(content))
        return content

    monkeypatch.setattr(gzip.GzipFile, "read", count)
    assert kind_of(path) == "tail"
    assert sum(read) < 8 << 20  # of 288 MiB
    assert kind_of(write(tmp_path / "a.nii", plain + bytes(1 << 23))) == "tail"


@BOTH
def test_a_label_map_is_written_on_its_grid(tmp_path, ending):
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
    capitals = path.with_name(f"B{ending.upper()}")
    write_labels(capitals, ARRAY, geometry_of_affine(ARRAY.shape, affine))
    assert capitals.read_bytes() == before
    write_labels(path, ARRAY.astype(np.int32) * 100, GEOMETRY)
    assert nib.load(path).get_data_dtype() == np.uint16  # many labels take two bytes
    np.testing.assert_array_equal(np.asarray(nib.load(path).dataobj), ARRAY * 100)


@pytest.mark.parametrize("array", [ARRAY[0], ARRAY / 2, ARRAY - 1, ARRAY.astype(np.int64) * 10_000])
def test_what_is_no_label_map_is_not_written(tmp_path, array):
    with pytest.raises(ValueError, match="must"):
        write_labels(tmp_path / "a.nii.gz", array, GEOMETRY)
    assert not os.listdir(tmp_path)


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "a.nii.gz"
    write_labels(path, ARRAY, GEOMETRY)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert [found[1] for found in problems_of(write_labels, path, ARRAY * 2, GEOMETRY)] == ["no_room"]
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.nii.gz"]
    (tmp_path / "taken").write_text("")
    assert problems_of(write_labels, tmp_path / "taken" / "a.nii.gz", ARRAY, GEOMETRY)


@BOTH
def test_a_whole_file_is_told_from_others(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    write_labels(path, np.random.default_rng(0).integers(0, 99, (2, 3, 4)), GEOMETRY)
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


def test_the_callers_own_errors_are_not_taken_for_the_files(tmp_path, write_nifti):
    path = write_nifti(tmp_path / "a.nii.gz", ARRAY)
    with pytest.raises(PermissionError), open_volume(path):
        raise PermissionError


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
def test_a_name_is_split_before_its_ending(name, stem, ending):
    assert split_ending(name) == (stem, ending)


def test_the_environment_of_tests_has_every_reader_at_its_exact_version():
    root = Path(__file__).parents[2]
    extras = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    readers = {line.split(">=")[0] for line in extras["formats"]}
    assert readers == {package for kind in FORMATS for package in kind.packages}
    (others,) = (line for line in extras["dev"] if line.startswith("segnarrow["))
    assert "formats" in others.partition("[")[2].rstrip("]").split(",")
    pinned = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert readers <= {line.split("==")[0] for line in pinned}


def test_packages_that_are_missing_are_named(tmp_path, monkeypatch):
    path = tmp_path / "a.nrrd"
    path.write_text("NRRD0004\n")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert problems_of(read_volume, path) == [(str(path), "package", "no SimpleITK")]
