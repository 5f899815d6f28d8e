"""Configuration of the network: stages, bottlenecks and the fixed options of a comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class BottleneckConfig:
    """A 1x1 reduce or expand block.

    Attributes:
        ratio: Width of the bottleneck over the width of its stage, in (0, 4]; one number for all stages or one per
            stage from full resolution downwards.
        activation: Pointwise function after the 1x1.
        norm: Whether an instance norm stands between the 1x1 and its activation.
    """

    ratio: float | tuple[float, ...] = 0.25
    activation: Literal["none", "relu", "leaky_relu", "prelu", "sigmoid"] = "none"
    norm: bool = False


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """A 3-D U-Net.

    Attributes:
        name: Name of the architecture in the registry.
        channels: Channels per stage, from full resolution down to the bottom.
        strides: Voxel stride per stage and axis (X, Y, Z); the first stage has stride 1.
        kernel_sizes: Convolution kernel per stage and axis (X, Y, Z), in voxels, odd.
        skip_bottleneck: 1x1 block in every skip; null keeps skips at full width.
        decoder_bottleneck: 1x1-3x3-1x1 block in every decoder stage; null keeps two 3x3 convolutions.
        upsample: Transposed convolution, or a 1x1 reduction followed by trilinear interpolation.
        merge: How skip and upsampled features meet in the decoder.
        residual: Whether encoder stages add their input to their output.
        deep_supervision: Whether the loss also sees the lower decoder stages during training.
    """

    name: Literal["unet"] = "unet"
    channels: tuple[int, ...] = (16, 32, 64, 128)
    strides: tuple[tuple[int, int, int], ...] = ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    kernel_sizes: tuple[tuple[int, int, int], ...] = ((3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))
    skip_bottleneck: BottleneckConfig | None = None
    decoder_bottleneck: BottleneckConfig | None = None
    upsample: Literal["transposed", "linear"] = "transposed"
    merge: Literal["concat", "add"] = "concat"
    residual: bool = False
    deep_supervision: bool = False
