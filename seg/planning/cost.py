"""Memory and arithmetic of a training step, estimated from the configuration alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, prod
from typing import Literal

from seg.config import BottleneckConfig, NetworkConfig
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
        parameters: Weights of the network.
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


@dataclass(frozen=True)
class _Conv:
    """One convolution: grid it writes, channels, kernel; and how many tensors of its output are kept."""

    voxels: int
    inputs: int
    outputs: int
    kernel: int
    kept: int


def step_cost(network: NetworkConfig, patch: Size, batch: int, in_channels: int, num_classes: int) -> Cost:
    """Estimates a training step of a U-Net with two convolutions per plain stage.

    Biases and norms are left out, and so are residual projections, which a plan does not use, and
    the heads of deep supervision on lower stages, whose grids are a small part of the work.

    Args:
        network: Architecture, merged by concatenation.
        patch: Patch size in voxels.
        batch: Patches per step.
        in_channels: Channels of the image.
        num_classes: Classes, background included.

    Returns:
        Parameters and multiply-accumulates of all convolutions, and the elements kept for the backward pass.
    """
    convs = [*_encoder(network, patch, in_channels), *_decoder(network, patch, num_classes)]
    return Cost(
        parameters=sum(conv.inputs * conv.outputs * conv.kernel for conv in convs),
        gmac=batch * sum(conv.voxels * conv.inputs * conv.outputs * conv.kernel for conv in convs) / 1e9,
        activations=batch * sum(conv.voxels * conv.outputs * conv.kept for conv in convs),
        loss_elements=batch * prod(patch) * num_classes,
    )


def _encoder(network: NetworkConfig, patch: Size, in_channels: int) -> Iterator[_Conv]:
    inputs = in_channels
    for level, channels in enumerate(network.channels):
        voxels, kernel = prod(grid(network, patch, level)), prod(network.kernel_sizes[level])
        yield _Conv(voxels, inputs, channels, kernel, kept=2)  # kept before and after its norm
        yield _Conv(voxels, channels, channels, kernel, kept=2)
        inputs = channels


def _decoder(network: NetworkConfig, patch: Size, num_classes: int) -> Iterator[_Conv]:
    stages = len(network.channels) - 1
    for level in range(stages):
        channels, lower = network.channels[level], network.channels[level + 1]
        voxels, kernel = prod(grid(network, patch, level)), prod(network.kernel_sizes[level])
        skip = _width(network.skip_bottleneck, channels, level)
        if network.skip_bottleneck is not None:
            yield _Conv(voxels, channels, skip, 1, kept=1)
        # Transposed: kernel equals stride, so each voxel written is touched by one tap; the weights are those of all
        # taps. Linear: a 1x1 on the lower grid. Either way the result is kept on the upper grid.
        taps = prod(network.strides[level + 1])
        kernel_taps = taps if network.upsample == "transposed" else 1
        yield _Conv(voxels // taps, lower, channels, kernel_taps, kept=taps)
        if network.decoder_bottleneck is None:
            yield _Conv(voxels, channels + skip, channels, kernel, kept=2)
            yield _Conv(voxels, channels, channels, kernel, kept=2)
        else:
            inner = _width(network.decoder_bottleneck, channels, level)
            yield _Conv(voxels, channels + skip, inner, 1, kept=1)
            yield _Conv(voxels, inner, inner, kernel, kept=2)
            yield _Conv(voxels, inner, channels, 1, kept=2)
    yield _Conv(prod(patch), network.channels[0], num_classes, 1, kept=1)


def grid(network: NetworkConfig, patch: Size, level: int) -> Size:
    """Returns the voxels per axis of a stage, 0 being full resolution."""
    x, y, z = patch
    for stride in network.strides[1 : level + 1]:
        x, y, z = ceil(x / stride[0]), ceil(y / stride[1]), ceil(z / stride[2])
    return x, y, z


def _width(bottleneck: BottleneckConfig | None, channels: int, level: int) -> int:
    if bottleneck is None:
        return channels
    ratio = bottleneck.ratio[level] if isinstance(bottleneck.ratio, tuple) else bottleneck.ratio
    return max(1, round(ratio * channels))
