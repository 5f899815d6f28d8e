"""Scan of a phantom: from the anatomy at points to voxels with contrast, partial volume, bias field and noise."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from seg.config.fields import STRICT
from seg.data.phantom.shapes import CLASS_NAMES, TEXTURES_PER_KIND, draw_anatomy

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


Length = Annotated[float, Field(gt=0, lt=1000)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PhantomConfig:
    """What phantoms are generated from: their grid, textures, intensities and noise.

    Raises:
        ValueError: Fields are out of their ranges, all of which are named, or leave fewer than 2 voxels along an axis.
    """

    cases: int = Field(default=40, ge=5, le=10_000, description="Cases, at least one per fold.")
    extent_mm: tuple[Length, Length, Length] = Field(
        default=(40.0, 48.0, 40.0), description="Field of view (X, Y, Z) in mm; the anatomy is scaled to fit it."
    )
    spacing_mm: tuple[Length, Length, Length] = Field(
        default=(1.0, 1.0, 1.0), description="Voxel size (X, Y, Z) in mm; it changes the grid, not the anatomy."
    )
    channels: int = Field(
        default=1, ge=1, le=len(CONTRASTS), description="Each has its contrast, bias field and scale."
    )
    num_classes: int = Field(default=7, ge=2, le=len(CLASS_NAMES), description="Further structures are background.")
    texture_types: int = Field(
        default=2,
        ge=1,
        le=TEXTURES_PER_KIND,
        description="Textures of each of lobe_a, lobe_b and body, the main driver of difficulty: the first two of a "
        "class differ from the other classes' by direction, more need direction and wavelength.",
    )
    texture: float = Field(default=0.14, ge=0, le=1, description="Its RMS by full scale; 0 makes both lobes identical.")
    contrast_modes: int = Field(
        default=4, ge=1, le=len(CONTRASTS), description="Ways in which tissues map to intensities, some inverted."
    )
    distractors: int = Field(default=6, ge=0, le=100, description="Background with the intensity of small classes.")
    deformation_mm: float = Field(default=1.5, ge=0, le=3, description="RMS of the displacement along each axis.")
    noise: float = Field(
        default=0.04, ge=0, le=1, description="Deviation of both parts of the complex signal (Rician), by full scale."
    )
    bias_field: float = Field(default=0.15, ge=0, le=1, description="RMS of the log of the multiplicative field.")
    intensity_decades: float = Field(default=3.0, ge=0, le=6, description="Decades over which full scale is drawn.")

    def __post_init__(self) -> None:
        if min(self.shape) < 2:
            raise ValueError(f"spacing_mm must leave 2 voxels along each axis, got a grid of {self.shape}.")

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
