"""Noise, blur, brightness, contrast, gamma and low resolution."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from seg.config import IntensityConfig

BLUR_RADIUS_SIGMAS = 4


def change_intensity(image: Tensor, config: IntensityConfig, generator: torch.Generator) -> Tensor:
    """Applies each change to the patches that draw it, in a fixed order.

    Args:
        image: Patches of shape (B, C, X, Y, Z), normalised.
        config: Probabilities and ranges.
        generator: CPU generator.

    Returns:
        A new image.
    """
    batch = image.shape[0]
    chances = torch.rand(batch, 6, generator=generator)
    amounts = torch.rand(batch, 6, generator=generator)
    noise_seed = int(torch.randint(2**62, (1,), generator=generator))
    image = image.clone()
    for index in range(batch):
        chance, amount = chances[index].tolist(), amounts[index].tolist()
        patch = image[index]
        if chance[0] < config.noise_probability:
            noise = torch.randn(patch.shape, generator=torch.Generator().manual_seed(noise_seed + index))
            patch = patch + noise.to(patch.device) * (amount[0] * config.noise_std)
        if chance[1] < config.blur_probability:
            patch = blur(patch, _between(config.blur_sigma, amount[1]))
        if chance[2] < config.brightness_probability:
            patch = patch * _between(config.brightness, amount[2])
        if chance[3] < config.contrast_probability:
            patch = contrast(patch, _between(config.contrast, amount[3]))
        if chance[4] < config.low_resolution_probability:
            patch = low_resolution(patch, _between(config.low_resolution, amount[4]))
        if chance[5] < config.gamma_probability:
            patch = gamma(patch, _between(config.gamma, amount[5]))
        image[index] = patch
    return image


def _between(bounds: tuple[float, float], amount: float) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * amount


def blur(patch: Tensor, sigma: float) -> Tensor:
    """Blurs a patch (C, X, Y, Z) with a Gaussian, sigma in voxels, edges continued; kernels end at 4 sigma."""
    radius = max(1, int(BLUR_RADIUS_SIGMAS * sigma + 0.5))
    offsets = torch.arange(-radius, radius + 1, dtype=patch.dtype, device=patch.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    blurred = patch[:, None]
    for axis in range(3):
        shape, pad = [1, 1, 1, 1, 1], [0] * 6
        shape[2 + axis] = len(kernel)
        pad[2 * (2 - axis)] = pad[2 * (2 - axis) + 1] = radius
        blurred = functional.conv3d(functional.pad(blurred, pad, mode="replicate"), kernel.view(shape))
    return blurred[:, 0]


def contrast(patch: Tensor, factor: float) -> Tensor:
    """Scales a patch (C, X, Y, Z) about each channel's mean and keeps each channel's range."""
    mean = patch.mean((1, 2, 3), keepdim=True)
    low, high = patch.amin((1, 2, 3), keepdim=True), patch.amax((1, 2, 3), keepdim=True)
    return torch.minimum(torch.maximum((patch - mean) * factor + mean, low), high)


def low_resolution(patch: Tensor, zoom: float) -> Tensor:
    """Samples a patch (C, X, Y, Z) at a coarser grid and back, linearly both ways.

    Nearest neighbours on the way down would shift the image against its label by up to half a voxel, to one side.
    """
    size = [max(1, round(length * zoom)) for length in patch.shape[1:]]
    coarse = functional.interpolate(patch[None], size=size, mode="trilinear", align_corners=False)
    return functional.interpolate(coarse, size=patch.shape[1:], mode="trilinear", align_corners=False)[0]


def gamma(patch: Tensor, exponent: float) -> Tensor:
    """Applies a power to each channel of a patch (C, X, Y, Z) within its range, which stays."""
    low, high = patch.amin((1, 2, 3), keepdim=True), patch.amax((1, 2, 3), keepdim=True)
    span = (high - low).clamp_min(1e-8)
    return ((patch - low) / span).pow(exponent) * span + low
