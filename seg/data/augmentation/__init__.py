"""Batched augmentation: every random number is drawn per patch on the CPU, every change is applied on the device.

The number and order of draws does not depend on their outcome or on a probability or range, so two experiments that
differ in one of these see the same stream in all others. Only the batch, the patch size and ``elastic_grid`` set it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seg.config import AugmentationConfig
from seg.data.augmentation.intensity import change_intensity
from seg.data.augmentation.reach import margins
from seg.data.augmentation.spatial import Frame, Volumes, deform

__all__ = ["Frame", "augment", "margins"]


def augment(
    image: Volumes,
    label: Volumes,
    config: AugmentationConfig,
    *,
    generator: torch.Generator,
    frame: Frame | None = None,
    padding_label: int = 0,
) -> tuple[Tensor, Tensor]:
    """Deforms a batch and changes its intensities.

    Args:
        image: Patches f32 of shape (B, C, X, Y, Z), normalised, or the sources (C, x, y, z) that hold them.
        label: Class indices of shape (B, 1, X, Y, Z), or (1, x, y, z) of each source.
        config: Probabilities and ranges.
        generator: CPU generator of all draws.
        frame: Where patches lie in their sources; None takes these as patches.
        padding_label: Label of what lies outside a source.

    Returns:
        New patches f32 (B, C, X, Y, Z) and labels i64 (B, 1, X, Y, Z); the arguments are left alone.
    """
    patches, labels = deform(image, label, config.spatial, generator, frame=frame, padding_label=padding_label)
    return change_intensity(patches, config.intensity, generator), labels
