"""Space of a phantom: smooth random fields, and the map from the scanner to the frame of the anatomy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

HALF_SIZE_MM = np.array([20.0, 24.0, 20.0], np.float32)
"""Half the field of view (X, Y, Z) in which the anatomy is laid out, in mm."""


def smooth_field(axes: list[Floats], modes: int, rng: np.random.Generator) -> Floats:
    """Draws a smooth random field as a cosine series on a separable grid.

    The coefficients are drawn before the grid is looked at, so one seed gives the same field on every grid.

    Args:
        axes: Coordinates along X, Y and Z, scaled to [-1, 1] over the field of view.
        modes: Highest number of half periods along an axis, at least 1; power falls with the fourth power of it.
        rng: Source of the coefficients.

    Returns:
        Field of shape (X, Y, Z); its mean over the field of view is 0 and its mean square is 1.
    """
    order = np.stack(np.meshgrid(*[np.arange(modes + 1)] * 3, indexing="ij"))
    degree = np.sqrt((order**2).sum(0))
    weights = rng.standard_normal(degree.shape) / np.maximum(degree, 1) ** 2
    weights[0, 0, 0] = 0
    # A cosine has mean square 1/2, a constant 1: the power of the series is known without sampling it.
    power = (weights**2 * 0.5 ** (order > 0).sum(0)).sum()
    field: Floats = (weights / np.sqrt(power)).astype(np.float32)
    for axis in axes:
        basis = np.cos(np.pi / 2 * np.arange(modes + 1, dtype=np.float32)[:, None] * (axis + 1)[None])
        # Plain einsum sums in a fixed order; a BLAS product may differ in its last bit with the number of threads.
        field = np.einsum("abc,ax->bcx", field, basis, optimize=False)
    return field


def anatomical_points(axes_mm: list[Floats], deformation_mm: float, rng: np.random.Generator) -> Floats:
    """Maps points of the scanner to the frame in which the shapes are defined.

    Args:
        axes_mm: Coordinates along X, Y and Z in mm, 0 at the centre of the field of view.
        deformation_mm: Root mean square of the displacement along each axis, in mm.
        rng: Source of pose, size and displacement.

    Returns:
        Points of shape (3, N) in mm, with N = X * Y * Z in C order.
    """
    angles = rng.uniform(-0.18, 0.18, 3)
    turn = _rotation(angles) / rng.uniform(0.92, 1.08)
    shift = rng.uniform(-1.0, 1.0, 3)
    scaled = [axis / half for axis, half in zip(axes_mm, HALF_SIZE_MM, strict=True)]
    grid = np.meshgrid(*axes_mm, indexing="ij", copy=False)
    points = np.empty((3, grid[0].size), np.float32)
    for row in range(3):
        moved = sum(np.float32(turn[row, column]) * grid[column] for column in range(3)) + np.float32(shift[row])
        points[row] = (moved + np.float32(deformation_mm) * smooth_field(scaled, 2, rng)).ravel()
    return points


def _rotation(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        first, second = (axis + 1) % 3, (axis + 2) % 3
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        matrix = np.einsum("ij,jk->ik", matrix, turn)
    return matrix
