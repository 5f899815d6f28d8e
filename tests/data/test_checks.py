"""Checks of whole data sets: sound ones pass, and every fault is named by its sentence, all together."""

from __future__ import annotations

import dataclasses
import io
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from seg.data.cases import Case, Dataset
from seg.data.checks import GRID_TOLERANCE, Problem, check_dataset
from seg.data.readers import read_dataset
from tests.data import checked

Writer = Callable[..., Path]
AFFINE = np.array([[1.5, 0, 0, -20], [0, 2, 0, 7], [0, 0, 4, 1], [0, 0, 0, 1]], dtype=float)
EXPORT = "export the label on the image's grid."


def errors_of(case: Case, **options: int) -> list[str]:
    """Checks a case of one channel and three classes; folders are left out of messages."""
    found = checked.errors_of(case, **options)
    return [text.replace(f"{case.images[0].parents[1]}/" if case.images else "\0", "") for text in found]


@pytest.fixture
def case(msd: Path) -> Case:
    return read_dataset(msd).cases[0]


def test_a_sound_data_set_has_no_problem(msd: Path) -> None:
    assert check_dataset(read_dataset(msd)) == ()


def test_where_a_file_lies_is_doubted_once_a_case(msd: Path) -> None:
    for path in (msd / "imagesTr/a.nii.gz", msd / "labelsTr/a.nii.gz", msd / "labelsTr/c.nii.gz"):
        image = nib.load(path)
        image.header.set_xyzt_units("micron")
        thousandfold = np.diag([1000.0, 1000, 1000, 1]) @ AFFINE  # the same grid
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), thousandfold, image.header), path)
    text = "the unit of length must be mm, got micron; sizes were turned into mm."
    assert check_dataset(read_dataset(msd)) == (
        Problem("a", f"case a: image a.nii.gz: {text}", "warning"),
        Problem("c", f"case c: label c.nii.gz: {text}", "warning"),
    )


def test_all_problems_come_together_in_the_order_of_the_cases(
    msd: Path, write_nifti: Writer, image_array: np.ndarray, label_array: np.ndarray
) -> None:
    write_nifti(msd / "labelsTr/c.nii.gz", label_array[1:])
    write_nifti(msd / "imagesTr/c.nii.gz", np.where(image_array > 110, np.nan, image_array))
    write_nifti(msd / "labelsTr/b.nii.gz", label_array * 0)
    (msd / "imagesTr/a.nii.gz").unlink()
    nans = int((image_array > 110).sum())
    expected = (
        Problem(
            "a",
            f"case a: image {msd}/imagesTr/a.nii.gz must exist, got none; restore it or remove the case.",
        ),
        Problem("b", "case b: label b.nii.gz holds no foreground; check that this is meant.", "warning"),
        Problem(
            "c",
            f"case c: image c.nii.gz must be finite, got {nans} NaN or infinite voxels; mend or remove the image.",
        ),
        Problem("c", f"case c: label shape (5, 5, 4) differs from image shape (6, 5, 4); {EXPORT}"),
    )
    dataset = read_dataset(msd)
    assert check_dataset(dataset) == expected
    assert check_dataset(dataset, workers=2) == expected


def test_a_terminal_sees_how_far_the_check_is(msd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = read_dataset(msd)
    for on_terminal, progress, shown in ((True, True, True), (False, True, False), (True, False, False)):
        screen = io.StringIO()
        monkeypatch.setattr(screen, "isatty", lambda answer=on_terminal: answer, raising=False)
        monkeypatch.setattr(sys, "stderr", screen)
        check_dataset(dataset, progress=progress)
        assert ("check: 100%" in screen.getvalue() and "3/3" in screen.getvalue()) == shown


def test_a_case_without_a_label(msd: Path, case: Case) -> None:
    dataset = read_dataset(msd)
    bare = dataclasses.replace(case, label=None)
    assert check_dataset(dataclasses.replace(dataset, cases=(bare,))) == (
        Problem("a", "case a: has no label; training and evaluation need one: add it or remove the case."),
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_voxel_that_is_not_finite(case: Case, write_nifti: Writer, image_array: np.ndarray, value: float) -> None:
    image_array[1, 2, 3] = value
    write_nifti(case.images[0], image_array)
    assert errors_of(case) == [
        "case a: image a.nii.gz must be finite, got 1 NaN or infinite voxels; mend or remove the image."
    ]


@pytest.mark.parametrize("value", [1e300, -1e36])
def test_intensities_beyond_single_precision(
    case: Case, write_nifti: Writer, image_array: np.ndarray, value: float
) -> None:
    image = image_array.astype(np.float64)
    image[1, 2, 3] = value
    write_nifti(case.images[0], image)
    low, high = float(image.min()), float(image.max())
    assert errors_of(case) == [
        "case a: image a.nii.gz must lie within 1e+15 of 0, so that its variance is finite in single precision, "
        f"got {low!r} to {high!r}; mend or rescale the image."
    ]


def test_an_image_that_varies_in_double_precision_alone(
    case: Case, write_nifti: Writer, label_array: np.ndarray
) -> None:
    write_nifti(case.images[0], 1e9 + label_array.astype(np.float64))
    assert errors_of(case) == [
        "case a: image a.nii.gz must vary, got 1e+09 in every voxel; export it again or remove the case."
    ]


def test_a_constant_image(case: Case, write_nifti: Writer, image_array: np.ndarray) -> None:
    write_nifti(case.images[0], np.full_like(image_array, 7))
    assert errors_of(case) == [
        "case a: image a.nii.gz must vary, got 7 in every voxel; export it again or remove the case."
    ]


def test_one_bad_channel_of_a_4d_image(case: Case, write_nifti: Writer, image_array: np.ndarray) -> None:
    write_nifti(case.images[0], np.stack([image_array, image_array * 0], axis=-1))
    assert errors_of(case, channels=2) == [
        "case a: image a.nii.gz channel 1 must vary, got 0 in every voxel; export it again or remove the case."
    ]


def test_wrong_numbers_of_channels(case: Case, write_nifti: Writer, image_array: np.ndarray) -> None:
    remedy = "add or remove files, or correct channel_names."
    assert errors_of(case, channels=2) == [
        f"case a: image must have the 2 channel(s) that the data set declares, got 1; {remedy}"
    ]
    twice = dataclasses.replace(case, images=case.images * 2)
    assert errors_of(twice, channels=2) == []
    write_nifti(case.images[0], np.stack([image_array] * 4, axis=-1))
    assert errors_of(case) == [
        "case a: image must have the 1 channel(s) that the data set declares, "
        f"got 4 (a 4-D image of shape (6, 5, 4, 4)); {remedy}"
    ]
    assert errors_of(twice, channels=8) == [
        "case a: image files must be 3-D where there is one per channel, got shape (6, 5, 4, 4); split it by channel."
    ]


def test_channels_on_different_grids(case: Case, write_nifti: Writer, image_array: np.ndarray) -> None:
    other = write_nifti(case.images[0].with_name("t2.nii.gz"), image_array[:, 1:])
    assert errors_of(dataclasses.replace(case, images=(*case.images, other)), channels=2) == [
        "case a: image t2.nii.gz shape (6, 4, 4) differs from image shape (6, 5, 4); "
        "export the image t2.nii.gz on the image's grid."
    ]


def test_a_4d_label(case: Case, write_nifti: Writer, label_array: np.ndarray) -> None:
    assert case.label is not None
    write_nifti(case.label, np.stack([label_array] * 2, axis=-1))
    assert errors_of(case) == [
        "case a: label must have 3 axes, got shape (6, 5, 4, 2); merge its parts into one label map."
    ]


@pytest.mark.parametrize(("share", "refused"), [(0.9, False), (1.1, True)])
def test_affines_may_differ_by_rounding_alone(
    case: Case, write_nifti: Writer, label_array: np.ndarray, share: float, refused: bool
) -> None:
    assert case.label is not None
    moved = AFFINE.copy()
    moved[1, 3] += share * GRID_TOLERANCE * 1.5  # the smallest edge of a voxel
    write_nifti(case.label, label_array, moved)
    expected = [
        f"case a: label affine differs from image affine by 0.0165 mm at a corner, more than 0.01 voxel; {EXPORT}"
    ]
    assert errors_of(case) == (expected if refused else [])


def test_affines_that_part_far_from_the_origin(case: Case, write_nifti: Writer, label_array: np.ndarray) -> None:
    assert case.label is not None
    scaled = AFFINE.copy()
    scaled[2, 2] *= 1.01  # 0.04 mm a voxel, 0.12 mm at the last of four
    write_nifti(case.label, label_array, scaled)
    assert errors_of(case) == [
        f"case a: label affine differs from image affine by 0.12 mm at a corner, more than 0.01 voxel; {EXPORT}"
    ]


def test_one_grid_in_two_orientations(case: Case, write_nifti: Writer, label_array: np.ndarray) -> None:
    assert case.label is not None
    flipped = AFFINE.copy()
    flipped[0] = -1.5, 0, 0, -20 + 5 * 1.5
    write_nifti(case.label, label_array[::-1], flipped)
    assert errors_of(case) == []


def test_a_truncated_label_keeps_its_path(case: Case) -> None:
    assert case.label is not None
    content = case.label.read_bytes()
    case.label.write_bytes(content[: len(content) - 9])
    (problem,) = errors_of(case)
    assert problem.startswith("case a: label labelsTr/a.nii.gz is truncated or damaged (")


def test_one_volume_is_in_memory_at_a_time(tmp_path: Path, write_nifti: Writer) -> None:
    noise = np.random.default_rng(0).random((64, 64, 64), dtype=np.float32)
    images = tuple(write_nifti(tmp_path / f"i/{n}.nii", noise + n, AFFINE) for n in range(6))
    label = write_nifti(tmp_path / "l/a.nii", (noise > 0.5).astype(np.float32), AFFINE)
    tracemalloc.start()
    assert errors_of(Case(id="a", images=images, label=label), channels=6, classes=2) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * noise.nbytes  # a label and its rounding take two


@pytest.mark.parametrize("name", ["Task04_Hippocampus", "Dataset027_ACDC", "Dataset013_BraTS2013"])
def test_real_data_is_sound(data_root: Callable[[str], Path], name: str) -> None:
    dataset: Dataset = read_dataset(data_root(name))
    start = time.process_time()
    assert check_dataset(dataset) == ()
    if name == "Task04_Hippocampus":
        assert time.process_time() - start < 3
