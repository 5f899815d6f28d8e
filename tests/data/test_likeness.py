"""Neighbouring cases that look like one patient."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from seg.data.checks import check_dataset
from seg.data.datasets import read_dataset
from seg.data.likeness import alike, look_of
from tests.data.builders import dataset_of, save
from tests.data.test_datasets import change


def scan(seed, *, shape=(24, 20, 18)):
    """A smooth scan of one patient."""
    return 100 * ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2) + 50


def noisy(array, seed):
    return array + np.random.default_rng(seed).normal(0, 1, array.shape)


def looks(arrays):
    return {f"c{index:02d}": look_of(array) for index, array in enumerate(arrays)}


def test_correlation_is_that_of_numpy():
    one, two = look_of(scan(0)), look_of(noisy(scan(0), 1))
    assert one.correlation(two) == pytest.approx(np.corrcoef(one.voxels, two.voxels)[0, 1], abs=1e-12)
    assert one.percentile == np.percentile(scan(0), 99)
    assert one.correlation(look_of(np.ones((4, 4, 4)))) == 0


def test_two_scans_of_one_patient_are_found_among_those_of_others():
    arrays = [noisy(scan(patient), 100 + index) for index, patient in enumerate((0, 1, 1, 2, 3, 4, 4, 5))]
    assert alike(looks(arrays)) == [("c01", "c02"), ("c05", "c06")]
    assert alike(looks(arrays[:1])) == []
    assert alike({}) == []


def test_registered_scans_look_alike_without_being_of_one_patient():
    head = 20 * scan(9)
    arrays = [head + scan(patient) for patient in range(8)]
    assert min(np.corrcoef([look.voxels for look in looks(arrays).values()]).ravel()) > 0.9
    assert alike(looks(arrays)) == []
    arrays[4] = noisy(arrays[3], 1)
    assert alike(looks(arrays)) == [("c03", "c04")]


def test_equal_percentiles_tell_where_they_are_no_whole_numbers_and_rare():
    def cut(seed, top):
        array = scan(seed)
        array.ravel()[np.argsort(array.ravel())[-200:]] = top
        return array

    assert alike(looks([cut(0, 400.25), cut(1, 500.5), cut(2, 500.5), cut(3, 600.5)])) == [("c01", "c02")]
    assert alike(looks([cut(0, 400.25), cut(1, 500.0), cut(2, 500.0), cut(3, 600.5)])) == []
    assert alike(looks([cut(index, 500.5) for index in range(4)])) == []  # scans that were scaled alike


def test_such_cases_are_announced_where_no_patients_are_named(msd, caplog):
    entries = []
    for index, patient in enumerate((0, 1, 1, 2)):
        save(msd / f"imagesTr/p{index}.nii.gz", noisy(scan(patient), index))
        save(msd / f"labelsTr/p{index}.nii.gz", (scan(patient) > 60).astype(np.uint8))
        entries.append({"image": f"imagesTr/p{index}.nii.gz", "label": f"labelsTr/p{index}.nii.gz"})
    for path in msd.rglob("[abc].nii.gz"):
        path.unlink()
    change(msd / "dataset.json", training=entries)
    dataset = read_dataset(msd)
    with caplog.at_level(logging.WARNING, "seg"):
        assert check_dataset(dataset) == ()
    (message,) = caplog.messages
    assert "p1 and p2" in message
    assert "p0" not in message
    caplog.clear()
    named = dataset_of((replace(case, patient=case.id) for case in dataset.cases), root=msd, classes=3)
    assert check_dataset(named) == ()
    assert caplog.messages == []
