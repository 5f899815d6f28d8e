"""That a bottleneck keeps position: its output at a voxel depends on that voxel of its input alone."""

from __future__ import annotations

import copy

import torch
from torch import nn

from seg.networks import InstanceNorm3d

CROP = (3, 3, 3)
NOISE = 10.0
"""Standard deviation of the noise, beyond the biases; it comes with either sign, lest every ReLU be shut."""


def keeps_position(block: nn.Module, channels: int) -> bool | None:
    """Checks that the derivatives of one voxel's output by every other voxel's input are exactly zero.

    The whole Jacobian of the middle voxel of small crops of noise is computed in double precision with the block's own
    weights.

    Args:
        block: From wide features (1, C, X, Y, Z) to what is handed over, on the same grid.
        channels: Wide channels C.

    Returns:
        Whether it is so, and the voxel's own derivatives are not all zero; None where an instance norm stands in the
        block, behind which every voxel depends on all.
    """
    if any(isinstance(module, InstanceNorm3d) for module in block.modules()):
        return None
    exact = copy.deepcopy(block).cpu().double().requires_grad_(False)
    x = NOISE * torch.randn((channels, *CROP), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    i, j, k = (n // 2 for n in CROP)
    derive = torch.func.jacrev(lambda crop: exact(crop[None])[0, :, i, j, k])
    jacobian = torch.stack([derive(x), derive(-x)])
    own = jacobian[..., i, j, k].clone()
    jacobian[..., i, j, k] = 0
    return bool((jacobian == 0).all() and own.any())
