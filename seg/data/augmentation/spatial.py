"""Rotation, zoom, shift, elastic deformation and mirroring."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from seg.config import SpatialConfig

Volumes = Tensor | Sequence[Tensor]


@dataclass(frozen=True, kw_only=True)
class Deformations:
    """The rotation, zoom, shift, displacement and mirroring that are drawn for each patch of a batch.

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


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Where patches lie in the sources that they are deformed from: size and first voxels, along X, Y and Z."""

    size: tuple[int, int, int]
    corners: Sequence[Sequence[int]]


def deform(
    image: Volumes,
    label: Volumes,
    config: SpatialConfig,
    generator: torch.Generator,
    *,
    frame: Frame | None = None,
    padding_label: int = 0,
) -> tuple[Tensor, Tensor]:
    """Deforms images and labels alike; mirroring is independent of the rest.

    Images are interpolated trilinearly and continue with the border values of their source; labels take the nearest
    voxel, and the padding's label outside. Nearest is a third of the work of interpolating one channel per class, and
    the blur that the latter avoids is below a voxel.

    Args:
        image: Sources of shape (C, x, y, z), each of its own size, or one tensor of all.
        label: Class indices of shape (1, x, y, z) on the same grids.
        config: Probabilities and ranges. Rotations act in voxel space, so between axes of different spacing they
            shear; keep those angles small.
        generator: CPU generator.
        frame: Where the patches lie in their sources; None takes sources as patches.
        padding_label: Label of what lies outside a source.

    Returns:
        New images (B, C, X, Y, Z) and labels i64 (B, 1, X, Y, Z).
    """
    if frame is None:
        x, y, z = image[0].shape[1:]
        frame = Frame(size=(x, y, z), corners=[(0, 0, 0)] * len(image))
    draws = draw_deformations(len(image), torch.Size(frame.size), config, generator)
    chosen = draws.active.nonzero()[:, 0]
    points = iter(sampling_grid(draws, chosen, torch.Size(frame.size), image[0].device) if len(chosen) else ())
    images, labels = [], []
    for index, (source, classes) in enumerate(zip(image, label, strict=True)):
        corner = frame.corners[index]
        if draws.active[index]:
            places = _in_source(next(points), frame.size, corner, source.shape[1:])
            patch = _sample(source, places, "bilinear", "border")
            inner = _sample(classes.to(source.dtype) - padding_label, places, "nearest", "zeros") + padding_label
        else:
            inside = (..., *(slice(start, start + length) for start, length in zip(corner, frame.size, strict=True)))
            patch, inner = source[inside], classes[inside]
        flipped = [1 + int(axis) for axis in draws.mirrored[index].nonzero()[:, 0]]
        images.append(patch.flip(flipped))
        labels.append(inner.long().flip(flipped))
    return torch.stack(images), torch.stack(labels)


def _in_source(points: Tensor, size: Sequence[int], corner: Sequence[int], source: Sequence[int]) -> Tensor:
    """Turns coordinates in a patch into those in its source, both as grid_sample counts them."""
    if tuple(source) == tuple(size):
        return points
    half, whole = _half(size), _half(source)
    centre = torch.tensor([start + (length - 1) / 2 for start, length in zip(corner, size, strict=True)])
    offset = centre - torch.tensor([(length - 1) / 2 for length in source])
    scale, shift = ((value / whole).flip(0).to(points.device) for value in (half, offset))
    return points * scale + shift


def _half(size: Sequence[int]) -> Tensor:
    """Returns half the extent of a grid in voxels; 0.5 for an axis of one voxel, which any scale keeps in place."""
    return torch.tensor([max((length - 1) / 2, 0.5) for length in size])


def _sample(volume: Tensor, points: Tensor, mode: str, padding: str) -> Tensor:
    """Samples a volume (C, x, y, z) at points (X, Y, Z, 3)."""
    # Slices stand where a batch does: that is what torch shares out among threads.
    slices = volume.expand(len(points), *volume.shape)
    found = functional.grid_sample(slices, points[:, None], mode, padding, align_corners=True)
    return found[:, :, 0].transpose(0, 1)


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
    half = _half(size)
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
