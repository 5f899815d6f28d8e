"""Values of label files and class indices: one map, there and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seg.ablation.plan import read_study_data
from seg.config import DataConfig, ExperimentConfig, load_config
from seg.data.cache import PreparedDataset
from seg.data.checks import check_dataset
from seg.data.classes import ClassMap, class_indices, declared_classes
from seg.data.datasets import read_configured, read_dataset
from seg.data.prepare import grid_of, prepare_case
from seg.data.volumes import read_classes, read_header, write_labels
from seg.errors import ConfigError, DataError, RunError
from seg.planning.fingerprint import fingerprint_dataset
from seg.planning.plan import plan_dataset
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


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sets(st.integers(1, 7), min_size=1), min_size=2, max_size=5, unique_by=frozenset))
def test_parts_express_any_regions_nested_or_not(regions):
    labels = {"background": 0} | {f"region{number}": sorted(own) for number, own in enumerate(regions)}
    problems = []
    classes = declared_classes(labels, Path("dataset.json"), "nnunet", problems)
    assert not problems
    known = sorted(set().union(*regions))
    indices = classes.map.indices(np.array([0, *known]))
    # A voxel's part says of every region whether the voxel is in it: a network of parts loses nothing.
    for number, own in enumerate(regions):
        name = f"region{number}"
        parts = classes.regions.get(name, (classes.names.index(name),) if name in classes.names else None)
        np.testing.assert_array_equal(np.isin(indices, parts), [value in own for value in (0, *known)])
    # And no fewer classes do: each has another set of regions.
    memberships = {tuple(value in own for own in regions) for value in known}
    assert len(classes.names) == 1 + len(memberships)


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


WHOLE = {"background": 0, "whole": [1, 2, 4, 9], "core": [2, 4], "inner": 4, "ignore": 7}


def test_regions_are_cut_into_parts(nnunet):
    change(nnunet / "dataset.json", labels=WHOLE, regions_class_order=[9, 2, 4])
    found = read_dataset(nnunet)
    assert found.class_names == ("background", "label_1_9", "label_2", "inner")
    assert found.classes == ClassMap(((0,), (9, 1), (2,), (4,)), 7)
    assert found.ignore_label == 4
    assert found.regions == {"whole": (1, 2, 3), "core": (2, 3), "inner": (3,)}
    assert found.score_names == ("background", "label_1_9", "label_2", "inner", "whole", "core")
    assert found.scored == {3: (3,), 4: (1, 2, 3), 5: (2, 3)}
    # Lists that do not overlap are classes like others.
    change(nnunet / "dataset.json", labels={"background": 0, "a": [3, 1], "b": 2}, regions_class_order=None)
    found = read_dataset(nnunet)
    assert (found.class_names, found.regions) == (("background", "a", "b"), {})
    assert found.classes == ClassMap(((0,), (1, 3), (2,)))
    assert (found.score_names, found.scored) == (found.class_names, {1: (1,), 2: (2,)})


@pytest.mark.parametrize(
    ("chosen", "names", "groups"),
    [
        (("tumour",), ("background", "tumour"), ((0, 1), (2,))),
        (("tumour", "organ"), ("background", "organ", "tumour"), ((0,), (1,), (2,))),
    ],
)
def test_chosen_classes(nnunet, chosen, names, groups):
    found = read_configured(DataConfig(root=str(nnunet), classes=chosen))
    assert found.class_names == names
    assert (found.classes or ClassMap(groups, 3)) == ClassMap(groups, 3)
    assert found.ignore_label == (2 if len(names) == 2 else 3)
    assert {case.classes for case in found.cases} == {found.classes}


def test_chosen_regions(nnunet):
    change(nnunet / "dataset.json", labels=WHOLE)
    root = str(nnunet)
    found = read_configured(DataConfig(root=root, classes=("whole",)))
    assert (found.class_names, found.classes) == (("background", "whole"), ClassMap(((0,), (1, 9, 2, 4)), 7))
    assert (found.regions, found.scored) == ({}, {1: (1,)})
    found = read_configured(DataConfig(root=root, classes=("core", "label_1_9")))
    assert (found.class_names, found.classes) == (
        ("background", "label_1_9", "core"),
        ClassMap(((0,), (1, 9), (2, 4)), 7),
    )
    for wrong, kind in ((("whole", "core"), "overlap"), (("liver", "core", "core"), "unknown"), ((), "empty")):
        found = problems_of(read_configured, DataConfig(root=root, classes=wrong), error=ConfigError)
        assert {(path, each) for path, each, _ in found} == {("data.classes", kind)}
        assert len(found) == (2 if kind == "unknown" else 1)
    assert problems_of(read_configured, DataConfig(root=root, classes=("background",)), error=ConfigError)


def test_a_plan_keeps_to_the_chosen_classes(msd, tmp_path):
    text = plan_dataset(msd, classes=("tumour",))
    (tmp_path / "plan.yaml").write_text(text)
    assert load_config([tmp_path / "plan.yaml"]).data.classes == ("tumour",)
    assert "class 1 tumour" in text
    assert "organ" not in text


def test_a_study_wants_classes_that_do_not_overlap(nnunet):
    change(nnunet / "dataset.json", labels=WHOLE)

    def of(classes):
        data = DataConfig(root=str(nnunet), folds=2, classes=classes)
        study = SimpleNamespace(baseline=SimpleNamespace(config=ExperimentConfig(data=data)))
        study.config = SimpleNamespace(folds=(0,))
        return study

    assert problems_of(read_study_data, of(None), error=RunError) == [(str(nnunet), "regions", "whole, core, inner")]
    assert read_study_data(of(("whole",))).class_names == ("background", "whole")
