"""Memory and arithmetic of a training step, estimated from the configuration alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Literal

from seg.config import BottleneckConfig, NetworkConfig
from seg.networks.bottleneck import width
from seg.networks.complexity import complexity
from seg.planning.topology import Size

GIB = 2**30
BASE_GIB = 1.0  # interpreter, libraries, loaders and a small cache
BYTES = {"fp32": 4, "bf16": 2}
TRANSIENT = 1.5  # gradients and work space beside the activations kept, fitted to measured peaks
LOSS_BYTES = 40  # per voxel and class: logits, probabilities, one-hot label and their gradients in fp32
PARAMETER_BYTES = 24  # weight, gradient, two moments, moving average, and a copy while a checkpoint is written


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a training step takes.

    Attributes:
        parameters: Learned numbers of the network.
        gmac: Multiply-accumulates of one forward pass over the whole batch, in 10^9; a step takes about three times it.
        activations: Elements kept for the backward pass, over the whole batch.
        loss_elements: Voxels times classes, over the whole batch.
    """

    parameters: int
    gmac: float
    activations: int
    loss_elements: int

    def memory_gib(self, precision: Literal["fp32", "bf16"]) -> float:
        """Returns the estimated peak memory of the training process, in GiB."""
        kept = self.activations * BYTES[precision] * TRANSIENT + self.loss_elements * LOSS_BYTES
        return BASE_GIB + (kept + self.parameters * PARAMETER_BYTES) / GIB


def step_cost(network: NetworkConfig, patch: Size, batch: int, in_channels: int, num_classes: int) -> Cost:
    """Estimates a training step of a U-Net with two convolutions per plain stage.

    What is kept of residual projections, which a plan does not use, and of the heads of deep supervision on lower
    stages, whose grids are a small part of the work, is left out.

    Args:
        network: Architecture, merged by concatenation.
        patch: Patch size in voxels, divided by the total stride.
        batch: Patches per step.
        in_channels: Channels of the image.
        num_classes: Classes, background included.

    Returns:
        Parameters and multiply-accumulates of the network, and the elements kept for the backward pass.

    Raises:
        ValueError: The total stride does not divide the patch.
    """
    cost = complexity(in_channels, num_classes, network, shape=patch)
    return Cost(
        parameters=cost.parameters,
        gmac=batch * cost.macs / 1e9,
        activations=batch * sum(_kept(network, patch, num_classes)),
        loss_elements=batch * prod(patch) * num_classes,
    )


def _kept(network: NetworkConfig, patch: Size, num_classes: int) -> Iterator[int]:
    """Yields the elements that each part keeps; a convolution with a norm behind it keeps what is before and after."""
    voxels = prod(patch)
    yield voxels * num_classes
    for level, channels in enumerate(network.channels):
        voxels //= prod(network.strides[level])
        yield voxels * channels * 4  # encoder
        if level == len(network.channels) - 1:
            return
        if network.skip_bottleneck is not None:
            yield voxels * _width(network.skip_bottleneck, channels, level)
        yield voxels * channels  # upsampled
        if network.decoder_bottleneck is None:
            yield voxels * channels * 4
        else:
            yield voxels * (_width(network.decoder_bottleneck, channels, level) * 3 + channels * 2)


def _width(bottleneck: BottleneckConfig, channels: int, level: int) -> int:
    ratio = bottleneck.ratio[level] if isinstance(bottleneck.ratio, tuple) else bottleneck.ratio
    return width(channels, ratio)
