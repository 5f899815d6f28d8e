"""Overlap, surface and volume scores of one predicted label map against its reference.

To add a metric: a field of `ClassScores`, its value in `score_masks`, and an entry in `METRICS`. Tables, summaries and
reports follow the registry.

The module needs numpy and scipy alone, so that a report or a cluster job scores label maps without torch. Rules for
empty masks, the same for every caller: where both masks of a class are empty, every score is NaN; where one mask is
empty, Dice, IoU and NSD are 0 and HD95 is infinite. Distances suppose axes at right angles: on a grid of other angles
HD95 and NSD are NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from seg.errors import DataError, Problem

HD_PERCENTILE = 95.0
"""Percentile of surface distances that HD95 reports."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One score of a class in a case, as tables and reports present it.

    Attributes:
        name: Field of `ClassScores`, column of cases.csv.
        label: What people read.
        unit: Unit of the values; empty for shares.
        digits: Decimals that are shown.
        better: Which values are better: ``higher``, ``lower``, or those closer to ``zero``.
        share: Whether values lie between 0 and 1.
        compared: Whether studies compare variants by the metric.
        in_space: Whether values are measured in mm, so that a made-up voxel size makes them meaningless.
    """

    name: str
    label: str
    unit: str = ""
    digits: int = 4
    better: Literal["higher", "lower", "zero"] = "higher"
    share: bool = False
    compared: bool = False
    in_space: bool = False


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(name="dice", label="Dice", share=True, compared=True),
        Metric(name="iou", label="IoU", share=True),
        Metric(name="hd95_mm", label="HD95", unit="mm", digits=2, better="lower", compared=True, in_space=True),
        Metric(name="nsd", label="NSD", share=True, compared=True, in_space=True),
        Metric(name="volume_difference_ml", label="Volume diff.", unit="ml", digits=3, better="zero"),
        Metric(name="volume_difference_ratio", label="Volume diff. ratio", digits=3, better="zero"),
    )
}
"""The scores that are summarised, by name."""
RANGES: Mapping[str, tuple[float, float]] = {
    **{name: (0.0, 1.0) for name, metric in METRICS.items() if metric.share},
    **dict.fromkeys(("hd95_mm", "reference_ml", "prediction_ml"), (0.0, math.inf)),
    "volume_difference_ratio": (-1.0, math.inf),
}
"""Least and largest value of scores, by name; any of them may be NaN, and one that is not named may have any value."""


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """Scores of one class in one case. A score that a stored table does not have is NaN.

    Attributes:
        dice: Twice the intersection over the sum of both volumes, in [0, 1].
        iou: Intersection over union, in [0, 1].
        hd95_mm: 95th percentile of the surface distances, the larger of the two directions, in mm.
        nsd: Share of both surfaces that lies within the tolerance of the other, in [0, 1].
        volume_difference_ml: Prediction less reference, in ml.
        volume_difference_ratio: Prediction less reference, over the reference: 0 is equal, -1 is missed altogether,
            infinite is a prediction where the reference is empty.
        reference_ml: Volume of the reference, in ml; 0, not NaN, where the reference is empty.
        prediction_ml: Volume of the prediction, in ml; 0, not NaN, where the prediction is empty.
        other: Scores of a stored table that this version does not know, by name of the column.
    """

    dice: float = math.nan
    iou: float = math.nan
    hd95_mm: float = math.nan
    nsd: float = math.nan
    volume_difference_ml: float = math.nan
    volume_difference_ratio: float = math.nan
    reference_ml: float = math.nan
    prediction_ml: float = math.nan
    other: Mapping[str, float] = field(default_factory=dict)

    def by_name(self) -> dict[str, float]:
        """Returns all scores by name, with those of other versions last."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "other"} | dict(self.other)

    @classmethod
    def from_names(cls, values: Mapping[str, float]) -> ClassScores:
        """Builds scores from values by name; names that this version does not know are kept in ``other``."""
        known = {one.name for one in fields(cls)} - {"other"}
        named = {name: value for name, value in values.items() if name in known}
        return cls(**named, other={name: value for name, value in values.items() if name not in known})


EMPTY_SCORES = ClassScores(reference_ml=0.0, prediction_ml=0.0)
"""Scores of a class that is absent from prediction and reference."""


def score_case(
    prediction: npt.NDArray[np.integer],
    reference: npt.NDArray[np.integer],
    *,
    spacing_mm: Sequence[float],
    voxel_ml: float | None = None,
    num_classes: int,
    nsd_tolerance_mm: float,
    ignore_label: int | None = None,
    scored: Mapping[int, Sequence[int]] | None = None,
) -> dict[int, ClassScores]:
    """Scores every foreground class of one case.

    Args:
        prediction: Integer label map of shape (X, Y, Z).
        reference: Integer label map of the same shape and grid.
        spacing_mm: Distance between voxel centres along X, Y and Z, in mm, each positive.
        voxel_ml: Volume of a voxel, in ml, which is less than that of a box where axes are not at right angles; None is
            that of a box.
        num_classes: Number of classes, background (index 0) included.
        nsd_tolerance_mm: Distance up to which two surfaces count as equal in NSD, in mm, 0 or more.
        ignore_label: Value of reference voxels that count for neither side.
        scored: The classes of each mask that is scored, such as a region of several; None scores each foreground class.

    Returns:
        The scores by class index, 1 to num_classes - 1, or by the indices of the masks.

    Raises:
        DataError: The shapes differ or are not 3-D, or the spacing or tolerance is out of range.
    """
    _check_arguments(prediction, reference, spacing_mm, nsd_tolerance_mm)
    spacing = tuple(float(step) for step in spacing_mm)
    if ignore_label is not None:
        prediction = np.where(reference == ignore_label, 0, prediction)
        reference = np.where(reference == ignore_label, 0, reference)
    masks = {index: (index,) for index in range(1, num_classes)} if scored is None else scored
    return {
        index: score_masks(
            *(_mask(array, classes) for array in (prediction, reference)),
            spacing_mm=spacing,
            voxel_ml=math.prod(spacing) / 1000.0 if voxel_ml is None else voxel_ml,
            nsd_tolerance_mm=nsd_tolerance_mm,
        )
        for index, classes in masks.items()
    }


def _mask(array: npt.NDArray[np.integer], classes: Sequence[int]) -> BoolArray:
    """Returns the mask (X, Y, Z) of the voxels whose class is one of some."""
    mask = array == classes[0]
    for index in classes[1:]:
        mask |= array == index
    return np.asarray(mask)


SKEW_TOLERANCE = 5e-5
"""Share of the volume of a box that a voxel may lack: its edges meet at right angles then, to 0.6 degrees, and
distances are off by 1 % at most."""


def distance_doubts(spacing_mm: Sequence[float], voxel_ml: float) -> tuple[str, ...]:
    """Returns why HD95 and NSD cannot be measured on a grid with axes at other than right angles; else nothing."""
    if 1000.0 * voxel_ml >= math.prod(spacing_mm) * (1.0 - SKEW_TOLERANCE):
        return ()
    return ("the axes of the grid must be at right angles for HD95 and NSD, got others; they are not measured.",)


def score_masks(
    prediction: BoolArray,
    reference: BoolArray,
    *,
    spacing_mm: tuple[float, ...],
    voxel_ml: float,
    nsd_tolerance_mm: float,
) -> ClassScores:
    """Scores one mask of shape (X, Y, Z) against another, by the rules above."""
    predicted, expected = int(np.count_nonzero(prediction)), int(np.count_nonzero(reference))
    if not predicted and not expected:
        return EMPTY_SCORES
    common = int(np.count_nonzero(prediction & reference))
    hd95_mm, nsd = math.inf, 0.0
    if distance_doubts(spacing_mm, voxel_ml):
        hd95_mm = nsd = math.nan
    elif predicted and expected:
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
        rule, remedy = f"must have the reference's shape {reference.shape}", "resample it to the reference's grid"
        problems.append(Problem("prediction", "shape", rule, f"{prediction.shape}", remedy))
    elif prediction.ndim != 3:
        rule, value = "must have 3 axes to be scored", f"shape {prediction.shape}"
        problems.append(Problem("label maps", "shape", rule, value, "score volumes one by one"))
    if len(spacing_mm) != 3 or not all(math.isfinite(step) and step > 0 for step in spacing_mm):
        rule = "must be three positive lengths in mm"
        problems.append(Problem("spacing_mm", "range", rule, f"{tuple(spacing_mm)}", "correct the header"))
    if not (math.isfinite(nsd_tolerance_mm) and nsd_tolerance_mm >= 0):
        rule, value = "must be finite and 0 or more", f"{nsd_tolerance_mm}"
        problems.append(Problem("nsd_tolerance_mm", "range", rule, value, "give a length in mm"))
    if problems:
        raise DataError(problems)


TOLERANCE_SLACK = 1e-5
"""Share of the tolerance by which a distance may exceed it and still count as within.

NIfTI stores spacings as 32-bit floats, so a neighbour one voxel away may be read as 1.0000001 mm away: without the
slack, NSD at 1 mm would hang on that last digit.
"""

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Surface:
    """Surface elements of one mask, in order of their distance to the other mask's surface.

    Attributes:
        distances_mm: Distance of each element, ascending, in mm; shape (elements,).
        areas_mm2: Area of each element, in mm^2; shape (elements,).
    """

    distances_mm: FloatArray
    areas_mm2: FloatArray


def measure_surfaces(
    prediction: BoolArray, reference: BoolArray, spacing_mm: tuple[float, ...]
) -> tuple[Surface, Surface]:
    """Measures the surface of each mask and its distance to the other's, for two masks that are not empty.

    A surface element sits at every corner shared by eight voxels of which some are inside; its area in mm^2 follows
    from which ones, by marching cubes through the midpoints between voxel centres.

    References:
        S. Nikolov et al., Clinically Applicable Segmentation of Head and Neck Anatomy for Radiotherapy: Deep Learning
        Algorithm Development and Validation Study, 2021, doi:10.2196/26151; code at google-deepmind/surface-distance,
        whose table of areas is used as it is. One deviation: `TOLERANCE_SLACK`.
    """
    from scipy import ndimage  # takes half a second, which commands that score nothing save

    box = _bounding_box(prediction | reference)
    codes = [_neighbour_codes(mask[box]) for mask in (prediction, reference)]
    borders = [(code != 0) & (code != 255) for code in codes]
    areas = _surface_areas(spacing_mm)
    surfaces = []
    for code, own, other in ((codes[0], *borders), (codes[1], *reversed(borders))):
        distances = ndimage.distance_transform_edt(~other, sampling=spacing_mm)[own]
        weights = areas[code[own]]
        order = np.lexsort((weights, distances))
        surfaces.append(Surface(distances_mm=distances[order], areas_mm2=weights[order]))
    return surfaces[0], surfaces[1]


def _bounding_box(mask: BoolArray) -> tuple[slice, ...]:
    """Gives the slices that hold every true voxel of a mask with at least one."""
    box = []
    for axis in range(mask.ndim):
        hits = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(int(hits[0]), int(hits[-1]) + 1))
    return tuple(box)


def _neighbour_codes(mask: BoolArray) -> npt.NDArray[np.uint8]:
    """Encodes, at each corner between voxels, which of its eight voxels lie inside the mask (X, Y, Z).

    Voxels beyond the edge count as outside. Codes have the shape (X + 1, Y + 1, Z + 1): bit 7 - (4x + 2y + z) stands
    for the neighbour at offset (x, y, z).
    """
    padded = np.pad(mask, 1).astype(np.uint8)
    corners = tuple(size + 1 for size in mask.shape)
    codes = np.zeros(corners, np.uint8)
    for x, y, z in np.ndindex(2, 2, 2):
        neighbour = padded[x : x + corners[0], y : y + corners[1], z : z + corners[2]]
        codes |= neighbour << np.uint8(7 - (4 * x + 2 * y + z))
    return codes


@lru_cache(maxsize=64)
def _surface_areas(spacing_mm: tuple[float, ...]) -> FloatArray:
    """Gives the area in mm^2 of the surface element of each of the 256 neighbour codes."""
    from surface_distance import lookup_tables

    return np.asarray(lookup_tables.create_table_neighbour_code_to_surface_area(spacing_mm), dtype=np.float64)


def distance_percentile(surface: Surface, percent: float) -> float:
    """Gives the smallest distance that this share of the surface, by area, does not exceed, in mm."""
    shares = np.cumsum(surface.areas_mm2) / np.sum(surface.areas_mm2)
    position = int(np.searchsorted(shares, percent / 100.0))
    return float(surface.distances_mm[min(position, len(shares) - 1)])


def share_within(surfaces: Sequence[Surface], tolerance_mm: float) -> float:
    """Gives the share of all surfaces, by area, whose distance is within the tolerance, in [0, 1]."""
    limit = tolerance_mm * (1.0 + TOLERANCE_SLACK)
    within = sum(float(np.sum(surface.areas_mm2[surface.distances_mm <= limit])) for surface in surfaces)
    return within / sum(float(np.sum(surface.areas_mm2)) for surface in surfaces)


def finite_mean(values: Iterable[float | None]) -> float | None:
    """Returns the mean of the values that are finite numbers; None without any."""
    present = [value for value in values if value is not None and math.isfinite(value)]
    return sum(present) / len(present) if present else None
