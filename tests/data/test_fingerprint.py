"""Fingerprints of tiny data sets against sums over the same arrays."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import re
import sys

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg.data.datasets import read_dataset
from seg.errors import DataError
from seg.planning.fingerprint import (
    SAMPLES_PER_CASE,
    fingerprint_dataset,
    pool_intensities,
    sample_intensities,
    weighted_percentiles,
)

LPS = np.diag([-1.5, -2.0, 4.0, 1.0])
RAS = np.diag([1.5, 2.0, 4.0, 1.0])


def write(path, array, affine):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


@pytest.fixture
def root(tmp_path):
    """An nnU-Net folder of two cases with two channels, the second case stored with X and Y reversed."""
    random = np.random.default_rng(0)
    names = {"channel_names": {"0": "MRI", "1": "CT"}, "labels": {"background": 0, "organ": 1, "tumour": 2}}
    (tmp_path / "dataset.json").write_text(json.dumps({**names, "numTraining": 2, "file_ending": ".nii.gz"}))
    for case, shape, affine in (("a", (6, 5, 4), RAS), ("b", (7, 8, 3), LPS)):
        label = np.zeros(shape, dtype=np.uint8)
        label[1:4, 2:4, 1:3] = 1
        if case == "b":
            label[6, 7, 2] = 2
        write(tmp_path / "labelsTr" / f"{case}.nii.gz", label, affine)
        for channel in range(2):
            image = random.normal(100 * channel, 10, shape).astype(np.float32)
            write(tmp_path / "imagesTr" / f"{case}_{channel:04d}.nii.gz", image, affine)
    return tmp_path


def foreground(root, channel):
    """All foreground voxels of a channel, read without the project's code."""
    parts = []
    for case in "ab":
        image = np.asarray(nib.load(root / "imagesTr" / f"{case}_{channel:04d}.nii.gz").dataobj)
        parts.append(image[np.asarray(nib.load(root / "labelsTr" / f"{case}.nii.gz").dataobj) > 0])
    return np.concatenate(parts).astype(np.float64)


def test_geometry_and_volumes(root):
    found = fingerprint_dataset(read_dataset(root))
    assert found.case_ids == ("a", "b")
    assert found.shapes == ((6, 5, 4), (7, 8, 3))
    assert found.spacings_mm == ((1.5, 2.0, 4.0), (1.5, 2.0, 4.0))
    assert found.foreground_extents == ((3, 2, 2), (6, 6, 2))
    assert found.channels == ("MRI", "CT")
    assert found.class_names == ("organ", "tumour")
    # 12 voxels of 1.5 x 2 x 4 mm are 144 mm3.
    assert found.class_volumes_ml[0] == pytest.approx((0.144, 0.0))
    assert found.class_volumes_ml[1] == pytest.approx((0.144, 0.012))


def test_intensities_are_those_of_the_pooled_foreground(root):
    found = fingerprint_dataset(read_dataset(root))
    for channel, measured in enumerate(found.intensities):
        voxels = foreground(root, channel)
        expected = np.percentile(voxels, (0.5, 50, 99.5), method="hazen")
        assert (measured.p00_5, measured.median, measured.p99_5) == pytest.approx(tuple(expected), rel=1e-9)
        assert (measured.mean, measured.std) == pytest.approx((voxels.mean(), voxels.std()), rel=1e-9)


def test_a_terminal_sees_how_far_it_is(root, monkeypatch):
    dataset = read_dataset(root)
    for on_terminal in (True, False):
        screen = io.StringIO()
        monkeypatch.setattr(screen, "isatty", lambda answer=on_terminal: answer, raising=False)
        monkeypatch.setattr(sys, "stderr", screen)
        fingerprint_dataset(dataset)
        assert ("fingerprint: 100%" in screen.getvalue()) == on_terminal


def test_digest_is_of_the_files_contents(root):
    digest = fingerprint_dataset(read_dataset(root)).digest
    expected = hashlib.sha256()
    for case in "ab":
        expected.update(case.encode() + b"\0")
        files = [root / "imagesTr" / f"{case}_{channel:04d}.nii.gz" for channel in range(2)]
        for file in [*files, root / "labelsTr" / f"{case}.nii.gz"]:
            expected.update(hashlib.sha256(file.read_bytes()).digest())
    assert digest == expected.hexdigest()


def test_one_voxel_changes_the_digest(root):
    before = fingerprint_dataset(read_dataset(root))
    write(root / "imagesTr" / "a_0000.nii.gz", np.zeros((6, 5, 4), dtype=np.float32), RAS)
    after = fingerprint_dataset(read_dataset(root))
    assert before.digest != after.digest
    assert before.class_volumes_ml == after.class_volumes_ml


def test_order_of_cases_does_not_matter(root):
    dataset = read_dataset(root)
    assert fingerprint_dataset(dataset, cases=dataset.cases[::-1]) == fingerprint_dataset(dataset)


def test_some_cases_can_be_left_out(root):
    dataset = read_dataset(root)
    found = fingerprint_dataset(dataset, cases=[case for case in dataset.cases if case.id == "b"])
    assert found.case_ids == ("b",)
    assert found.shapes == ((7, 8, 3),)


def test_nothing_to_read_is_refused(root):
    dataset = read_dataset(root)
    unlabelled = [dataclasses.replace(case, label=None) for case in dataset.cases]
    with pytest.raises(DataError, match=r"^data set has no case with a label; planning needs at least one\.$"):
        fingerprint_dataset(dataset, cases=unlabelled)
    with pytest.raises(DataError, match=r"^data set has no case with a label"):
        fingerprint_dataset(dataset, cases=[])


def test_all_bad_cases_are_named(root):
    dataset = read_dataset(root)
    lacking = dataclasses.replace(dataset.cases[0], images=dataset.cases[0].images[:1])
    write(root / "labelsTr" / "b.nii.gz", np.ones((2, 2, 2), dtype=np.uint8), RAS)
    with pytest.raises(DataError) as caught:
        fingerprint_dataset(dataset, cases=[lacking, *dataset.cases[1:]])
    assert [(problem.path, problem.kind) for problem in caught.value.problems] == [
        ("case a", "channels"),
        ("case b", "grid"),
    ]
    write(root / "labelsTr" / "b.nii.gz", np.ones((7, 8, 3, 2), dtype=np.uint8), RAS)
    with pytest.raises(DataError) as caught:
        fingerprint_dataset(dataset)
    assert [(problem.path, problem.kind) for problem in caught.value.problems] == [("case b", "channels")]


def test_empty_labels_everywhere_are_refused(root):
    dataset = read_dataset(root)
    write(root / "labelsTr" / "a.nii.gz", np.zeros((6, 5, 4), dtype=np.uint8), RAS)
    message = "data set has no foreground voxel in any label; planning needs at least one labelled voxel."
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        fingerprint_dataset(dataset, cases=[case for case in dataset.cases if case.id == "a"])


def test_values_that_are_not_finite_are_left_out():
    sample = sample_intensities(np.array([1.0, np.nan, 3.0, np.inf]))
    assert (sample.count, sample.mean, sample.squares) == (2, 2.0, 2.0)
    assert sample_intensities(np.array([np.nan])).count == 0


def test_large_cases_keep_evenly_spaced_order_statistics():
    values = np.random.default_rng(1).gamma(2, 50, 30 * SAMPLES_PER_CASE)
    sample = sample_intensities(values)
    assert sample.ranked.size == SAMPLES_PER_CASE
    pooled = pool_intensities([sample, sample_intensities(np.array([]))])
    expected = np.percentile(values, (0.5, 50, 99.5))
    assert (pooled.p00_5, pooled.median, pooled.p99_5) == pytest.approx(tuple(expected), rel=0.005)
    assert (pooled.mean, pooled.std) == pytest.approx((values.mean(), values.std()), rel=1e-9)


@given(
    values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30),
    weights=st.integers(1, 5),
    percents=st.lists(st.floats(0, 100), min_size=1, max_size=4),
)
def test_equal_weights_give_hazens_percentiles(values, weights, percents):
    array = np.array(values)
    found = weighted_percentiles(array, np.full(array.size, float(weights)), percents)
    assert found == pytest.approx(tuple(np.percentile(array, percents, method="hazen")), abs=1e-6)


def test_heavy_values_pull_percentiles():
    assert weighted_percentiles(np.array([2.0, 1.0]), np.array([99.0, 1.0]), (0, 50, 100))[1] == pytest.approx(1.99)


@pytest.mark.parametrize(
    ("name", "cases", "channels"),
    [("Task04_Hippocampus", 200, 1), ("Dataset027_ACDC", 120, 1), ("Dataset013_BraTS2013", 4, 2)],
)
def test_real_data_sets(data_root, name, cases, channels):
    found = fingerprint_dataset(read_dataset(data_root(name)))
    assert len(found.case_ids) == cases
    assert len(found.intensities) == channels
    assert re.fullmatch("[0-9a-f]{64}", found.digest)
