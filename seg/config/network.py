"""Configuration of the network: stages, bottlenecks and the fixed options of a comparison."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt
from pydantic.dataclasses import dataclass

from seg.config.fields import STRICT, AtLeastOne, setting

Ratio = Annotated[StrictFloat, Field(gt=0, le=4)]
PerAxis = tuple[AtLeastOne, AtLeastOne, AtLeastOne]
Rank = Annotated[StrictInt, Field(ge=0)]
Ranks = tuple[tuple[Rank, Rank], ...]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BottleneckConfig:
    """A 1x1 reduce or expand block."""

    ratio: Ratio | tuple[Ratio, ...] = setting(
        0.25,
        "Width of the bottleneck over the width of its stage: one number for all stages, or one per stage from "
        "full resolution downwards.",
    )
    activation: Literal["none", "relu", "leaky_relu", "prelu", "sigmoid"] = setting(
        "none", "Pointwise function after the 1x1."
    )
    norm: StrictBool = setting(False, "Whether an instance norm stands between the 1x1 and its activation.")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class WidthsConfig:
    """Widths of single feature maps, and linear 1x1 convolutions around single full kernels."""

    encoder: tuple[AtLeastOne, ...] | None = setting(
        None,
        "Channels between the two convolutions of each stage, from full resolution down to the bottom; null is as "
        "behind them, network.channels.",
    )
    up: tuple[AtLeastOne, ...] | None = setting(
        None,
        "Channels of the upsampled features, per stage from full resolution down to the one above the bottom; null is "
        "network.channels.",
    )
    decoder: tuple[tuple[AtLeastOne, ...], ...] | None = setting(
        None,
        "Channels behind each convolution of the decoder, per stage from full resolution down to the one above the "
        "bottom: two numbers each, three with decoder_bottleneck; null is network.channels, and what "
        "decoder_bottleneck.ratio says.",
    )
    encoder_ranks: tuple[Ranks, ...] | None = setting(
        None,
        "Channels of a linear 1x1 before and of one behind each full kernel, two pairs per stage from full resolution "
        "down to the bottom: the kernel works on the first number of channels and writes the second. 0 leaves that 1x1 "
        "out; null has none.",
    )
    decoder_ranks: tuple[Ranks, ...] | None = setting(
        None,
        "The same for the full kernels of the decoder, per stage from full resolution down to the one above the "
        "bottom: two pairs each, one with decoder_bottleneck.",
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NetworkConfig:
    """A 3-D U-Net."""

    channels: tuple[AtLeastOne, ...] = setting(
        (16, 32, 64, 128), "Channels per stage, from full resolution down to the bottom."
    )
    strides: tuple[PerAxis, ...] = setting(
        ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2)),
        "Voxel stride per stage and axis (X, Y, Z); the first stage has stride 1.",
    )
    kernel_sizes: tuple[PerAxis, ...] = setting(
        ((3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)), "Convolution kernel per stage and axis (X, Y, Z), in voxels, odd."
    )
    skip_bottleneck: BottleneckConfig | None = setting(None, "1x1 block in every skip; null keeps skips at full width.")
    decoder_bottleneck: BottleneckConfig | None = setting(
        None, "1x1-3x3-1x1 block in every decoder stage; null keeps two 3x3 convolutions."
    )
    upsample: Literal["transposed", "linear"] = setting(
        "transposed", "Transposed convolution, or a 1x1 reduction followed by trilinear interpolation."
    )
    merge: Literal["concat", "add"] = setting("concat", "How skip and upsampled features meet in the decoder.")
    residual: StrictBool = setting(False, "Whether encoder stages add their input to their output.")
    deep_supervision: StrictBool = setting(
        False, "Whether the loss also sees the lower decoder stages during training."
    )
    widths: WidthsConfig | None = setting(
        None, "Widths apart from those of the stages, as `seg compress` finds them; null has none."
    )
