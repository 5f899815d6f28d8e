"""DICOM series: read as SimpleITK reads them whatever their numbers say, or refused by name where slices do not fit."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seg.data.formats import DICOM, read_foreign
from seg.data.images import read_image
from seg.errors import DataError
from tests.data.test_formats import needs, only, write_series

sitk = pytest.importorskip("SimpleITK", reason="writes files with SimpleITK; pip install SimpleITK")
pytestmark = pytest.mark.filterwarnings("ignore")

NAMES = tuple(f"slice_{(z * 3) % 5}.dcm" for z in range(5))
"""Files by position: the slices lie at 30, 33, ... 42 mm."""


@pytest.fixture(params=["pydicom", "itk"])
def series(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    needs("pydicom")
    importlib.import_module("pydicom")
    only(monkeypatch, request.param)
    return write_series(tmp_path / "series")


def edit(path: Path, change: Callable[[Any], None]) -> None:
    pydicom: Any = importlib.import_module("pydicom")
    file = pydicom.dcmread(path)
    change(file)
    file.save_as(path)


def move(path: Path, **to: float) -> None:
    """Moves a slice to a place along some axes."""

    def change(file: Any) -> None:
        position = [float(value) for value in file.ImagePositionPatient]
        for axis, value in to.items():
            position["xyz".index(axis)] = value
        file.ImagePositionPatient = position

    edit(path, change)


def problem(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_image([folder], ("CT",))
    return str(caught.value)


def read_by_simpleitk(folder: Path) -> Any:
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    return sitk.ReadImage(names)


def agrees(folder: Path) -> None:
    """Every voxel has the value that SimpleITK finds at its place."""
    expected = read_by_simpleitk(folder)
    read = read_foreign(folder, DICOM)
    array, affine = read.array, read.affine
    assert array.shape == (1, *expected.GetSize())
    for index in np.ndindex(array.shape[1:]):
        place = affine @ [*index, 1]
        there = expected.TransformPhysicalPointToIndex((-place[0], -place[1], place[2]))
        assert expected[there] == array[0][index]
    assert np.allclose(np.linalg.norm(affine[:3, :3], axis=0), expected.GetSpacing())


@pytest.mark.parametrize("numbers", [(4, 3, 2, 1, 0), (2, 0, 4, 1, 3), (7, 7, 7, 7, 7), None])
def test_slices_are_ordered_by_where_they_lie(series: Path, numbers: tuple[int, ...] | None) -> None:
    for index, name in enumerate(NAMES):

        def number(file: Any, index: int = index) -> None:
            if numbers is None:
                del file.InstanceNumber
            else:
                file.InstanceNumber = numbers[index]

        edit(series / name, number)
    agrees(series)


def test_a_missing_slice_is_named_by_its_neighbours(series: Path) -> None:
    (series / NAMES[3]).unlink()
    assert problem(series) == (
        f"{series / NAMES[4]}: slices must be evenly spaced on a line, got 6 mm from {NAMES[2]} where 3 mm is usual, "
        "and slices up to 2 mm from their place; add the slices that are missing, or resample the series."
    )


def test_positions_may_be_rounded_to_a_tenth(series: Path) -> None:
    for index, name in enumerate(NAMES):
        move(series / name, z=30 + 3 * index + (0.05 if index % 2 else 0))
    agrees(series)
    move(series / NAMES[2], z=36.1)
    assert "slices up to 0.1 mm from their place" in problem(series)


def test_steps_that_grow_by_little_leave_the_line(series: Path) -> None:
    places = np.cumsum([30.0, 2.85, 2.95, 3.05, 3.15])
    for name, place in zip(NAMES, places, strict=True):
        move(series / name, z=float(place))
    assert "slices must be evenly spaced on a line" in problem(series)


def test_a_second_phase_is_named(series: Path) -> None:
    second = series / "second.dcm"
    second.write_bytes((series / NAMES[2]).read_bytes())
    edit(second, lambda file: setattr(file, "SOPInstanceUID", "1.2.3.99"))
    assert "slices must each lie at a place of their own, got that of " in problem(series)
    assert "give each phase, echo or reconstruction a folder of its own." in problem(series)


def test_a_tilted_gantry_is_refused(series: Path) -> None:
    for index, name in enumerate(NAMES):
        move(series / name, y=-20 + 0.5 * index)
    assert problem(series) == (
        f"{series / NAMES[1]}: slices must lie along their normal, got a shift of 0.5 mm from {NAMES[0]}, as of a "
        "tilted gantry; resample the series to a straight grid."
    )


@pytest.mark.parametrize(
    ("name", "value", "got"),
    [
        ("PixelSpacing", [0.5, 0.5], "got (0.5, 0.5) where slice_0.dcm has (1.5, 0.5)"),
        (
            "ImageOrientationPatient",
            [1, 0, 0, 0, 1, 0],
            "got (1, 0, 0, 0, 1, 0) where slice_0.dcm has (0, 1, 0, -1, 0, 0)",
        ),
    ],
)
def test_slices_of_several_grids_are_refused(series: Path, name: str, value: list[float], got: str) -> None:
    edit(series / "slice_4.dcm", lambda file: setattr(file, name, value))
    assert problem(series) == (
        f"{series / 'slice_4.dcm'}: slices must have one {name}, {got}; give each stack a folder of its own."
    )


def test_slices_of_several_sizes_are_refused(series: Path) -> None:
    def crop(file: Any) -> None:
        file.Rows = 6
        file.PixelData = file.PixelData[: 6 * 9 * 2]

    edit(series / "slice_4.dcm", crop)
    assert problem(series) == (
        f"{series / 'slice_4.dcm'}: slices must have one size, got (9, 6) where slice_0.dcm has (9, 7); give each "
        "stack a folder of its own."
    )


def test_a_slice_that_does_not_say_where_it_lies_is_refused(series: Path) -> None:
    edit(series / NAMES[1], lambda file: delattr(file, "ImagePositionPatient"))
    assert problem(series) == (
        f"{series / NAMES[1]}: a slice must say where it lies, got no ImagePositionPatient; export the original series."
    )


def test_several_frames_in_a_file_are_refused(series: Path) -> None:
    def frames(file: Any) -> None:
        file.NumberOfFrames = 2
        file.PixelData = file.PixelData * 2

    edit(series / NAMES[0], frames)
    assert problem(series) == (
        f"{series / NAMES[0]}: DICOM must have one slice a file, got 2 frames in one; export single slices, or convert "
        "it to NIfTI."
    )


def test_a_list_of_files_among_slices_does_not_count(series: Path) -> None:
    pydicom: Any = importlib.import_module("pydicom")
    file = pydicom.dcmread(series / NAMES[0])
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = "1.2.840.10008.1.3.10"
    for name in pydicom.dcmread(series / NAMES[0]).dir("Image", "Pixel", "Series", "Instance"):
        delattr(file, name)
    file.save_as(series / "DICOMDIR")
    (series / "README.txt").write_text("no slice")
    agrees(series)


def test_hidden_files_do_not_count(series: Path) -> None:
    (series / "._slice_0.dcm").write_bytes((series / NAMES[0]).read_bytes())
    agrees(series)
