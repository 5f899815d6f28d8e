"""Networks of a configuration."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from seg.config import BottleneckConfig, NetworkConfig
from seg.networks import Bottleneck, Options, Plan, get_network


def network_arguments(config: NetworkConfig) -> dict[str, Any]:
    """Returns the keyword arguments that describe a configured network, to its constructor as to ``complexity``."""
    return {
        "plan": Plan(channels=config.channels, strides=config.strides, kernel_sizes=config.kernel_sizes),
        "skip_bottleneck": _bottleneck(config.skip_bottleneck),
        "decoder_bottleneck": _bottleneck(config.decoder_bottleneck),
        "options": Options(
            upsample=config.upsample,
            merge=config.merge,
            residual=config.residual,
            deep_supervision=config.deep_supervision,
        ),
    }


def _bottleneck(config: BottleneckConfig | None) -> Bottleneck | None:
    if config is None:
        return None
    return Bottleneck(ratio=config.ratio, activation=config.activation, norm=config.norm)


def network_from_config(config: NetworkConfig, in_channels: int, out_channels: int) -> nn.Module:
    """Builds the network of a configuration, with weights not yet drawn for an experiment.

    Constructors of layers draw weights of their own; torch's global stream is left where it was.
    """
    with torch.random.fork_rng(devices=[]):
        return get_network(config.name)(in_channels, out_channels, **network_arguments(config))
