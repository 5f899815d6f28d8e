"""What a training step takes in work and memory, estimated before it is made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from seg.config import NetworkConfig, Precision
from seg.data.memory import GIB
from seg.networks.bottleneck import stage_ratios, width
from seg.networks.complexity import complexity
from seg.networks.layout import Ranks, layout

BASE_GIB = 1.0  # interpreter, libraries, loaders and a small cache
BYTES = {"fp32": 4, "bf16": 2}
TRANSIENT = 1.5  # gradients and work space beside the activations kept, fitted to measured peaks
LOSS_BYTES = 40  # per voxel and class: logits, probabilities, one-hot label and their gradients in fp32
PARAMETER_BYTES = 24  # weight, gradient, two moments, moving average, and a copy while a checkpoint is written


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a training step takes: its network's parameters, and sums over the whole batch.

    Attributes:
        gmac: Multiply-accumulates of one forward pass, in 10^9; a step takes about three times it.
        activations: Elements kept for the backward pass.
        loss_elements: Voxels times classes.
    """

    parameters: int
    gmac: float
    activations: int
    loss_elements: int

    def memory_gib(self, precision: Precision) -> float:
        """Returns the estimated peak memory of the training process, in GiB."""
        kept = self.activations * BYTES[precision] * TRANSIENT + self.loss_elements * LOSS_BYTES
        return BASE_GIB + (kept + self.parameters * PARAMETER_BYTES) / GIB


def step_cost(
    network: NetworkConfig, patch: tuple[int, int, int], batch: int, in_channels: int, num_classes: int
) -> Cost:
    """Estimates a training step of a U-Net with two convolutions per plain stage.

    What is kept of residual projections, which a plan does not use, and of the heads of deep supervision on lower
    stages, whose grids are a small part of the work, is left out.

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


def _kept(network: NetworkConfig, patch: tuple[int, int, int], num_classes: int) -> Iterator[int]:
    """Yields the elements that each part keeps; a convolution with a norm behind it keeps what is before and after."""
    voxels, lowest, widths = prod(patch), len(network.channels) - 1, layout(network)
    yield voxels * num_classes
    for level, channels in enumerate(network.channels):
        above = voxels
        voxels //= prod(network.strides[level])
        yield voxels * 2 * sum(widths.encoder[level])
        yield from _between(widths.encoder_ranks[level], voxels, above)
        if level == lowest:
            return
        if network.skip_bottleneck is not None:
            yield voxels * width(channels, stage_ratios(network.skip_bottleneck, lowest)[level])
        yield voxels * widths.up[level]
        inner = widths.decoder[level]
        yield voxels * (2 * sum(inner[-2:]) + sum(inner[:-2]))  # a bottleneck's reduction has no norm of its own
        yield from _between(widths.decoder_ranks[level], voxels, voxels)


def _between(ranks: tuple[Ranks, ...], voxels: int, above: int) -> Iterator[int]:
    """Yields what the linear 1x1 before and behind full kernels hand on; `above` are the voxels of the first input."""
    for number, (before, behind) in enumerate(ranks):
        yield before * (voxels if number else above)
        yield behind * voxels
