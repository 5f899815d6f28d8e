"""Values of label files and class indices: one map, there and back."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from seg.config import DataConfig
from seg.data.cache import PreparedDataset
from seg.data.checks import check_dataset
from seg.data.classes import ClassMap, class_indices
from seg.data.datasets import read_dataset
from seg.data.prepare import grid_of, prepare_case
from seg.data.volumes import read_classes, read_header, write_labels
from seg.errors import DataError
from seg.planning.fingerprint import fingerprint_dataset
from tests.data.builders import problems_of, save
from tests.data.test_datasets import change

GAPS = ClassMap(((0, 7), (1,), (4, 3)), ignore=300)
VALUES = np.array([0, 7, 1, 4, 3, 300]).reshape(1, 2, 3)
INDICES = np.array([0, 0, 1, 2, 2, 3]).reshape(1, 2, 3)


@pytest.mark.parametrize("dtype", ["i2", "u2", "f4", "f8"])
def test_values_become_indices_and_indices_the_first_value_of_their_class(dtype):
    found = class_indices(VALUES.astype(dtype) + (1e-4 if dtype[0] == "f" else 0), GAPS)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, INDICES)
    written = GAPS.values(np.minimum(found, 2))
    assert written.dtype == np.uint8
    np.testing.assert_array_equal(written.ravel(), [0, 0, 1, 4, 4, 4])
    assert ClassMap(((0,), (1000,))).values(np.array([0, 1], np.uint8)).tolist() == [0, 1000]


@pytest.mark.parametrize("value", [2.0, -1.0, 301.0, np.nan, np.inf, 1e30])
def test_a_value_of_no_class_is_named(value):
    wrong = np.where(VALUES == 4, value, VALUES)
    assert problems_of(GAPS.indices, wrong, "label x") == [("label x", "values", f"{value:.17g}")]


def test_without_a_map_values_are_indices():
    assert class_indices(np.array([0.0, 254.99995]), None).tolist() == [0, 255]
    assert class_indices(np.array([-1, 256]), None).tolist() == [-1, 256]
    for groups, ignore, needed in ((((0,), (1,)), None, False), (((0,), (1,)), 9, False), (((0,), (2,)), None, True)):
        assert (ClassMap(groups, ignore).simplest is not None) is needed
    assert ClassMap(((0,), (2,)), 1).simplest is not None


@pytest.fixture
def gaps(msd, label_array):
    """A data set whose organ has the value 1, its tumour 4, and whose second case has ignored voxels."""
    values = np.where(label_array == 2, 4, label_array)
    for name in "abc":
        save(msd / f"labelsTr/{name}.nii.gz", values)
    values = values.copy()
    values[0, 0] = 2
    save(msd / "labelsTr/b.nii.gz", values)
    change(msd / "dataset.json", labels={"0": "background", "1": "organ", "4": "tumour", "2": "ignore"})
    return msd


def test_every_reader_of_a_data_set_takes_the_map(gaps, label_array, tmp_path):
    dataset = read_dataset(gaps)
    assert (dataset.class_names, dataset.ignore_label) == (("background", "organ", "tumour"), 3)
    assert {case.classes for case in dataset.cases} == {ClassMap(((0,), (1,), (4,)), 2)}
    assert check_dataset(dataset) == ()
    one, two, _ = dataset.cases
    marked = label_array.copy()
    marked[0, 0] = 3
    for case, expected in ((one, label_array), (two, marked)):
        np.testing.assert_array_equal(prepare_case(case, DataConfig())[1], expected)
        np.testing.assert_array_equal(read_classes(case.label, classes=case.classes).array, expected)
    volumes = fingerprint_dataset(dataset).class_volumes_ml
    voxel_ml = 1.5 * 2 * 4 / 1000
    np.testing.assert_allclose(volumes, [[(label_array == index).sum() * voxel_ml for index in (1, 2)]] * 3)
    # Written and read again, values are those of the files and indices those of the arrays.
    header = read_header(one.label)
    written = tmp_path / "written.nii.gz"
    write_labels(written, label_array, header.geometry, one.classes)
    np.testing.assert_array_equal(np.asarray(nib.load(written).dataobj), np.asarray(nib.load(one.label).dataobj))
    np.testing.assert_array_equal(read_classes(written, classes=one.classes).array, label_array)


def test_a_value_of_no_class_is_found_by_the_checks(gaps, label_array):
    save(gaps / "labelsTr/a.nii.gz", label_array + 1)
    (report,) = check_dataset(read_dataset(gaps))
    assert [(problem.path, problem.kind, problem.value) for problem in report.errors] == [("case a", "values", "3")]
    case = read_dataset(gaps).cases[0]
    with pytest.raises(DataError):
        prepare_case(case, DataConfig())
    assert grid_of(read_header(case.label)).shape == label_array.shape


def test_a_label_of_background_and_ignored_voxels_alone_is_doubtful(gaps, label_array):
    save(gaps / "labelsTr/c.nii.gz", np.where(label_array > 0, 2, 0).astype(np.uint8))
    (report,) = check_dataset(read_dataset(gaps))
    assert (report.case_id, [problem.kind for problem in report.warnings]) == ("c", ["empty"])


def test_the_disk_cache_knows_the_map(gaps, tmp_path):
    config, dataset = DataConfig(cache="disk"), read_dataset(gaps)
    case = dataset.cases[0]
    label = PreparedDataset(dataset, [case], config, tmp_path)[0]["label"]
    other = replace(case, classes=ClassMap(((0,), (4,), (1,))))
    again = PreparedDataset(dataset, [other], config, tmp_path)[0]["label"]
    assert bool(((label == 1) == (again == 2)).all())
    assert len(list(tmp_path.glob("*.pt"))) == 2
