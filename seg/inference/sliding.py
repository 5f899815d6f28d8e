"""Logits of a whole volume that is small enough to hold them, as in validation during training."""

from __future__ import annotations

import torch
from torch import Tensor

from seg.config import InferenceConfig
from seg.inference.model import Network
from seg.inference.windows import Windows, blend_weights


def predict_logits(
    network: Network,
    image: Tensor,
    patch_size: tuple[int, int, int],
    config: InferenceConfig,
) -> Tensor:
    """Predicts a whole volume from overlapping windows.

    Args:
        network: From windows (B, C, X, Y, Z) to logits (B, K, X, Y, Z).
        image: Prepared volume of shape (1, C, X, Y, Z); an axis shorter than the window is padded with 0.
        patch_size: Size (X, Y, Z) in voxels of the training patches, and of windows where the config names none.
        config: Overlap, blending, windows per forward pass.

    Returns:
        Logits f32 of shape (1, K, X, Y, Z), averaged where windows overlap.
    """
    windows = Windows.over(image.shape[2:], config.window or patch_size, config.overlap)
    weights = blend_weights(windows.size, config.blend).to(image.device)
    total = image.new_zeros(windows.shape, dtype=torch.float32)
    sums: Tensor | None = None
    starts = [start for _, start in windows.in_order((0, 1, 2))]
    with torch.inference_mode():
        for first in range(0, len(starts), config.batch):
            chosen = starts[first : first + config.batch]
            crops = torch.cat([windows.crop(image, start) for start in chosen])
            for start, logits in zip(chosen, network(crops).float(), strict=True):
                place, own = windows.inside(start), windows.own(start)
                if sums is None:
                    sums = logits.new_zeros((len(logits), *windows.shape))
                sums[(slice(None), *place)].addcmul_(logits[(slice(None), *own)], weights[own])
                total[place] += weights[own]
    assert sums is not None  # a volume has a window
    return (sums / total)[None]
