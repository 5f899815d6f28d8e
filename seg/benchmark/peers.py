"""Networks of MONAI with the stages of a configuration, to compare the project's own with."""

from __future__ import annotations

from math import prod
from typing import Literal

import torch
from torch import Tensor, nn

from seg.config import ExperimentConfig, NetworkConfig

Peer = Literal["dynunet", "basicunet"]
PEERS: tuple[Peer, ...] = ("dynunet", "basicunet")
PEERS_HOME = "monai.networks.nets"
BASIC_LEVELS = 5
MOST_CHANNELS = 320
"""To which nnU-Net limits the channels of a 3-D stage."""
NEGATIVE_SLOPE = 0.01


def peer_problem(peer: Peer, config: ExperimentConfig) -> str | None:
    """Returns why a peer cannot be built for an experiment; None where it can."""
    stages, size = len(config.network.channels), config.patches.size
    if peer == "dynunet" and stages < 3:
        return f"dynunet: the network must have at least 3 stages, got {stages}; it is left out."
    edge = 2 ** (BASIC_LEVELS - 1)
    if peer == "basicunet" and (min(size) < edge or prod(n // edge for n in size) < 2):
        return (
            f"basicunet: the patch must have {edge} voxels per axis and more along one to be halved "
            f"{BASIC_LEVELS - 1} times, got {size}; it is left out."
        )
    return None


def build_peer(peer: Peer, network: NetworkConfig, in_channels: int, out_channels: int) -> nn.Module:
    """Builds a network of MONAI with the stages of a configuration and weights as MONAI draws them.

    Args:
        peer: ``dynunet`` is nnU-Net's network: two 3x3 a stage with instance norm and leaky ReLU, transposed
            convolutions and whole skips, with the channels, strides and kernels of ``network``. ``basicunet`` has five
            levels, each half as fine as the one before, with the channels of ``network``, continued by doubling up to
            320.
        network: The stages.
        in_channels: Channels of the image.
        out_channels: Classes, background included.

    Returns:
        From images (B, C, X, Y, Z) to logits (B, K, X, Y, Z), without deep supervision.

    References:
        Isensee, Jaeger, Kohl, Petersen, Maier-Hein. nnU-Net. Nature Methods 2021. doi:10.1038/s41592-020-01008-z.
        Falk et al. U-Net: deep learning for cell counting, detection, and morphometry. Nature Methods 2019.
        doi:10.1038/s41592-018-0261-2.
    """
    # Takes seconds to import, and only comparisons with peers need it.
    from monai.networks.nets import BasicUNet, DynUNet

    if peer == "basicunet":
        basic: nn.Module = BasicUNet(3, in_channels, out_channels, features=basic_channels(network.channels))
        return basic
    built: nn.Module = DynUNet(
        spatial_dims=3,
        in_channels=in_channels,
        out_channels=out_channels,
        kernel_size=network.kernel_sizes,
        strides=network.strides,
        upsample_kernel_size=network.strides[1:],
        filters=network.channels,
        norm_name=("INSTANCE", {"affine": True}),
        act_name=("leakyrelu", {"inplace": True, "negative_slope": NEGATIVE_SLOPE}),
    )
    return built


def basic_channels(channels: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the channels of BasicUNet: five levels that continue the given ones, and the last stage on the way up."""
    levels = list(channels[:BASIC_LEVELS])
    while len(levels) < BASIC_LEVELS:
        levels.append(max(levels[-1], min(2 * levels[-1], MOST_CHANNELS)))
    return (*levels, levels[0])


def count_macs(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Counts multiply-accumulates of convolutions for an image (B, C, X, Y, Z), as torch counts them (two FLOP each).

    The network may lie on the device ``meta``, where nothing is computed.
    """
    from torch.utils.flop_counter import FlopCounterMode

    image: Tensor = torch.zeros(shape, device=next(network.parameters()).device)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network.eval()(image)
    return int(counter.get_total_flops()) // 2
