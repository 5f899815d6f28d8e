"""Checks of whole data sets: sound cases pass, and every fault is reported with its case, all together."""

from __future__ import annotations

import gzip
import io
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from seg.config import CtConfig, DataConfig
from seg.data import memory
from seg.data.cases import Case, Dataset
from seg.data.checks import check_channels, check_dataset
from seg.data.datasets import read_dataset
from seg.data.geometry import GRID_TOLERANCE
from seg.errors import ConfigError
from seg.workflows.inputs import read_checked
from tests.data.checked import errors_of

Writer = Callable[..., Path]
Change = Callable[[np.ndarray], np.ndarray]
AFFINE = np.array([[1.5, 0, 0, -20], [0, 2, 0, 7], [0, 0, 4, 1], [0, 0, 0, 1]], dtype=float)


@pytest.fixture
def case(msd):
    return read_dataset(msd).cases[0]


def put(array, voxels, dtype):
    changed = array.astype(dtype)
    changed[0, 0, : len(voxels)] = voxels
    return changed


def test_where_a_file_lies_is_doubted_once_a_case(msd):
    assert check_dataset(read_dataset(msd)) == ()
    for path in (msd / "imagesTr/a.nii.gz", msd / "labelsTr/a.nii.gz", msd / "labelsTr/c.nii.gz"):
        image = nib.load(path)
        image.header.set_xyzt_units("micron")
        thousandfold = np.diag([1000.0, 1000, 1000, 1]) @ AFFINE  # the same grid
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), thousandfold, image.header), path)
    reports = check_dataset(read_dataset(msd))
    assert [(report.case_id, report.errors, len(report.warnings)) for report in reports] == [("a", (), 1), ("c", (), 1)]
    assert [report.warnings[0].path for report in reports] == ["case a", "case c"]


def test_all_problems_come_together_in_the_order_of_the_cases(msd, write_nifti, image_array, label_array):
    write_nifti(msd / "labelsTr/c.nii.gz", label_array[1:])
    write_nifti(msd / "imagesTr/c.nii.gz", np.where(image_array > 110, np.nan, image_array))
    write_nifti(msd / "labelsTr/b.nii.gz", label_array * 0)
    (msd / "imagesTr/a.nii.gz").unlink()
    dataset = read_dataset(msd)
    a, b, c = check_dataset(dataset)
    assert [problem.path for problem in a.errors] == ["case a"]
    assert (b.errors, [(problem.path, problem.kind) for problem in b.warnings]) == ((), [("case b", "empty")])
    assert [(problem.path, problem.kind, problem.value) for problem in c.errors] == [
        ("case c", "finite", f"{(image_array > 110).sum()} NaN or infinite voxels"),
        ("case c", "grid", "(5, 5, 4)"),
    ]
    assert check_dataset(dataset, workers=2) == (a, b, c)


def test_a_terminal_sees_how_far_the_check_is(msd, monkeypatch):
    dataset = read_dataset(msd)
    for on_terminal, progress, shown in ((True, True, True), (False, True, False), (True, False, False)):
        screen = io.StringIO()
        monkeypatch.setattr(screen, "isatty", lambda answer=on_terminal: answer, raising=False)
        monkeypatch.setattr(sys, "stderr", screen)
        check_dataset(dataset, progress=progress)
        assert ("check: 100%" in screen.getvalue() and "3/3" in screen.getvalue()) == shown


@pytest.mark.parametrize(
    ("change", "kind", "value"),
    [
        (lambda array: put(array, [np.nan], "f4"), "finite", "1 NaN or infinite voxels"),
        (lambda array: put(array, [np.inf, -np.inf], "f4"), "finite", "2 NaN or infinite voxels"),
        (lambda array: put(array, [1e300], "f8"), "range", None),
        (lambda array: put(array, [-1e36], "f8"), "range", None),
        (lambda array: 1e9 + (array > 100).astype("f8"), "constant", "1e+09 in every voxel"),
        (lambda array: np.full_like(array, 7), "constant", "7 in every voxel"),
        (lambda array: np.stack([array, array], axis=-1), "channels", "2"),
        (lambda array: array[..., None], None, None),
    ],
)
def test_images(case, write_nifti, image_array, change, kind, value):
    write_nifti(case.images[0], change(image_array))
    found = errors_of(case)
    assert [(problem.path, problem.kind) for problem in found] == ([] if kind is None else [("case a", kind)])
    assert value is None or found[0].value == value


def test_channels(case, write_nifti, image_array):
    twice = replace(case, images=case.images * 2)
    assert [problem.kind for problem in errors_of(case, channels=2)] == ["channels"]
    assert errors_of(twice, channels=2) == []
    other = write_nifti(case.images[0].with_name("t2.nii.gz"), image_array[:, 1:])
    (problem,) = errors_of(replace(case, images=(*case.images, other)), channels=2)
    assert (problem.kind, problem.value) == ("grid", "(6, 4, 4)")
    write_nifti(case.images[0], np.stack([image_array, image_array * 0], axis=-1))
    (problem,) = errors_of(case, channels=2)
    assert problem.kind == "constant"
    assert "a.nii.gz channel 1" in problem.rule
    assert "channels" in [problem.kind for problem in errors_of(twice, channels=4)]


@pytest.mark.parametrize(
    ("change", "ignore", "kind", "value"),
    [
        (lambda array: put(array, [3], "u1"), None, "values", "3"),
        (lambda array: put(array, [3, 7], "f4"), None, "values", "3, 7"),
        (lambda array: put(array, [-1], "i2"), None, "values", "-1"),
        (lambda array: put(array, [1e30], "f4"), None, "values", "1.0000000150474662e+30"),
        (lambda array: put(array, [0.5, 1.25], "f4"), None, "integer", "0.5 and 1 more fractions"),
        (lambda array: put(array, [1.002], "f4"), None, "integer", "1.002 and 0 more fractions"),
        (lambda array: put(array, [1.00002, -0.0000002], "f4"), None, None, ""),
        (lambda array: put(array, [np.nan], "f4"), None, "finite", "NaN or infinite voxels"),
        (lambda array: put(array, [np.inf], "f4"), None, "finite", "NaN or infinite voxels"),
        (lambda array: array.astype("f8"), None, None, ""),
        (lambda array: put(array, [9], "f8"), 9, None, ""),
        (lambda array: put(array, [9], "f8"), 8, "values", "9"),
        (lambda array: np.stack([array, array], axis=-1), None, "channels", "2 channels"),
        (lambda array: array[1:], None, "grid", "(5, 5, 4)"),
    ],
)
def test_labels(case, write_nifti, label_array, change, ignore, kind, value):
    assert case.label is not None
    write_nifti(case.label, change(label_array))
    expected = [] if kind is None else [("case a", kind, value)]
    found = errors_of(case, ignore_label=ignore)
    assert [(problem.path, problem.kind, problem.value) for problem in found] == expected


def test_labels_that_say_nothing(msd, case, write_nifti, label_array):
    assert [problem.kind for problem in errors_of(replace(case, label=None))] == ["missing"]
    dataset = replace(read_dataset(msd), ignore_label=9)
    write_nifti(msd / "labelsTr/a.nii.gz", np.where(label_array > 0, 9, 0).astype(np.uint8))
    (report,) = check_dataset(dataset)  # what is ignored is no foreground
    assert (report.case_id, report.errors, [problem.kind for problem in report.warnings]) == ("a", (), ["empty"])


def moved(share):
    affine = AFFINE.copy()
    affine[1, 3] += share * GRID_TOLERANCE * 1.5  # the smallest edge of a voxel
    return affine


@pytest.mark.parametrize(
    ("affine", "refused"),
    [
        (moved(0.9), False),
        (moved(1.1), True),
        (AFFINE @ np.diag([1, 1, 1.01, 1]), True),  # 0.12 mm at the last of four voxels
        (AFFINE * (1 + 3e-8 * np.random.default_rng(0).normal(size=(4, 4))), False),
    ],
)
def test_grids_differ_by_rounding_alone(case, write_nifti, label_array, affine, refused):
    assert case.label is not None
    write_nifti(case.label, label_array, affine)
    assert [problem.kind for problem in errors_of(case)] == (["grid"] if refused else [])


def test_a_truncated_file_is_named_with_its_case(case):
    assert case.label is not None
    case.label.write_bytes(case.label.read_bytes()[:-9])
    (problem,) = errors_of(case)
    assert problem.path == "case a"
    assert str(case.label) in problem.rule


def test_one_volume_is_in_memory_at_a_time(tmp_path, write_nifti):
    noise = np.random.default_rng(0).random((128, 128, 128), dtype=np.float32)
    images = tuple(write_nifti(tmp_path / f"i/{n}.nii", noise + n, AFFINE) for n in range(6))
    label = write_nifti(tmp_path / "l/a.nii", (noise > 0.5).astype(np.float32), AFFINE)
    tracemalloc.start()
    assert errors_of(Case(id="a", images=images, label=label), channels=6, classes=2) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * noise.nbytes  # a label and its rounding take two


@pytest.mark.parametrize("name", ["Task04_Hippocampus", "Dataset027_ACDC", "Dataset013_BraTS2013"])
def test_real_data_is_sound(data_root, name):
    dataset: Dataset = read_dataset(data_root(name))
    assert check_dataset(dataset) == ()


ONE = CtConfig(lower=(0.0,), upper=(1.0,), mean=(0.0,), std=(1.0,))
TWO = CtConfig(lower=(0.0, 0.0), upper=(1.0, 1.0), mean=(0.0, 0.0), std=(1.0, 1.0))


@pytest.mark.parametrize(
    ("config", "channels", "paths"),
    [
        (DataConfig(), 3, []),
        (DataConfig(normalization=("zscore", "none")), 2, []),
        (DataConfig(normalization=("ct",), ct=TWO), 2, []),
        (DataConfig(normalization=("ct", "zscore"), ct=TWO), 2, []),
        (DataConfig(normalization=("zscore", "ct", "none"), ct=ONE), 2, ["data.normalization", "data.ct"]),
        (DataConfig(normalization=("ct",), ct=ONE), 2, ["data.ct"]),
        (DataConfig(normalization=("zscore", "none")), 1, ["data.normalization"]),
    ],
)
def test_normalisation_fits_the_channels(config, channels, paths):
    if not paths:
        check_channels(config, channels)
        return
    with pytest.raises(ConfigError) as caught:
        check_channels(config, channels)
    assert [problem.path for problem in caught.value.problems] == paths


def damaged(content, way):
    """Damages the header of a NIfTI-1 file of 348 bytes."""
    raw = bytearray(content)
    if way == "nifti2":
        return b"\x1c\x02\0\0n+2\0\r\n\x1a\n" + bytes(400)
    place = {"units": 123, "vox_offset": 108, "dim": 40}[way]
    value = {"units": b"\x39", "dim": b"\x03\0\xff\x7f\xff\x7f\xff\x7f"}.get(way, np.float32(np.inf).tobytes())
    raw[place : place + len(value)] = value
    return bytes(raw)


@pytest.mark.parametrize("role", ["image", "label"])
@pytest.mark.parametrize("way", ["nifti2", "units", "vox_offset", "dim"])
def test_a_damaged_header_costs_its_case_alone(msd, way, role):
    path = msd / f"{role}sTr/b.nii.gz"
    path.write_bytes(gzip.compress(damaged(gzip.decompress(path.read_bytes()), way)))
    (report,) = check_dataset(read_dataset(msd))
    assert report.case_id == "b"
    assert str(path) in report.errors[0].rule
    config = DataConfig(root=str(msd), on_error="skip")
    kept, left_out = read_checked(config, progress=False)
    assert ([case.id for case in kept.cases], left_out) == (["a", "c"], ["b"])


def test_a_volume_larger_than_memory_costs_its_case_alone(msd, write_nifti, image_array, monkeypatch):
    write_nifti(msd / "imagesTr/b.nii.gz", np.kron(image_array, np.ones((8, 8, 8))))
    monkeypatch.setattr(memory, "available_bytes", lambda: 100_000)
    b = next(report for report in check_dataset(read_dataset(msd)) if report.case_id == "b")
    assert "GiB" in str(b.errors[0])
