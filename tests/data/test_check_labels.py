"""Checks of label maps: which values pass, and the sentence of each that does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from seg.data.cases import Case
from seg.data.checks import check_dataset
from seg.data.readers import read_dataset
from tests.data.checked import errors_of

Writer = Callable[..., Path]


@pytest.fixture
def case(msd: Path) -> Case:
    return read_dataset(msd).cases[0]


@pytest.mark.parametrize(
    ("voxels", "problem"),
    [
        ([3], "values must be 0 to 2, got 3; declare these classes or correct the label."),
        ([3, 7], "values must be 0 to 2, got 3, 7; declare these classes or correct the label."),
        ([-1], "values must be 0 to 2, got -1; declare these classes or correct the label."),
        ([0.5, 1.25], "must hold integers, got 0.5 and 1 more fractions; export it without interpolation."),
        ([1.002], "must hold integers, got 1.002 and 0 more fractions; export it without interpolation."),
        ([1.00002], None),
        ([-0.0000002], None),
        ([1e30], "values must be 0 to 2, got 1.0000000150474662e+30; declare these classes or correct the label."),
        ([np.nan], "must be finite, got NaN or infinite voxels; export it again."),
        ([np.inf], "must be finite, got NaN or infinite voxels; export it again."),
    ],
)
def test_label_values(
    case: Case, write_nifti: Writer, label_array: np.ndarray, voxels: list[float], problem: str | None
) -> None:
    assert case.label is not None
    label = label_array.astype(np.float32)
    label[0, 0, : len(voxels)] = voxels
    write_nifti(case.label, label)
    assert errors_of(case) == ([] if problem is None else [f"case a: label a.nii.gz {problem}"])


def test_integers_stored_as_floats_and_the_ignore_label(
    case: Case, write_nifti: Writer, label_array: np.ndarray
) -> None:
    assert case.label is not None
    label = label_array.astype(np.float64)
    write_nifti(case.label, label)
    assert errors_of(case) == []
    label[0, 0, 0] = 9
    write_nifti(case.label, label)
    assert errors_of(case, ignore_label=9) == []
    assert errors_of(case, ignore_label=8) == [
        "case a: label a.nii.gz values must be 0 to 2 or 8 (ignore), got 9; declare these classes or correct the label."
    ]


def test_what_is_ignored_is_no_foreground(msd: Path, write_nifti: Writer, label_array: np.ndarray) -> None:
    dataset = dataclasses.replace(read_dataset(msd), ignore_label=9)
    write_nifti(msd / "labelsTr/a.nii.gz", np.where(label_array > 0, 9, 0).astype(np.uint8))
    (problem,) = check_dataset(dataset)
    assert (problem.case_id, problem.severity) == ("a", "warning")
