"""Fingerprints of tiny data sets against sums over the same arrays."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg.data.datasets import read_dataset
from seg.planning.fingerprint import (
    SAMPLES_PER_CASE,
    fingerprint_dataset,
    pool_intensities,
    sample_intensities,
    weighted_percentiles,
)
from tests.data.builders import problems_of, save

LPS = np.diag([-1.5, -2.0, 4.0, 1.0])
RAS = np.diag([1.5, 2.0, 4.0, 1.0])


@pytest.fixture
def dataset(tmp_path, write_json):
    """An nnU-Net folder of two cases with two channels, the second case stored with X and Y reversed."""
    random = np.random.default_rng(0)
    names = {"channel_names": {"0": "MRI", "1": "CT"}, "labels": {"background": 0, "organ": 1, "tumour": 2}}
    write_json(tmp_path / "dataset.json", {**names, "file_ending": ".nii.gz"})
    for case, shape, affine in (("a", (6, 5, 4), RAS), ("b", (7, 8, 3), LPS)):
        label = np.zeros(shape, dtype=np.uint8)
        label[1:4, 2:4, 1:3] = 1
        label[-1, -1, -1] = 2 * (case == "b")
        save(tmp_path / f"labelsTr/{case}.nii.gz", label, affine)
        for channel in range(2):
            image = random.normal(100 * channel, 10, shape).astype(np.float32)
            save(tmp_path / f"imagesTr/{case}_{channel:04d}.nii.gz", image, affine)
    return read_dataset(tmp_path)


def test_geometry_and_volumes(dataset):
    found = fingerprint_dataset(dataset)
    assert found.case_ids == ("a", "b")
    assert found.shapes == ((6, 5, 4), (7, 8, 3))
    assert found.spacings_mm == ((1.5, 2.0, 4.0), (1.5, 2.0, 4.0))
    assert found.foreground_extents == ((3, 2, 2), (6, 6, 2))
    assert (found.channels, found.class_names) == (("MRI", "CT"), ("organ", "tumour"))
    # 12 voxels of 1.5 x 2 x 4 mm are 144 mm3.
    assert found.class_volumes_ml[0] == pytest.approx((0.144, 0.0))
    assert found.class_volumes_ml[1] == pytest.approx((0.144, 0.012))
    assert fingerprint_dataset(replace(dataset, cases=dataset.cases[::-1])) == found


def test_intensities_are_those_of_the_pooled_foreground(dataset):
    for channel, measured in enumerate(fingerprint_dataset(dataset).intensities):
        voxels = np.concatenate(
            [nib.load(c.images[channel]).get_fdata()[nib.load(c.label).get_fdata() > 0] for c in dataset.cases]
        )
        expected = np.percentile(voxels, (0.5, 50, 99.5), method="hazen")
        assert (measured.p00_5, measured.median, measured.p99_5) == pytest.approx(tuple(expected), rel=1e-9)
        assert (measured.mean, measured.std) == pytest.approx((voxels.mean(), voxels.std()), rel=1e-9)


def test_the_digest_is_of_the_contents_of_the_files(dataset):
    expected = hashlib.sha256()
    for case in dataset.cases:
        expected.update(case.id.encode() + b"\0")
        for file in (*case.images, case.label):
            expected.update(hashlib.sha256(file.read_bytes()).digest())
    assert fingerprint_dataset(dataset).digest == expected.hexdigest()


def test_nothing_to_read_is_refused(dataset):
    unlabelled = [replace(case, label=None) for case in dataset.cases]
    for cases in (unlabelled, []):
        assert problems_of(fingerprint_dataset, replace(dataset, cases=cases)) == [("data set", "labels", "")]
    save(dataset.cases[0].label, np.zeros((6, 5, 4), dtype=np.uint8), RAS)
    assert problems_of(fingerprint_dataset, replace(dataset, cases=dataset.cases[:1])) == [
        ("data set", "foreground", "")
    ]


def test_all_bad_cases_are_named(dataset):
    lacking = replace(dataset.cases[0], images=dataset.cases[0].images[:1])
    for shape, kind in (((2, 2, 2), "grid"), ((7, 8, 3, 2), "channels")):
        save(dataset.cases[1].label, np.ones(shape, dtype=np.uint8), RAS)
        found = problems_of(fingerprint_dataset, replace(dataset, cases=(lacking, *dataset.cases[1:])))
        assert [(path, kind) for path, kind, _ in found] == [("case a", "channels"), ("case b", kind)]


def test_large_cases_keep_evenly_spaced_order_statistics_and_infinite_values_are_left_out():
    values = np.random.default_rng(1).gamma(2, 50, 30 * SAMPLES_PER_CASE)
    sample = sample_intensities(np.concatenate([values, [np.nan, np.inf]]))
    assert (sample.count, sample.ranked.size) == (values.size, SAMPLES_PER_CASE)
    pooled = pool_intensities([sample, sample_intensities(np.array([np.nan]))])
    expected = np.percentile(values, (0.5, 50, 99.5))
    assert (pooled.p00_5, pooled.median, pooled.p99_5) == pytest.approx(tuple(expected), rel=0.005)
    assert (pooled.mean, pooled.std) == pytest.approx((values.mean(), values.std()), rel=1e-9)


@given(
    values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30),
    weights=st.integers(1, 5),
    percents=st.lists(st.floats(0, 100), min_size=1, max_size=4),
)
def test_equal_weights_give_hazens_percentiles(values, weights, percents):
    found = weighted_percentiles(np.array(values), np.full(len(values), float(weights)), percents)
    assert found == pytest.approx(tuple(np.percentile(values, percents, method="hazen")), abs=1e-6)


def test_heavy_values_pull_percentiles():
    assert weighted_percentiles(np.array([2.0, 1.0]), np.array([99.0, 1.0]), (0, 50, 100))[1] == pytest.approx(1.99)
