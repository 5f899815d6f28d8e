"""How far around a patch its deformation can reach."""

from __future__ import annotations

import math
from collections.abc import Sequence

from seg.config import SpatialConfig

LARGEST_NORMAL = 6.0
"""Above the largest normal number, in standard deviations, that torch draws in single precision, 5.8."""
ROUNDING = 1e-6


def margins(config: SpatialConfig, size: Sequence[int]) -> tuple[int, int, int]:
    """Returns the voxels around a patch that a deformation may sample, per axis, on either side.

    Args:
        config: Probabilities and ranges.
        size: Patch size (X, Y, Z).

    Returns:
        Bounds that no draw exceeds; 0 on all axes where nothing is ever deformed.
    """
    if config.probability == 0:
        return (0, 0, 0)
    # A zoom moves the faces of the patch away from its centre, then rotation turns them.
    smallest = config.scale[0] * (1 - config.anisotropic_scale)
    half = [(length - 1) / 2 for length in size]
    faces = [half[axis] / (smallest if axis in config.scale_axes else 1.0) for axis in range(3)]
    turned = _turned(config.rotation_deg, faces)
    x, y, z = (math.ceil(max(0.0, turned[axis] + _moved(config, axis) - half[axis] - ROUNDING)) for axis in range(3))
    return x, y, z


def _turned(largest_deg: Sequence[float], faces: Sequence[float]) -> list[float]:
    """Bounds the coordinates of points of a box, about its centre, after any rotation up to the largest."""
    x, y, z = (math.sin(math.radians(min(angle, 90.0))) for angle in largest_deg)
    # Rotations about X, then Y, then Z, with every cosine at most 1; deformation applies the transpose.
    rows = ((1.0, x * y + z, y + x * z), (z, 1.0, x + y * z), (y, x, 1.0))
    length = math.hypot(*faces)
    return [
        min(length, sum(min(1.0, row[axis]) * face for row, face in zip(rows, faces, strict=True))) for axis in range(3)
    ]


def _moved(config: SpatialConfig, axis: int) -> float:
    elastic = config.elastic_voxels if axis in config.elastic_axes else 0.0
    return config.shift[axis] + LARGEST_NORMAL * elastic
