from __future__ import annotations

import io
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image, ImageColor

from seg.data.cases import Case, Dataset
from seg.errors import DataError, RunError
from seg.evaluation.metrics import EMPTY_SCORES, score_case
from seg.evaluation.scores import case_scores
from seg.figures import CaseView, case_title, draw_cases, draw_predictions
from seg.figures.cases import (
    BASE_COLOURS,
    PLANES,
    STRIPE,
    STRIPES_APART,
    WIDTH,
    class_colour,
    draw_slices,
    fullest_slices,
    visible_box,
)

NAMES = ("background", "head", "tail")
SHAPE = (20, 24, 10)
SPACING = (1.0, 1.5, 4.0)
WHOLE = (slice(0, 20), slice(0, 24), slice(0, 10))
COLOURS = [np.array(ImageColor.getrgb(code)) for code in BASE_COLOURS]


def labels() -> np.ndarray:
    array = np.zeros(SHAPE, np.int16)
    array[6:12, 8:16, 3:7] = 1
    array[12:15, 8:12, 4:6] = 2
    return array


def view(
    prediction: np.ndarray | None = None, reference: np.ndarray | None = None, case_id: str = "case_1"
) -> CaseView:
    return CaseView(
        case_id=case_id,
        image=np.random.default_rng(0).normal(size=SHAPE),
        prediction=labels() if prediction is None else prediction,
        reference=labels() if reference is None else reference,
        spacing_mm=SPACING,
    )


def read_pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def share(pixels: np.ndarray, colour: np.ndarray) -> float:
    """Part of a picture that has exactly one colour."""
    return float((pixels == colour).all(axis=-1).mean())


@pytest.mark.parametrize(
    ("number", "corner"),
    [
        # Top left as shown, for a voxel index along X, Y and Z: 0 is left, posterior, inferior.
        (0, (-1, -1, 5)),  # axial: right, anterior
        (1, (-1, 5, -1)),  # coronal: right, superior
        (2, (5, -1, -1)),  # sagittal: anterior, superior
    ],
)
def test_slices_stand_as_radiologists_read_them(number: int, corner: tuple[int, int, int]) -> None:
    marked = np.zeros(SHAPE, np.int16)
    marked[corner] = 1
    shown = draw_slices(view(marked, marked), box=WHOLE, positions=(5, 5, 5))
    rows, columns = np.nonzero((shown[number].result == COLOURS[0]).all(axis=-1))
    height, width, _ = shown[number].result.shape
    across, down = SHAPE[PLANES[number].width], SHAPE[PLANES[number].height]
    assert rows.max() < height / down + 1
    assert columns.max() < width / across + 1
    assert all((picture.result != COLOURS[0]).any(axis=-1).all() for picture in shown if picture is not shown[number])
    assert [plane.letters for plane in PLANES] == ["RLPA", "RLIS", "APIS"]


def test_slices_have_the_proportions_of_the_body_at_one_scale() -> None:
    shapes = [picture.scan.shape[:2] for picture in draw_slices(view(), box=WHOLE, positions=(4, 10, 8))]
    scale = shapes[0][1] / 20
    assert shapes == [(round(h * scale), round(w * scale)) for w, h in ((20, 36), (20, 40), (36, 40))]


def test_a_class_has_one_colour_on_any_tissue() -> None:
    picture = draw_slices(view(), box=WHOLE, positions=(4, 10, 8))[0].result
    slice_ = labels()[..., 4]
    for index, colour in enumerate(COLOURS[:2], start=1):
        assert share(picture, colour) == pytest.approx((slice_ == index).mean(), abs=0.002)


def test_errors_are_striped_and_right_voxels_are_not() -> None:
    nothing = np.zeros(SHAPE, np.int16)
    area = (labels()[..., 4] == 1).mean()
    black = np.zeros(3, np.int64)

    def axial(prediction: np.ndarray, reference: np.ndarray) -> np.ndarray:
        shown = replace(view(prediction, reference), image=None)
        return draw_slices(shown, box=WHOLE, positions=(4, 10, 8))[0].result

    plain = share(axial(nothing, nothing), black)  # of the letters
    wrong, missed, right = axial(labels(), nothing), axial(nothing, labels()), axial(labels(), labels())
    swapped = axial(labels(), np.where(labels() == 1, 2, labels()))
    for picture in (wrong, swapped):
        assert share(picture, COLOURS[0]) == pytest.approx(area * (1 - STRIPE / STRIPES_APART), abs=0.01)
    assert share(wrong, black) - plain == pytest.approx(
        STRIPE / STRIPES_APART * (labels()[..., 4] > 0).mean(), abs=0.01
    )
    assert 0.3 * area < share(missed, COLOURS[0]) < 0.7 * area
    assert share(missed, black) == pytest.approx(plain, abs=0.002)
    assert share(right, black) == pytest.approx(plain, abs=0.002)


def test_outlines_run_along_the_inner_edge_of_the_reference() -> None:
    nothing = np.zeros(SHAPE, np.int16)
    reference = np.where(labels() == 1, 1, 0)
    picture = draw_slices(replace(view(nothing, reference), image=None), box=WHOLE, positions=(4, 10, 8))[0]
    edge = (picture.scan == COLOURS[0]).all(axis=-1)
    rows, columns = np.nonzero(edge)
    height, width = edge.shape
    # Columns 6 to 11 of 20 and rows 8 to 15 of 24, both from the far end.
    assert (columns.min(), columns.max() + 1) == pytest.approx((width * 8 / 20, width * 14 / 20), abs=1)
    assert (rows.min(), rows.max() + 1) == pytest.approx((height * 8 / 24, height * 16 / 24), abs=1)
    assert not edge[rows.min() + 4 : rows.max() - 3, columns.min() + 4 : columns.max() - 3].any()


def test_what_is_shown_surrounds_both_maps_within_the_volume() -> None:
    reference = np.zeros(SHAPE, np.int16)
    reference[4, 20, 3] = 1
    # Ten voxels along X, seven along Y and three along Z make at least 10 mm.
    assert visible_box([view(labels(), reference)]) == (slice(0, 20), slice(1, 24), slice(0, 10))
    far = labels()
    far[18, 22, 9] = 1
    one, other, both = (visible_box(views) for views in ([view()], [view(far)], [view(), view(far)]))
    assert both == tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
    nothing = np.zeros(SHAPE, np.int16)
    assert visible_box([view(nothing, nothing)]) == WHOLE


def test_the_fullest_slices_are_chosen() -> None:
    mask = np.zeros(SHAPE, bool)
    mask[2:5, 3, 8] = mask[3, 3:6, 8] = True
    assert fullest_slices(mask) == (8, 3, 3)
    assert fullest_slices(np.zeros(SHAPE, bool)) == (5, 12, 10)


def test_every_case_adds_a_row_and_views_of_one_case_show_the_same_slices() -> None:
    heights = [read_pixels(draw_cases([("", view())] * count, NAMES)).shape[0] for count in (1, 2, 3)]
    assert len({after - before for before, after in pairwise(heights)}) == 1
    far = labels()
    far[18, 22, 9] = 1
    pair = read_pixels(draw_cases([("a", view()), ("a", view(far))], NAMES))
    alone = read_pixels(draw_cases([("a", view(case_id="x")), ("a", view(far))], NAMES))
    step = heights[1] - heights[0]
    assert np.array_equal(pair[:step, : WIDTH // 2], pair[step : 2 * step, : WIDTH // 2])
    assert not np.array_equal(alone[:step, : WIDTH // 2], alone[step : 2 * step, : WIDTH // 2])


def test_flat_volumes_and_many_classes_are_drawn() -> None:
    shape = (40, 40, 3)
    many = CaseView(
        case_id="flat",
        image=np.full(shape, 3.0),
        prediction=(np.arange(np.prod(shape)) % 10).reshape(shape),
        reference=np.zeros(shape, np.int32),
        spacing_mm=(1.0, 1.0, 2.0),
    )
    pixels = read_pixels(draw_cases([("flat", many)], ["background", *(f"c{index}" for index in range(9))]))
    assert pixels.shape[1] == WIDTH
    for index in range(1, 10):
        assert share(pixels, np.array(class_colour(index))) > 0.005
    assert len({class_colour(index) for index in range(1, 22)}) == 21


def test_values_that_are_not_finite_are_black() -> None:
    image = np.ones(SHAPE)
    image[:10], image[15:] = np.nan, 2.0
    nothing = np.zeros(SHAPE, np.int16)
    shown = draw_slices(replace(view(nothing, nothing), image=image), box=WHOLE, positions=(4, 10, 8))[0].scan
    middle = shown[shown.shape[0] // 3]
    assert (middle[-40:-25].max(), middle[30:50].min()) == (0, 255)


def test_titles_name_the_case_and_the_dice_of_its_classes() -> None:
    assert case_title("a", {2: float("nan"), 1: 0.9}, NAMES, "worst") == "worst: a, Dice: head 0.900, tail empty"
    assert case_title("a", {}, NAMES) == "a"


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


def drawn(dataset: Dataset, cases: int, scores: list, path: Path | None = None) -> np.ndarray:
    path = path or dataset.root / "picture.png"
    draw_predictions(path, dataset.cases[:cases], dataset.root / "predictions", scores, dataset)
    return read_pixels(path.read_bytes())


def test_a_run_is_drawn_from_its_files(dataset: Dataset) -> None:
    scores = []
    for number, case in enumerate(dataset.cases[:3]):
        pair = (np.roll(labels(), number, axis=0), labels())
        values = score_case(*pair, spacing_mm=SPACING, num_classes=3, nsd_tolerance_mm=1)
        scores += case_scores(values, case_id=case.id, class_names=NAMES)
    assert 2 < drawn(dataset, 3, scores).shape[0] / drawn(dataset, 1, scores[:2]).shape[0] < 3
    empty = case_scores({1: EMPTY_SCORES, 2: EMPTY_SCORES}, case_id="case_0", class_names=NAMES)
    assert drawn(dataset, 1, empty).shape == drawn(dataset, 1, scores[:2]).shape


@pytest.mark.parametrize(("file", "values"), [("label_0.nii.gz", (9, 0)), ("predictions/case_0.nii.gz", (1, 0))])
def test_voxels_that_the_reference_leaves_open_are_not_drawn(
    dataset: Dataset, file: str, values: tuple[int, int]
) -> None:
    pictures = []
    for value in values:
        changed = labels()
        changed[0] = value
        nib.save(nib.Nifti1Image(changed, np.diag([*SPACING, 1.0])), dataset.root / file)
        pictures.append(drawn(dataset, 1, []))
    assert np.array_equal(*pictures)


def test_what_cannot_be_drawn_or_written_is_named(dataset: Dataset) -> None:
    with pytest.raises(DataError) as caught:
        draw_predictions(dataset.root / "a.png", dataset.cases[3:], dataset.root / "predictions", [], dataset)
    assert [(problem.path, problem.kind) for problem in caught.value.problems] == [("case case_3", "missing")]
    (dataset.root / "file").touch()
    with pytest.raises(RunError, match="file"):
        drawn(dataset, 1, [], dataset.root / "file" / "picture.png")
