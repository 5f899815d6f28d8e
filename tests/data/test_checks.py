"""Checks of whole data sets: sound cases pass, and every fault is reported with its case, all together."""

from __future__ import annotations

import gzip
import io
import sys
import tracemalloc
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from seg.config import CtConfig, DataConfig
from seg.data import memory
from seg.data.cache import PreparedDataset
from seg.data.cases import Case
from seg.data.checks import check_channels, check_dataset
from seg.data.datasets import read_dataset
from seg.errors import ConfigError
from seg.workflows.inputs import read_checked
from tests.data.builders import AFFINE, dataset_of, problems_of, save


@pytest.fixture
def case(msd):
    return read_dataset(msd).cases[0]


def errors_of(case, *, classes=3, **fields):
    reports = check_dataset(dataset_of([case], classes=classes, **fields), progress=False)
    return [problem for report in reports for problem in report.errors]


def put(array, voxels, dtype):
    changed = array.astype(dtype)
    changed[0, 0, : len(voxels)] = voxels
    return changed


@pytest.mark.parametrize("layout", ["msd", "nnunet"])
def test_scans_that_no_case_uses_are_announced(layout, request, caplog):
    root = request.getfixturevalue(layout)
    check_dataset(read_dataset(root))
    assert not [record for record in caplog.records if record.args[0].kind == "unused"]
    unused = ["imagesTr/c_0000.nii", "imagesTr/more/f_0000.nii.gz", "labelsTr/c.nii", "labelsTr/d.NRRD"]
    for name in (*unused, "imagesTr/._e.nii", "imagesTr/.old/g.nii", "labelsTr/notes.txt"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()
    check_dataset(read_dataset(root))
    (problem,) = [record.args[0] for record in caplog.records if record.args[0].kind == "unused"]
    assert (problem.path, problem.kind) == (str(root), "unused")
    assert problem.value == f"4: {', '.join(unused)}"


def test_where_a_file_lies_is_doubted_once_a_case(msd):
    assert check_dataset(read_dataset(msd)) == ()
    for path in (msd / "imagesTr/a.nii.gz", msd / "labelsTr/a.nii.gz", msd / "labelsTr/c.nii.gz"):
        image = nib.load(path)
        image.header.set_xyzt_units("micron")
        thousandfold = np.diag([1000.0, 1000, 1000, 1]) @ AFFINE  # the same grid
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), thousandfold, image.header), path)
    reports = check_dataset(read_dataset(msd))
    assert [(report.case_id, report.errors) for report in reports] == [("a", ()), ("c", ())]
    assert [[warning.path for warning in report.warnings] for report in reports] == [["case a"], ["case c"]]


def test_all_problems_come_together_in_the_order_of_the_cases(msd, image_array, label_array):
    save(msd / "labelsTr/c.nii.gz", label_array[1:])
    save(msd / "imagesTr/c.nii.gz", np.where(image_array > 110, np.nan, image_array))
    save(msd / "labelsTr/b.nii.gz", label_array * 0)
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


@pytest.mark.parametrize(("on_terminal", "progress"), [(True, True), (False, True), (True, False)])
def test_a_terminal_sees_how_far_checks_and_preparation_are(msd, tmp_path, monkeypatch, on_terminal, progress):
    dataset, memory_cache = read_dataset(msd), DataConfig(cache="memory")
    for work in (
        lambda: check_dataset(dataset, progress=progress),
        lambda: PreparedDataset(dataset, dataset.cases, memory_cache, tmp_path, progress=progress),
    ):
        screen = io.StringIO()
        monkeypatch.setattr(screen, "isatty", lambda: on_terminal, raising=False)
        monkeypatch.setattr(sys, "stderr", screen)
        work()
        assert ("3/3" in screen.getvalue()) == (on_terminal and progress)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda array: put(array, [np.nan], "f4"), ("finite", "1 NaN or infinite voxels")),
        (lambda array: put(array, [np.inf, -np.inf], "f4"), ("finite", "2 NaN or infinite voxels")),
        (lambda array: put(array, [-1e36], "f8"), ("range", None)),
        (lambda array: 1e9 + (array > 100).astype("f8"), ("constant", "1e+09 in every voxel")),
        (lambda array: np.stack([array, array], axis=-1), ("channels", "2")),
        (lambda array: array[..., None], None),
    ],
)
def test_images(case, image_array, change, expected):
    save(case.images[0], change(image_array))
    found = errors_of(case)
    assert [(problem.path, problem.kind) for problem in found] == ([("case a", expected[0])] if expected else [])
    assert expected is None or expected[1] in (None, found[0].value)


def test_channels(case, image_array):
    twice = replace(case, images=case.images * 2)
    assert [problem.kind for problem in errors_of(case, channels=2)] == ["channels"]
    assert errors_of(twice, channels=2) == []
    other = save(case.images[0].with_name("t2.nii.gz"), image_array[:, 1:])
    (problem,) = errors_of(replace(case, images=(*case.images, other)), channels=2)
    assert (problem.kind, problem.value) == ("grid", "(6, 4, 4)")
    save(case.images[0], np.stack([image_array, image_array * 0], axis=-1))
    (problem,) = errors_of(case, channels=2)
    assert problem.kind == "constant"
    assert "a.nii.gz channel 1" in problem.rule
    assert "channels" in [problem.kind for problem in errors_of(twice, channels=4)]


@pytest.mark.parametrize(
    ("change", "ignore", "expected"),
    [
        (lambda array: put(array, [3, 7], "f4"), None, ("values", "3, 7")),
        (lambda array: put(array, [-1], "i2"), None, ("values", "-1")),
        (lambda array: put(array, [1e30], "f4"), None, ("values", "1.0000000150474662e+30")),
        (lambda array: put(array, [1.002, 0.5], "f4"), None, ("integer", "1.002 and 1 more fractions")),
        (lambda array: put(array, [1.00002, -0.0000002], "f4"), None, None),
        (lambda array: put(array, [np.nan], "f4"), None, ("finite", "NaN or infinite voxels")),
        (lambda array: put(array, [9], "f8"), 9, None),
        (lambda array: put(array, [9], "f8"), 8, ("values", "9")),
        (lambda array: np.stack([array, array], axis=-1), None, ("channels", "2 channels")),
        (lambda array: array[1:], None, ("grid", "(5, 5, 4)")),
    ],
)
def test_labels(case, label_array, change, ignore, expected):
    save(case.label, change(label_array))
    found = [(problem.path, problem.kind, problem.value) for problem in errors_of(case, ignore_label=ignore)]
    assert found == ([("case a", *expected)] if expected else [])


def test_labels_that_say_nothing(msd, case, label_array):
    (missing,) = errors_of(replace(case, label=None))
    assert (missing.path, missing.kind, missing.value) == ("case a", "missing", "the image a.nii.gz alone")
    save(case.label, np.where(label_array > 0, 9, 0).astype(np.uint8))
    (report,) = check_dataset(replace(read_dataset(msd), ignore_label=9))  # what is ignored is no foreground
    assert (report.case_id, report.errors, [problem.kind for problem in report.warnings]) == ("a", (), ["empty"])


def test_one_volume_is_in_memory_at_a_time(tmp_path):
    noise = np.random.default_rng(0).random((128, 128, 128), dtype=np.float32)
    images = tuple(save(tmp_path / f"i/{n}.nii", noise + n) for n in range(6))
    label = save(tmp_path / "l/a.nii", (noise > 0.5).astype(np.float32))
    tracemalloc.start()
    assert errors_of(Case(id="a", images=images, label=label), channels=6, classes=2) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * noise.nbytes  # a label and its rounding take two


@pytest.mark.parametrize("name", ["Task04_Hippocampus", "Dataset027_ACDC", "Dataset013_BraTS2013"])
def test_real_data_is_sound(data_root, name):
    assert check_dataset(read_dataset(data_root(name))) == ()


ONE = CtConfig(lower=(0.0,), upper=(1.0,), mean=(0.0,), std=(1.0,))
TWO = CtConfig(lower=(0.0, 0.0), upper=(1.0, 1.0), mean=(0.0, 0.0), std=(1.0, 1.0))


@pytest.mark.parametrize(
    ("modes", "ct", "channels", "paths"),
    [
        (("zscore",), None, 3, []),
        (("ct", "zscore"), TWO, 2, []),
        (("zscore", "ct", "none"), ONE, 2, ["data.normalization", "data.ct"]),
        (("ct",), ONE, 2, ["data.ct"]),
        (("zscore", "none"), None, 1, ["data.normalization"]),
    ],
)
def test_normalisation_fits_the_channels(modes, ct, channels, paths):
    config = DataConfig(normalization=modes, ct=ct)
    if paths:
        found = problems_of(check_channels, config, channels, error=ConfigError)
        assert [path for path, _, _ in found] == paths
    else:
        check_channels(config, channels)


def cut_nifti_2(raw):
    raw[:] = b"\x1c\x02\0\0n+2\0\r\n\x1a\n" + bytes(400)


def no_unit(raw):
    raw[123] = 57


@pytest.mark.parametrize("role", ["image", "label"])
@pytest.mark.parametrize("damage", [cut_nifti_2, no_unit, "truncated"])
def test_a_damaged_file_costs_its_case_alone(msd, damage, role):
    path = msd / f"{role}sTr/b.nii.gz"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-9])
    else:
        raw = bytearray(gzip.decompress(path.read_bytes()))
        damage(raw)
        path.write_bytes(gzip.compress(raw))
    (report,) = check_dataset(read_dataset(msd))
    assert report.case_id == "b"
    assert str(path) in report.errors[0].rule
    kept, left_out = read_checked(DataConfig(root=str(msd), on_error="skip"), progress=False)
    assert ([case.id for case in kept.cases], left_out) == (["a", "c"], ["b"])


def test_a_volume_larger_than_memory_costs_its_case_alone(msd, image_array, monkeypatch):
    save(msd / "imagesTr/b.nii.gz", np.kron(image_array, np.ones((8, 8, 8))))
    monkeypatch.setattr(memory, "available_bytes", lambda: 100_000)
    (report,) = check_dataset(read_dataset(msd))
    assert (report.case_id, report.errors[0].kind) == ("b", "memory")
