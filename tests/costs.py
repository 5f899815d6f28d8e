"""Cost of a network as it is counted, checked against the built network."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from seg.config import NetworkConfig
from seg.networks import UNet, complexity
from seg.networks.complexity import Complexity
from seg.networks.conv import Triple


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
    return cost
