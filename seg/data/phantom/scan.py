"""Scan of a phantom: from the anatomy at points to voxels with contrast, partial volume, bias field and noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg.data.phantom.shapes import CLASS_NAMES, TEXTURES_PER_KIND, draw_anatomy
from seg.errors import ConfigError, Problem

Floats = NDArray[np.float32]
HALF_SIZE_MM = np.array([20.0, 24.0, 20.0], np.float32)
"""Half the field of view (X, Y, Z) in which the anatomy is laid out, in mm."""
SUPERSAMPLING = 2
CONTRASTS = np.array(
    [
        [0.0, 0.50, 0.56, 1.00],
        [0.0, 0.80, 0.74, 0.35],
        [0.0, 0.55, 0.60, 0.20],
        [0.0, 0.35, 0.40, 0.75],
        [0.9, 0.50, 0.46, 0.15],
        [0.2, 0.70, 0.76, 1.00],
    ],
    np.float32,
)
"""Mean intensity of air, body, organ and dense tissue in each contrast mode, as a fraction of full scale."""


@dataclass(frozen=True, kw_only=True)
class PhantomConfig:
    """A family of phantoms.

    Attributes:
        cases: Number of cases, at least 5 (one per fold).
        extent_mm: Field of view (X, Y, Z) in mm; the anatomy is scaled to fit it.
        spacing_mm: Voxel size (X, Y, Z) in mm; it changes the grid, not the anatomy.
        channels: Channels of an image, each with its own contrast, bias field and intensity scale, 1 to 6.
        num_classes: Classes, background included, 2 to 7; structures beyond them stay visible as background.
        texture_types: Textures of each of lobe_a, lobe_b and body, 1 to 6. The main driver of difficulty: the first
            two of a class differ from the other classes' by direction, more need direction and wavelength.
        texture: Root mean square of the texture, as a fraction of full scale; 0 makes lobe_a and lobe_b identical.
        contrast_modes: Ways in which tissues map to intensities from case to case, 1 to 6; some are inverted.
        distractors: Background structures with the intensity of the small classes, >= 0.
        deformation_mm: Root mean square of the smooth displacement along each axis, in mm.
        noise: Standard deviation of the noise in each of the two parts of the complex signal whose magnitude is the
            image (Rician), as a fraction of full scale.
        bias_field: Root mean square of the logarithm of the smooth multiplicative field.
        intensity_decades: Full scale is 100 times a factor drawn log-uniformly over so many decades.
    """

    cases: int = 40
    extent_mm: tuple[float, float, float] = (40.0, 48.0, 40.0)
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    channels: int = 1
    num_classes: int = 7
    texture_types: int = 2
    texture: float = 0.14
    contrast_modes: int = 4
    distractors: int = 6
    deformation_mm: float = 1.5
    noise: float = 0.04
    bias_field: float = 0.15
    intensity_decades: float = 3.0

    def __post_init__(self) -> None:
        """Reports all broken rules at once.

        Raises:
            ConfigError: A field is out of its range.
        """
        limits: dict[str, tuple[float, float]] = {
            "cases": (5, 10000),
            "channels": (1, len(CONTRASTS)),
            "num_classes": (2, len(CLASS_NAMES)),
            "texture_types": (1, TEXTURES_PER_KIND),
            "texture": (0, 1),
            "contrast_modes": (1, len(CONTRASTS)),
            "distractors": (0, 100),
            "deformation_mm": (0, 3),
            "noise": (0, 1),
            "bias_field": (0, 1),
            "intensity_decades": (0, 6),
        }
        problems = [
            Problem(f"phantom.{name}", "range", f"must be in [{low:g}, {high:g}]", f"{getattr(self, name):g}")
            for name, (low, high) in limits.items()
            if not low <= getattr(self, name) <= high
        ]
        for name in ("extent_mm", "spacing_mm"):
            if not all(0 < value < 1000 for value in getattr(self, name)):
                rule = "must be in (0, 1000) mm along each axis"
                problems.append(Problem(f"phantom.{name}", "range", rule, str(getattr(self, name))))
        if not problems and min(self.shape) < 2:
            rule = "must leave 2 voxels along each axis"
            problems.append(Problem("phantom.spacing_mm", "shape", rule, f"a grid of {self.shape}"))
        if problems:
            raise ConfigError(problems)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along X, Y and Z."""
        x, y, z = (round(extent / step) for extent, step in zip(self.extent_mm, self.spacing_mm, strict=True))
        return x, y, z


def make_case(config: PhantomConfig, *, seed: int, index: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Makes one case; it depends on the configuration's fields other than ``cases``, the seed and the index alone.

    Anatomy, appearance and noise come from streams of their own: a change of spacing or noise keeps the anatomy.
    Equal arguments give equal bits on one machine; another processor may round sines differently.

    Args:
        config: Family of phantoms.
        seed: Seed of the data set, >= 0.
        index: Number of the case in the data set, >= 0.

    Returns:
        Image of shape (C, X, Y, Z) in arbitrary units, and label of shape (X, Y, Z) with values below
        ``num_classes``. Axes run left to right, posterior to anterior, inferior to superior.

    References:
        H. Gudbjartsson and S. Patz: The Rician distribution of noisy MRI data, 1995, doi:10.1002/mrm.1910340618.
    """
    anatomy_rng, pose_rng, look_rng, noise_rng = np.random.default_rng([seed, index]).spawn(4)
    scale = min(np.asarray(config.extent_mm) / (2 * HALF_SIZE_MM))
    steps = np.asarray(config.spacing_mm) / SUPERSAMPLING / scale
    fine = [_centres(n * SUPERSAMPLING, step) for n, step in zip(config.shape, steps, strict=True)]
    points = anatomical_points(fine, config.deformation_mm, pose_rng)
    anatomy = draw_anatomy(points, config.texture_types, config.distractors, anatomy_rng)

    label = np.where(anatomy.label < config.num_classes, anatomy.label, 0).astype(np.uint8)
    coarse = [_centres(n, 2 / n) for n in config.shape]
    image = np.empty((config.channels, *config.shape), np.float32)
    modes = look_rng.permutation(config.contrast_modes)
    streams = zip(look_rng.spawn(config.channels), noise_rng.spawn(config.channels), strict=True)
    for channel, (look, speckle) in enumerate(streams):
        means = CONTRASTS[modes[channel % len(modes)]] + look.uniform(-0.04, 0.04, 4).astype(np.float32)
        means = np.maximum(means, 0)
        signal = means[anatomy.tissue] + np.float32(config.texture) * anatomy.texture
        values = _voxels(signal, config.shape).mean(-1)
        values *= np.exp(np.float32(config.bias_field) * smooth_field(coarse, 2, look))
        if config.noise:
            real, imaginary = np.float32(config.noise) * speckle.standard_normal((2, *config.shape), np.float32)
            values = np.hypot(values + real, imaginary)
        image[channel] = values * np.float32(100 * 10 ** (config.intensity_decades * look.uniform(-0.5, 0.5)))
    votes = _voxels(label, config.shape)
    counts = np.stack([(votes == index).sum(-1, dtype=np.uint8) for index in range(config.num_classes)])
    # A tie goes to the higher class: thin structures would break up otherwise.
    return image, (config.num_classes - 1 - counts[::-1].argmax(0)).astype(np.uint8)


def _centres(count: int, step: float) -> NDArray[np.float32]:
    return ((np.arange(count) - (count - 1) / 2) * step).astype(np.float32)


def _voxels(points: NDArray[Any], shape: tuple[int, int, int]) -> NDArray[Any]:
    """Gathers the samples of each voxel: (8 N,) to (X, Y, Z, 8)."""
    x, y, z = shape
    f = SUPERSAMPLING
    return points.reshape(x, f, y, f, z, f).transpose(0, 2, 4, 1, 3, 5).reshape(x, y, z, f**3)


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
