"""That a bottleneck keeps position: its output at a voxel depends on that voxel of its input alone."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from seg.networks import InstanceNorm3d

CROP = (3, 3, 3)
NOISE = 10.0
"""Standard deviation of the noise, beyond the biases; it comes with either sign, lest every ReLU be shut."""


def keeps_position(block: nn.Module, channels: int) -> bool:
    """Checks that the derivatives of one voxel's output by every other voxel's input are exactly zero.

    The whole Jacobian of the middle voxel of small crops of noise is computed in double precision with the block's own
    weights. The mean and the variance that an instance norm takes over a window are held fixed at 0 and 1: through
    these two numbers a channel every voxel depends on all others a little, whatever the convolution before it.

    Args:
        block: From wide features (1, C, X, Y, Z) to what is handed over, on the same grid.
        channels: Wide channels C.

    Returns:
        Whether it is so, and the voxel's own derivatives are not all zero.
    """
    exact = _hold_statistics(copy.deepcopy(block)).cpu().double().requires_grad_(False)
    x = NOISE * torch.randn((channels, *CROP), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    i, j, k = (n // 2 for n in CROP)
    derive = torch.func.jacrev(lambda crop: exact(crop[None])[0, :, i, j, k])
    jacobian = torch.stack([derive(x), derive(-x)])
    own = jacobian[..., i, j, k].clone()
    jacobian[..., i, j, k] = 0
    return bool((jacobian == 0).all() and own.any())


class _HeldNorm(nn.Module):
    """An instance norm whose statistics are 0 and 1 whatever comes in."""

    def __init__(self, norm: InstanceNorm3d) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = (part[:, None, None, None] for part in (self.norm.weight, self.norm.bias))
        return functional.leaky_relu(x * weight + bias, self.norm.negative_slope)


def _hold_statistics(block: nn.Module) -> nn.Module:
    if isinstance(block, InstanceNorm3d):
        return _HeldNorm(block)
    for name, child in block.named_children():
        setattr(block, name, _hold_statistics(child))
    return block
