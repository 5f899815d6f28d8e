"""Surfaces of masks: their elements' areas and their distances to another surface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from surface_distance import lookup_tables

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
    """Encodes, at each corner between voxels, which of its eight voxels lie inside the mask.

    Args:
        mask: Mask of shape (X, Y, Z); voxels beyond its edge count as outside.

    Returns:
        Codes of shape (X + 1, Y + 1, Z + 1): bit 7 - (4x + 2y + z) stands for the neighbour at offset (x, y, z).
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
