"""Overlap, surface and volume scores of one predicted label map against its reference.

Needs numpy and scipy alone, so a report or a cluster job scores label maps without torch. Rules for empty masks, the
same for every caller: where both masks of a class are empty, every score is NaN; where one is empty, Dice, IoU and
NSD are 0 and HD95 is infinite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seg.errors import DataError
from seg.metrics.surface import BoolArray, distance_percentile, measure_surfaces, share_within

HD_PERCENTILE = 95.0
"""Percentile of surface distances that HD95 reports."""


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """Scores of one class in one case.

    Attributes:
        dice: Twice the intersection over the sum of both volumes, in [0, 1].
        iou: Intersection over union, in [0, 1].
        hd95_mm: 95th percentile of the surface distances, the larger of the two directions, in mm.
        nsd: Share of both surfaces that lies within the tolerance of the other, in [0, 1].
        volume_difference_ml: Prediction less reference, in ml.
        volume_difference_ratio: Prediction less reference, over the reference: 0 is equal, -1 is missed altogether,
            infinite is a prediction where the reference is empty.
        reference_ml: Volume of the reference, in ml; 0, not NaN, where it is empty.
        prediction_ml: Volume of the prediction, in ml; 0, not NaN, where it is empty.
    """

    dice: float
    iou: float
    hd95_mm: float
    nsd: float
    volume_difference_ml: float
    volume_difference_ratio: float
    reference_ml: float
    prediction_ml: float


EMPTY_SCORES = ClassScores(
    dice=math.nan,
    iou=math.nan,
    hd95_mm=math.nan,
    nsd=math.nan,
    volume_difference_ml=math.nan,
    volume_difference_ratio=math.nan,
    reference_ml=0.0,
    prediction_ml=0.0,
)
"""Scores of a class that is absent from prediction and reference."""


def score_case(
    prediction: npt.NDArray[np.integer],
    reference: npt.NDArray[np.integer],
    *,
    spacing_mm: Sequence[float],
    num_classes: int,
    nsd_tolerance_mm: float,
    ignore_label: int | None = None,
) -> dict[int, ClassScores]:
    """Scores every foreground class of one case.

    Args:
        prediction: Integer label map of shape (X, Y, Z).
        reference: Integer label map of the same shape and grid.
        spacing_mm: Distance between voxel centres along X, Y and Z, in mm, each positive.
        num_classes: Number of classes, background (index 0) included.
        nsd_tolerance_mm: Distance up to which two surfaces count as equal in NSD, in mm, 0 or more.
        ignore_label: Value of reference voxels that count for neither side.

    Returns:
        The scores by class index, 1 to num_classes - 1.

    Raises:
        DataError: The shapes differ or are not 3-D, or the spacing or tolerance is out of range.
    """
    _check_arguments(prediction, reference, spacing_mm, nsd_tolerance_mm)
    spacing = tuple(float(step) for step in spacing_mm)
    if ignore_label is not None:
        prediction = np.where(reference == ignore_label, 0, prediction)
        reference = np.where(reference == ignore_label, 0, reference)
    return {
        index: score_masks(
            prediction == index, reference == index, spacing_mm=spacing, nsd_tolerance_mm=nsd_tolerance_mm
        )
        for index in range(1, num_classes)
    }


def score_masks(
    prediction: BoolArray,
    reference: BoolArray,
    *,
    spacing_mm: tuple[float, ...],
    nsd_tolerance_mm: float,
) -> ClassScores:
    """Scores one mask against another.

    Args:
        prediction: Mask of shape (X, Y, Z).
        reference: Mask of the same shape.
        spacing_mm: Distance between voxel centres along X, Y and Z, in mm.
        nsd_tolerance_mm: Distance up to which two surfaces count as equal in NSD, in mm.

    Returns:
        The scores, by the rules for empty masks above.
    """
    voxel_ml = math.prod(spacing_mm) / 1000.0
    predicted, expected = int(np.count_nonzero(prediction)), int(np.count_nonzero(reference))
    if not predicted and not expected:
        return EMPTY_SCORES
    common = int(np.count_nonzero(prediction & reference))
    hd95_mm, nsd = math.inf, 0.0
    if predicted and expected:
        surfaces = measure_surfaces(prediction, reference, spacing_mm)
        hd95_mm = max(distance_percentile(surface, HD_PERCENTILE) for surface in surfaces)
        nsd = share_within(surfaces, nsd_tolerance_mm)
    return ClassScores(
        dice=2.0 * common / (predicted + expected),
        iou=common / (predicted + expected - common),
        hd95_mm=hd95_mm,
        nsd=nsd,
        volume_difference_ml=(predicted - expected) * voxel_ml,
        volume_difference_ratio=(predicted - expected) / expected if expected else math.inf,
        reference_ml=expected * voxel_ml,
        prediction_ml=predicted * voxel_ml,
    )


def _check_arguments(
    prediction: npt.NDArray[np.integer],
    reference: npt.NDArray[np.integer],
    spacing_mm: Sequence[float],
    nsd_tolerance_mm: float,
) -> None:
    """Refuses arguments that would give a wrong number instead of an error."""
    problems = []
    if prediction.shape != reference.shape:
        problems.append(
            f"prediction shape {prediction.shape} differs from reference shape {reference.shape}; "
            "resample the prediction to the reference's grid."
        )
    elif prediction.ndim != 3:
        problems.append(
            f"label maps to score must have 3 axes, got shape {prediction.shape}; score volumes one by one."
        )
    if len(spacing_mm) != 3 or not all(math.isfinite(step) and step > 0 for step in spacing_mm):
        problems.append(
            f"spacing_mm must be three positive lengths in mm, got {tuple(spacing_mm)}; correct the header."
        )
    if not (math.isfinite(nsd_tolerance_mm) and nsd_tolerance_mm >= 0):
        problems.append(f"nsd_tolerance_mm must be finite and 0 or more, got {nsd_tolerance_mm}; give a length in mm.")
    if problems:
        raise DataError(problems)
