"""Rotation, zoom, shift, elastic deformation and mirroring."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from seg.config import SpatialConfig


@dataclass(frozen=True, kw_only=True)
class Deformations:
    """Draws of a batch.

    Attributes:
        active: Which patches are deformed, bool (B,).
        angles: Rotation about X, Y and Z in radians, (B, 3).
        zooms: Zoom per axis, (B, 3); above 1 enlarges what is seen.
        shifts: Translation per axis in voxels, (B, 3).
        control: Displacements of the control points in voxels, (B, 3, x, y, z).
        mirrored: Which axes are mirrored, bool (B, 3).
    """

    active: Tensor
    angles: Tensor
    zooms: Tensor
    shifts: Tensor
    control: Tensor
    mirrored: Tensor


def deform(image: Tensor, label: Tensor, config: SpatialConfig, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Deforms images and labels alike; mirroring is independent of the rest.

    Images are interpolated trilinearly and continue with their border values; labels take the nearest voxel, and
    background outside. Nearest is a third of the work of interpolating one channel per class, and the blur that the
    latter avoids is below a voxel.

    Args:
        image: Patches of shape (B, C, X, Y, Z).
        label: Class indices of shape (B, 1, X, Y, Z).
        config: Probabilities and ranges. Rotations act in voxel space, so between axes of different spacing they
            shear; keep those angles small.
        generator: CPU generator.

    Returns:
        New image and label.
    """
    draws = draw_deformations(image.shape[0], image.shape[2:], config, generator)
    image, label = image.clone(), label.clone()
    chosen = draws.active.nonzero()[:, 0]
    if len(chosen):
        size = image.shape[2:]
        points = sampling_grid(draws, chosen, size, image.device)
        deformed = functional.grid_sample(image[chosen], points, padding_mode="border", align_corners=True)
        moved = functional.grid_sample(
            label[chosen].to(image.dtype), points, mode="nearest", padding_mode="zeros", align_corners=True
        )
        image[chosen], label[chosen] = deformed, moved.to(label.dtype)
    for index, axes in enumerate(draws.mirrored):
        flipped = [1 + int(axis) for axis in axes.nonzero()[:, 0]]
        if flipped:
            image[index], label[index] = image[index].flip(flipped), label[index].flip(flipped)
    return image, label


def draw_deformations(batch: int, size: torch.Size, config: SpatialConfig, generator: torch.Generator) -> Deformations:
    """Draws the deformation of each patch; the number of draws depends on batch, patch size and elastic_grid alone."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    active = uniform(batch) < config.probability
    angles = (2 * uniform(batch, 3) - 1) * torch.tensor(config.rotation_deg) * (math.pi / 180)
    low, high = (math.log(value) for value in config.scale)
    zoom = torch.exp(low + (high - low) * uniform(batch, 1))
    zooms = zoom * (1 + config.anisotropic_scale * (2 * uniform(batch, 3) - 1))
    zooms = torch.where(_named(config.scale_axes), zooms, 1.0)
    shifts = (2 * uniform(batch, 3) - 1) * torch.tensor(config.shift)
    points = [max(2, -(-length // config.elastic_grid) + 1) for length in size]
    control = config.elastic_voxels * torch.randn(batch, 3, *points, generator=generator)
    control = torch.where(_named(config.elastic_axes)[:, None, None, None], control, 0.0)
    mirrored = (uniform(batch, 3) < 0.5) & _named(config.mirror_axes)
    return Deformations(active=active, angles=angles, zooms=zooms, shifts=shifts, control=control, mirrored=mirrored)


def _named(axes: tuple[int, ...]) -> Tensor:
    """Returns which of the three axes are named, bool (3,)."""
    return torch.tensor([axis in axes for axis in range(3)])


def rotation_matrices(angles: Tensor) -> Tensor:
    """Returns rotations about X, then Y, then Z, of shape (B, 3, 3), for angles (B, 3) in radians."""
    cosine, sine = torch.cos(angles), torch.sin(angles)
    matrix = torch.eye(3).expand(len(angles), 3, 3)
    for axis in range(3):
        first, second = [other for other in range(3) if other != axis]
        sign = -1.0 if axis == 1 else 1.0
        turn = torch.eye(3).repeat(len(angles), 1, 1)
        turn[:, first, first] = turn[:, second, second] = cosine[:, axis]
        turn[:, first, second] = -sign * sine[:, axis]
        turn[:, second, first] = sign * sine[:, axis]
        matrix = turn @ matrix
    return matrix


def sampling_grid(draws: Deformations, chosen: Tensor, size: torch.Size, device: torch.device) -> Tensor:
    """Returns where each output voxel is sampled, in grid_sample's coordinates, of shape (b, X, Y, Z, 3)."""
    # An axis of one voxel has no extent; any scale keeps it on that voxel.
    half = torch.tensor([max((length - 1) / 2, 0.5) for length in size])
    # Output voxel -> input voxel about the centre: rotate back and shrink by the zoom.
    matrix = rotation_matrices(draws.angles[chosen]).transpose(1, 2) / draws.zooms[chosen][:, None, :]
    offset = -draws.shifts[chosen]
    # grid_sample counts from -1 to 1 with the last axis first.
    unit = (matrix * half[None, None, :] / half[None, :, None]).flip(1, 2)
    theta = torch.cat((unit, (offset / half).flip(1)[..., None]), dim=2).to(device)
    with warnings.catch_warnings():
        # torch warns that a unit axis is placed at 0 and no longer at -1: 0 is its one voxel, as meant here.
        warnings.filterwarnings("ignore", message=".*unit-size grids")
        grid = functional.affine_grid(theta, [len(chosen), 1, *size], align_corners=True)
    if draws.control.abs().max() > 0:
        control = (draws.control[chosen] / half[None, :, None, None, None]).flip(1).to(device)
        smooth = functional.interpolate(control, size=size, mode="trilinear", align_corners=True)
        grid = grid + smooth.permute(0, 2, 3, 4, 1)
    return grid
