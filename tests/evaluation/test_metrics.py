from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import surface_distance
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_iou, compute_surface_dice
from scipy import ndimage

from seg.errors import DataError
from seg.evaluation.metrics import EMPTY_SCORES, ClassScores, _surface_areas, distance_doubts, score_case

ANISOTROPIC = (0.7, 0.9, 3.3)


def blobs(seed: int, shape: tuple[int, int, int] = (18, 16, 9)) -> tuple[np.ndarray, np.ndarray]:
    """A smooth random mask and a disturbed copy of it."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=shape), 2.0)
    change = ndimage.gaussian_filter(rng.normal(size=shape), 1.0)
    return field > np.quantile(field, 0.8), field + 0.1 * change > np.quantile(field, 0.75)


def score(
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing_mm: tuple[float, ...] = (1.0, 1.0, 1.0),
    tolerance: float = 1.0,
) -> ClassScores:
    maps = (prediction.astype(np.int16), reference.astype(np.int16))
    return score_case(*maps, spacing_mm=spacing_mm, num_classes=2, nsd_tolerance_mm=tolerance)[1]


def voxel(x: int, y: int, z: int, shape: tuple[int, int, int] = (8, 8, 8)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[x, y, z] = True
    return mask


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    spacing=st.tuples(*[st.sampled_from((0.5, 0.7, 1.0, 1.25, 3.3, 10.0))] * 3),
    tolerance=st.sampled_from((0.0, 0.6, 1.1, 2.3, 5.7)),
)
def test_surface_scores_agree_with_surface_distance(seed: int, spacing: tuple[float, ...], tolerance: float) -> None:
    prediction, reference = blobs(seed)
    ours = score(prediction, reference, spacing, tolerance)
    theirs = surface_distance.compute_surface_distances(reference, prediction, spacing)
    assert ours.hd95_mm == pytest.approx(surface_distance.compute_robust_hausdorff(theirs, 95), abs=1e-6)
    nsd = surface_distance.compute_surface_dice_at_tolerance(theirs, tolerance)
    assert ours.nsd == pytest.approx(nsd, abs=1e-6)
    assert ours.dice == pytest.approx(surface_distance.compute_dice_coefficient(reference, prediction), abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_overlap_and_nsd_agree_with_monai(seed: int) -> None:
    prediction, reference = blobs(seed)
    ours = score(prediction, reference, ANISOTROPIC, 1.5)
    ours_as_batch = [torch.from_numpy(mask)[None, None].float() for mask in (prediction, reference)]
    assert ours.iou == pytest.approx(float(compute_iou(*ours_as_batch, include_background=True)), abs=1e-6)
    nsd = compute_surface_dice(
        *ours_as_batch, class_thresholds=[1.5], include_background=True, spacing=ANISOTROPIC, use_subvoxels=True
    )
    assert ours.nsd == pytest.approx(float(nsd), abs=1e-5)


def test_two_voxels_apart_have_the_scores_of_their_corners() -> None:
    # The surface of a voxel is eight equal corners. Three voxels of 2 mm apart, the near four corners lie two voxels
    # from the other's, the far four three.
    one, other = voxel(1, 3, 3), voxel(4, 3, 3)
    spacing = (2.0, 1.0, 1.0)
    assert score(one, other, spacing, 3.9).hd95_mm == pytest.approx(6.0)
    assert [score(one, other, spacing, tolerance).nsd for tolerance in (3.9, 4.0, 6.0)] == pytest.approx(
        [0.0, 0.5, 1.0]
    )
    assert score(one, other, spacing).dice == 0.0


def test_a_shifted_cube_has_the_overlap_and_volume_of_its_shift() -> None:
    reference, prediction = np.zeros((2, 16, 16, 16), bool)
    reference[2:10, 2:10, 2:10] = True
    prediction[4:10, 2:10, 2:10] = True
    ours = score(prediction, reference, (1.0, 2.0, 5.0))
    assert ours.dice == pytest.approx(2 * 6 / (6 + 8))
    assert ours.iou == pytest.approx(6 / 8)
    assert ours.reference_ml == pytest.approx(512 * 10 / 1000)
    assert ours.prediction_ml == pytest.approx(384 * 10 / 1000)
    assert ours.volume_difference_ml == pytest.approx(-128 * 10 / 1000)
    assert ours.volume_difference_ratio == pytest.approx(-0.25)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 1.1, 2.0)])
def test_concentric_balls_are_as_far_apart_as_their_radii(spacing: tuple[float, ...]) -> None:
    shape = tuple(int(60 / step) for step in spacing)
    axes = np.meshgrid(*(np.arange(size) * step - 30 for size, step in zip(shape, spacing, strict=True)), indexing="ij")
    radius = np.sqrt(sum(axis**2 for axis in axes))
    small, large = radius < 18, radius < 24
    voxel_diagonal = math.dist((0, 0, 0), spacing)
    assert score(small, large, spacing).hd95_mm == pytest.approx(6.0, abs=voxel_diagonal)
    assert score(small, large, spacing, 6.0 + voxel_diagonal).nsd == 1.0
    assert score(small, large, spacing, 6.0 - voxel_diagonal).nsd < 0.05
    assert score(small, large, spacing).volume_difference_ratio == pytest.approx((18 / 24) ** 3 - 1, abs=0.01)


def test_surface_areas_are_those_of_planes_and_cut_corners() -> None:
    x, y, z = 0.7, 0.9, 3.3
    areas = _surface_areas((x, y, z))
    # Bit 7 - (4x + 2y + z): the four neighbours on one side of each axis.
    for codes, area in (((0b11110000, 0b00001111), y * z), ((0b11001100, 0b00110011), x * z)):
        assert areas[list(codes)] == pytest.approx([area, area])
    assert areas[[0b10101010, 0b01010101]] == pytest.approx([x * y, x * y])
    corner = math.sqrt((x * y) ** 2 + (y * z) ** 2 + (x * z) ** 2) / 8
    assert areas[[1 << bit for bit in range(8)]] == pytest.approx([corner] * 8)
    assert areas[[0, 255]] == pytest.approx([0.0, 0.0])


def test_scores_do_not_depend_on_what_surrounds_the_masks() -> None:
    prediction, reference = blobs(3)
    padded = [np.pad(mask, ((3, 7), (0, 5), (11, 2))) for mask in (prediction, reference)]
    assert score(*padded, ANISOTROPIC) == score(prediction, reference, ANISOTROPIC)


def test_surface_scores_and_dice_do_not_depend_on_which_map_is_the_reference() -> None:
    prediction, reference = blobs(5)
    there, back = score(prediction, reference, ANISOTROPIC), score(reference, prediction, ANISOTROPIC)
    assert (there.dice, there.iou, there.hd95_mm) == (back.dice, back.iou, back.hd95_mm)
    assert there.nsd == pytest.approx(back.nsd)
    assert there.volume_difference_ml == -back.volume_difference_ml


def test_the_rounding_of_a_32_bit_spacing_does_not_move_nsd() -> None:
    prediction, reference = blobs(1)
    rounded = (1.0000001192092896,) * 3
    assert score(prediction, reference, rounded).nsd == pytest.approx(score(prediction, reference).nsd, abs=1e-6)


def test_two_empty_masks_have_no_score_but_a_volume() -> None:
    empty = np.zeros((4, 4, 4), bool)
    values = score(empty, empty).by_name()
    assert (values.pop("reference_ml"), values.pop("prediction_ml")) == (0.0, 0.0)
    assert all(math.isnan(value) for value in values.values())


@pytest.mark.parametrize(("missed", "ratio"), [(True, -1.0), (False, math.inf)])
def test_one_empty_mask_scores_zero_and_an_infinite_distance(missed: bool, ratio: float) -> None:
    full, empty = voxel(1, 1, 1), np.zeros((8, 8, 8), bool)
    ours = score(*((empty, full) if missed else (full, empty)), (10.0, 10.0, 10.0))
    assert (ours.dice, ours.iou, ours.nsd, ours.hd95_mm) == (0.0, 0.0, 0.0, math.inf)
    assert ours.volume_difference_ml == pytest.approx(-1.0 if missed else 1.0)
    assert ours.volume_difference_ratio == ratio


def test_each_class_is_scored_by_itself() -> None:
    reference = np.zeros((6, 6, 6), np.int16)
    reference[1:3], reference[3:5] = 1, 2
    prediction = np.where(reference == 2, 0, reference)
    scores = score_case(prediction, reference, spacing_mm=(1, 1, 1), num_classes=4, nsd_tolerance_mm=1)
    assert list(scores) == [1, 2, 3]
    assert (scores[1].dice, scores[2].dice) == (1.0, 0.0)
    assert math.isnan(scores[3].dice)


def test_ignored_voxels_count_for_neither_side() -> None:
    prediction, reference = blobs(2)
    ignored = np.zeros(reference.shape, bool)
    ignored[:6] = True
    marked = np.where(ignored, 255, reference).astype(np.int16)
    ours = score_case(
        prediction.astype(np.int16), marked, spacing_mm=ANISOTROPIC, num_classes=2, nsd_tolerance_mm=1, ignore_label=255
    )[1]
    assert ours == score(prediction & ~ignored, reference & ~ignored, ANISOTROPIC)


def test_a_sheared_grid_has_overlap_and_volumes_but_no_distances() -> None:
    masks = dict(zip(("prediction", "reference"), (mask.astype(np.int16) for mask in blobs(4)), strict=True))
    options: dict[str, Any] = {"spacing_mm": (1.0, 2.0, 5.0), "num_classes": 3, "nsd_tolerance_mm": 1.0}
    square, skewed = (score_case(**masks, **options, voxel_ml=volume)[1].by_name() for volume in (0.01, 0.004))
    assert square == score_case(**masks, **options)[1].by_name()
    for name in ("reference_ml", "prediction_ml", "volume_difference_ml"):
        assert skewed[name] == pytest.approx(0.4 * square[name])
    assert all(math.isnan(skewed[name]) for name in ("hd95_mm", "nsd"))
    assert {skewed[name] == square[name] for name in ("dice", "iou", "volume_difference_ratio")} == {True}
    missed = score_case(np.zeros_like(masks["reference"]), masks["reference"], **options, voxel_ml=0.004)
    assert (missed[1].dice, math.isnan(missed[1].nsd), math.isnan(missed[1].hd95_mm)) == (0.0, True, True)
    assert missed[2] == EMPTY_SCORES


@pytest.mark.parametrize(("angle_deg", "measured"), [(90.0, True), (89.5, True), (89.0, False), (60.0, False)])
def test_distances_are_measured_where_axes_are_at_right_angles(angle_deg: float, measured: bool) -> None:
    skewed = math.sin(math.radians(angle_deg)) * 0.7 * 0.9 * 3.3 / 1000
    assert (distance_doubts(ANISOTROPIC, skewed) == ()) is measured


@pytest.mark.parametrize(
    ("shape", "spacing", "tolerance", "path", "value"),
    [
        ((4, 4, 5), (1.0, 1.0, 1.0), 1.0, "prediction", "(4, 4, 5)"),
        ((4, 4, 4), (1.0, 0.0, 1.0), 1.0, "spacing_mm", "(1.0, 0.0, 1.0)"),
        ((4, 4, 4), (1.0, 1.0), 1.0, "spacing_mm", "(1.0, 1.0)"),
        ((4, 4, 4), (1.0, 1.0, 1.0), -1.0, "nsd_tolerance_mm", "-1.0"),
        ((4, 4, 4), (1.0, 1.0, 1.0), math.nan, "nsd_tolerance_mm", "nan"),
    ],
)
def test_bad_arguments_are_named(
    shape: tuple[int, ...], spacing: tuple[float, ...], tolerance: float, path: str, value: str
) -> None:
    with pytest.raises(DataError) as caught:
        score_case(
            np.zeros(shape, np.int16),
            np.zeros((4, 4, 4), np.int16),
            spacing_mm=spacing,
            num_classes=2,
            nsd_tolerance_mm=tolerance,
        )
    assert [(problem.path, problem.value) for problem in caught.value.problems] == [(path, value)]


def test_volumes_with_channels_are_refused() -> None:
    both = np.zeros((4, 4, 4, 2), np.int16)
    with pytest.raises(DataError) as caught:
        score_case(both, both, spacing_mm=(1, 1, 1), num_classes=2, nsd_tolerance_mm=1)
    assert [problem.kind for problem in caught.value.problems] == ["shape"]
