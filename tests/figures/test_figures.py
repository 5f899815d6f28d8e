from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import matplotlib.image
import nibabel as nib
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from seg.data.cases import Case, Dataset
from seg.errors import DataError, RunError
from seg.evaluation import case_scores
from seg.figures import FigureRow, draw_predictions, grid, pick_cases, prediction_grid
from seg.figures.grid import CLASS_COLOURS
from seg.figures.views import PLANES, cut, joint_box, slice_positions, view_extent, visible_box
from seg.metrics import EMPTY_SCORES, score_case

NAMES = ("background", "head", "tail")
SHAPE = (20, 24, 10)
SPACING = (1.0, 1.5, 4.0)


def labels() -> np.ndarray:
    array = np.zeros(SHAPE, np.int16)
    array[6:12, 8:16, 3:7] = 1
    array[12:15, 8:12, 4:6] = 2
    return array


def row(prediction: np.ndarray | None = None, reference: np.ndarray | None = None) -> FigureRow:
    image = np.random.default_rng(0).normal(size=SHAPE)
    return FigureRow(
        case_id="case_1",
        image=image,
        prediction=labels() if prediction is None else prediction,
        reference=reference,
        spacing_mm=SPACING,
        dice={1: 0.9, 2: float("nan")},
        note="worst",
    )


def read_pixels(path: Path) -> np.ndarray:
    """Colours of a PNG, shape (height, width, 3), in [0, 1]."""
    return matplotlib.image.imread(path)[..., :3]


def count_colour(pixels: np.ndarray, colour: str) -> int:
    return int((np.abs(pixels - to_rgb(colour)).max(axis=-1) < 0.01).sum())


@pytest.mark.parametrize(
    ("plane", "corner"),
    [
        # Bottom left as shown, for a voxel index along X, Y and Z: 0 is left, posterior, inferior.
        ("axial", (-1, 0, 5)),  # right, posterior
        ("coronal", (-1, 5, 0)),  # right, inferior
        ("sagittal", (5, -1, 0)),  # anterior, inferior
    ],
)
def test_slices_stand_as_radiologists_read_them(plane: str, corner: tuple[int, int, int]) -> None:
    marked = np.zeros(SHAPE)
    marked[corner] = 1
    box = tuple(slice(0, size) for size in SHAPE)
    (chosen,) = (each for each in PLANES if each.name == plane)
    picture = cut(marked, box, chosen, 5)
    assert np.argwhere(picture).tolist() == [[0, 0]]
    ends = {"axial": ("R", "L", "P", "A"), "coronal": ("R", "L", "I", "S"), "sagittal": ("A", "P", "I", "S")}
    assert chosen.letters == ends[plane]
    assert picture.shape == (SHAPE[chosen.height], SHAPE[chosen.width])


def test_slices_have_the_proportions_of_the_body() -> None:
    box = tuple(slice(0, size) for size in SHAPE)
    assert [view_extent(box, plane, SPACING) for plane in PLANES] == [(20, 36), (20, 40), (36, 40)]


def test_what_is_shown_surrounds_both_maps_within_the_volume() -> None:
    reference = np.zeros(SHAPE, np.int16)
    reference[4, 20, 3] = 1
    # Ten voxels along X, seven along Y and three along Z make at least 10 mm.
    assert visible_box(row(labels(), reference)) == (slice(0, 20), slice(1, 24), slice(0, 10))
    empty = np.zeros(SHAPE, np.int16)
    assert visible_box(row(empty, empty)) == tuple(slice(0, size) for size in SHAPE)


def test_rows_of_one_case_are_cut_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    far = labels()
    far[18, 22, 9] = 1  # a false positive in a corner: alone it would widen the part that is shown
    frames = []
    monkeypatch.setattr(grid, "_draw_slice", lambda axis, row, frame, plane, classes: frames.append((row, frame)))
    other = replace(row(labels(), labels()), case_id="case_2")
    prediction_grid(tmp_path / "a.png", [row(labels(), labels()), row(far, labels()), other], class_names=NAMES)
    first, second, third = (frames[3 * number][1] for number in range(3))
    assert (first.box, first.positions, first.sizes_inch) == (second.box, second.positions, second.sizes_inch)
    alone = [visible_box(one) for one in (row(labels(), labels()), row(far, labels()))]
    assert first.box == joint_box([row(labels(), labels()), row(far, labels())])
    assert first.box == tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(*alone, strict=True))
    assert third.box == alone[0] != first.box


def test_slices_hold_the_most_of_the_reference_else_of_the_prediction() -> None:
    reference = np.zeros(SHAPE, np.int16)
    reference[2:5, 3, 8] = 1
    reference[3, 3:6, 8] = 2
    assert slice_positions(row(labels(), reference)) == {"axial": 8, "coronal": 3, "sagittal": 3}
    assert slice_positions(row(labels())) == {"axial": 4, "coronal": 8, "sagittal": 6}
    assert slice_positions(row(np.zeros(SHAPE, np.int16))) == {"axial": 5, "coronal": 12, "sagittal": 10}


def test_the_worst_the_median_and_the_best_case_are_picked() -> None:
    dice = {"a": 0.5, "b": 0.9, "c": 0.7, "d": None, "e": 0.8, "f": 0.6}
    assert list(pick_cases(dice).items()) == [("worst", "a"), ("median", "c"), ("best", "b")]
    assert pick_cases({"a": 0.5, "b": 0.9}) == {"worst": "a", "best": "b"}
    assert pick_cases({"a": 0.5}) == {"worst": "a"}
    assert pick_cases({"a": None}) == {}


def test_outlines_and_fills_have_the_colours_of_their_classes(tmp_path: Path) -> None:
    nothing = np.zeros(SHAPE, np.int16)
    outlined, filled, none = tmp_path / "new" / "outlined.png", tmp_path / "filled.png", tmp_path / "none.png"
    prediction_grid(outlined, [row(nothing, labels())], class_names=NAMES)
    prediction_grid(filled, [row(labels(), nothing)], class_names=NAMES)
    prediction_grid(none, [row(nothing, nothing)], class_names=NAMES)
    for colour in CLASS_COLOURS[:2]:
        # The legend alone shows a class that no map holds; an outline adds its full colour.
        assert count_colour(read_pixels(outlined), colour) > count_colour(read_pixels(none), colour) + 300
    spread = {path: float(np.ptp(read_pixels(path), axis=-1).sum()) for path in (filled, none)}
    assert spread[filled] > 1.5 * spread[none]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_each_case_adds_a_row(tmp_path: Path) -> None:
    for count in (1, 3):
        prediction_grid(tmp_path / f"{count}.png", [row()] * count, class_names=NAMES)
    one, three = (read_pixels(tmp_path / f"{count}.png").shape for count in (1, 3))
    assert one[1] == three[1]
    assert 2 < three[0] / one[0] < 3


def test_flat_images_and_many_classes_are_drawn(tmp_path: Path) -> None:
    flat = FigureRow(
        case_id="flat",
        image=np.full(SHAPE, 3.0),
        prediction=(np.arange(np.prod(SHAPE)) % 10).reshape(SHAPE),
        reference=None,
        spacing_mm=SPACING,
        dice={},
    )
    prediction_grid(tmp_path / "flat.png", [flat], class_names=["background", *(f"c{index}" for index in range(9))])
    assert read_pixels(tmp_path / "flat.png").std() > 0


def test_a_picture_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"must be writable, got '.*'; free space or choose another folder\.$"):
        prediction_grid(tmp_path / "file" / "picture.png", [row()], class_names=NAMES)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Four cases of two channels, the fourth without a label; predictions are shifted ever further."""
    affine = np.diag([*SPACING, 1.0])
    cases = []
    for number in range(4):
        image, label = tmp_path / f"image_{number}.nii.gz", tmp_path / f"label_{number}.nii.gz"
        noise = np.random.default_rng(number).normal(size=(*SHAPE, 2)).astype(np.float32)
        nib.save(nib.Nifti1Image(noise, affine), image)
        reference = labels()
        reference[0] = 9
        nib.save(nib.Nifti1Image(reference, affine), label)
        shifted = nib.Nifti1Image(np.roll(labels(), number, axis=0), affine)
        (tmp_path / "predictions").mkdir(exist_ok=True)
        nib.save(shifted, tmp_path / "predictions" / f"case_{number}.nii.gz")
        cases.append(Case(id=f"case_{number}", images=(image,), label=label if number < 3 else None))
    return Dataset(
        name="test",
        root=tmp_path,
        layout="manifest",
        cases=tuple(cases),
        class_names=NAMES,
        channel_names=("T1", "T2"),
        ignore_label=9,
        licence="none",
    )


def test_a_run_is_drawn_from_its_files(dataset: Dataset) -> None:
    scores = []
    for number, case in enumerate(dataset.cases[:3]):
        pair = (np.roll(labels(), number, axis=0), labels())
        values = score_case(*pair, spacing_mm=SPACING, num_classes=3, nsd_tolerance_mm=1)
        scores += case_scores(values, case_id=case.id, class_names=NAMES)
    path = dataset.root / "picture.png"
    draw_predictions(path, dataset.cases[:3], dataset.root / "predictions", scores, dataset)
    three = read_pixels(path).shape[0]
    draw_predictions(path, dataset.cases[:1], dataset.root / "predictions", scores[:2], dataset)
    assert 2 < three / read_pixels(path).shape[0] < 3


def test_ignored_voxels_are_not_drawn(dataset: Dataset) -> None:
    pictures = []
    for value in (9, 0):
        reference = labels()
        reference[0] = value
        nib.save(nib.Nifti1Image(reference, np.diag([*SPACING, 1.0])), dataset.cases[0].label)
        draw_predictions(dataset.root / "picture.png", dataset.cases[:1], dataset.root / "predictions", [], dataset)
        pictures.append(read_pixels(dataset.root / "picture.png"))
    assert np.array_equal(*pictures)


def test_predictions_of_ignored_voxels_are_not_drawn(dataset: Dataset) -> None:
    pictures = []
    for value in (1, 0):
        prediction = labels()
        prediction[0] = value
        path = dataset.root / "predictions" / "case_0.nii.gz"
        nib.save(nib.Nifti1Image(prediction, np.diag([*SPACING, 1.0])), path)
        draw_predictions(dataset.root / "picture.png", dataset.cases[:1], path.parent, [], dataset)
        pictures.append(read_pixels(dataset.root / "picture.png"))
    assert np.array_equal(*pictures)


def test_a_run_whose_cases_are_all_empty_is_drawn(dataset: Dataset) -> None:
    scores = case_scores({1: EMPTY_SCORES, 2: EMPTY_SCORES}, case_id="case_0", class_names=NAMES)
    draw_predictions(dataset.root / "picture.png", dataset.cases[:1], dataset.root / "predictions", scores, dataset)
    assert (dataset.root / "picture.png").exists()


def test_a_case_without_a_label_is_named(dataset: Dataset) -> None:
    with pytest.raises(
        DataError, match=r"^case case_3: a case to draw needs a label, got none; add one to the data set\.$"
    ):
        draw_predictions(dataset.root / "picture.png", dataset.cases[3:], dataset.root / "predictions", [], dataset)
