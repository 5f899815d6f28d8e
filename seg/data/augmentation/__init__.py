"""Batched augmentation: every random number is drawn per patch on the CPU, every change is applied on the device.

The number and order of draws does not depend on their outcome or on a probability or range, so two experiments that
differ in one of these see the same stream in all others. Only the batch, the patch size and ``elastic_grid`` set it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seg.config import AugmentationConfig
from seg.data.augmentation.intensity import change_intensity
from seg.data.augmentation.spatial import deform

__all__ = ["augment"]


def augment(
    image: Tensor, label: Tensor, config: AugmentationConfig, *, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Deforms a batch and changes its intensities.

    Args:
        image: Patches f32 of shape (B, C, X, Y, Z), normalised.
        label: Class indices i64 of shape (B, 1, X, Y, Z).
        config: Probabilities and ranges.
        generator: CPU generator of all draws.

    Returns:
        New image and label of the same shapes and types; the arguments are left alone.
    """
    image, label = deform(image, label, config.spatial, generator)
    return change_intensity(image, config.intensity, generator), label
