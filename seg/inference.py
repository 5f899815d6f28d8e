"""Whole-volume prediction with a sliding window."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import cast

import torch
from monai.inferers import sliding_window_inference
from torch import Tensor

from seg.config import InferenceConfig


def predict_logits(
    network: Callable[[Tensor], Tensor],
    image: Tensor,
    patch_size: tuple[int, int, int],
    config: InferenceConfig,
    *,
    mirror_axes: Sequence[int] = (),
) -> Tensor:
    """Predicts a whole volume from overlapping windows.

    Args:
        network: From windows (B, C, X, Y, Z) to logits (B, K, X, Y, Z).
        image: Prepared volume of shape (1, C, X, Y, Z); an axis shorter than the window is padded with 0.
        patch_size: Size (X, Y, Z) in voxels of the training patches, and of windows where the config names none.
        config: Overlap, blending, windows per forward pass.
        mirror_axes: Spatial axes (0 is X); logits are averaged over all mirrored copies along them, 2 per axis.

    Returns:
        Logits f32 of shape (1, K, X, Y, Z), averaged where windows overlap.
    """

    def forward(windows: Tensor) -> Tensor:
        return network(windows).float()

    def predict(volume: Tensor) -> Tensor:
        logits = sliding_window_inference(
            volume, config.window or patch_size, config.batch, forward, overlap=config.overlap, mode=config.blend
        )
        return cast(Tensor, logits)

    axes = [2 + axis for axis in mirror_axes]
    copies = [subset for count in range(len(axes) + 1) for subset in itertools.combinations(axes, count)]
    with torch.inference_mode():
        total = predict(image)
        for flipped in copies[1:]:
            total = total + predict(image.flip(flipped)).flip(flipped)
    return total / len(copies)
