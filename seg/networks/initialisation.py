"""Initial weights that two networks share wherever a parameter has the same name and shape."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from seg.networks.blocks import SLOPE


def initialise(network: nn.Module, seed: int) -> None:
    """Draws the weights of all convolutions in place; biases and norms keep their constants.

    Every weight has a random stream of its own, named after the seed and the parameter, so variants of a network
    start from equal weights in all parameters that they have in common.

    Args:
        network: Network to initialise.
        seed: Seed of the experiment, >= 0.

    References:
        He, Zhang, Ren, Sun. Delving deep into rectifiers. ICCV 2015. arXiv:1502.01852. Normal distribution, fan in,
        gain of a leaky ReLU of slope 0.01.
    """
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
            stream = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
            fresh = torch.empty(parameter.shape)
            nn.init.kaiming_normal_(fresh, a=SLOPE, generator=stream)
            with torch.no_grad():
                parameter.copy_(fresh)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
