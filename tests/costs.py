"""Cost of a network as it is counted, checked against the built network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

from seg.config import NetworkConfig
from seg.networks import UNet, complexity
from seg.networks.complexity import Complexity
from seg.networks.conv import Triple


def _vector_macs(vector: int) -> Callable[..., int]:
    """Returns a formula for torch's FLOP counter: multiply-accumulates with output channels in whole vectors."""

    def count(
        image: Sequence[int],
        weight: Sequence[int],
        _bias: object,
        _stride: object,
        _padding: object,
        _dilation: object,
        transposed: bool,
        *_: object,
        out_shape: Sequence[int],
        **__: object,
    ) -> int:
        read, written = weight[:2] if transposed else weight[1::-1]
        voxels = math.prod((image if transposed else out_shape)[2:])
        return read * vector * math.ceil(written / vector) * math.prod(weight[2:]) * voxels

    return count


def checked_complexity(in_channels: int, out_channels: int, config: NetworkConfig, *, shape: Triple) -> Complexity:
    """Counts like `complexity`, and checks the count against a network that is built with the same arguments.

    The network is built on torch's meta device, which has shapes and no numbers, and torch's FLOP counter watches it.
    """
    cost = complexity(in_channels, out_channels, config, shape=shape)
    with torch.device("meta"):
        network = UNet(in_channels, out_channels, config).eval()
        image = torch.empty(1, in_channels, *shape)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    assert cost.parameters == sum(parameter.numel() for parameter in network.parameters()), config
    assert cost.macs * 2 == counter.get_total_flops(), config
    for vector in (1, 4):
        formula = {torch.ops.aten.convolution: _vector_macs(vector)}
        with FlopCounterMode(display=False, custom_mapping=formula) as counter, torch.no_grad():
            network(image)
        assert cost.vector_macs(vector) == counter.get_total_flops(), config
    return cost
