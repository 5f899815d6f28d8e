"""The stages of a U-Net and the options that stay fixed within a comparison."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

Triple = tuple[int, int, int]
ONE: Triple = (1, 1, 1)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Stages of a U-Net, from full resolution down to the bottom.

    Attributes:
        channels: Channels per stage, >= 1, at least two stages.
        strides: Voxel stride per stage and axis (X, Y, Z), relative to the stage above; the first is (1, 1, 1).
        kernel_sizes: Convolution kernel per stage and axis (X, Y, Z), in voxels, odd.
    """

    channels: tuple[int, ...]
    strides: tuple[Triple, ...]
    kernel_sizes: tuple[Triple, ...]

    def __post_init__(self) -> None:
        stages = len(self.channels)
        if stages < 2 or min(self.channels) < 1:
            raise ValueError(f"channels must name two or more stages of >= 1 channels, got {self.channels}.")
        for name, value in (("strides", self.strides), ("kernel_sizes", self.kernel_sizes)):
            if len(value) != stages or any(len(v) != 3 or min(v) < 1 for v in value):
                raise ValueError(f"{name} must hold three integers >= 1 for each of the {stages} stages, got {value}.")
        if any(s != 1 for s in self.strides[0]):
            raise ValueError(f"strides of the first stage must be (1, 1, 1), got {tuple(self.strides[0])}.")
        if any(k % 2 == 0 for kernel in self.kernel_sizes for k in kernel):
            raise ValueError(f"kernel_sizes must be odd, got {self.kernel_sizes}.")

    @property
    def total_stride(self) -> Triple:
        """Voxels of the input per voxel of the bottom, per axis."""
        x, y, z = (prod(axis) for axis in zip(*self.strides, strict=True))
        return x, y, z


@dataclass(frozen=True, kw_only=True)
class Options:
    """What stays fixed within a comparison of bottlenecks.

    Attributes:
        upsample: `transposed` convolution with kernel = stride, or `linear`: a 1x1 reduction to the width of the
            upper stage followed by trilinear interpolation.
        merge: `concat` the upsampled features and the skip, or `add` them; a skip narrowed by its bottleneck is
            projected back to the width of its stage before it is added, so that its ratio narrows the skip alone.
        residual: Whether encoder stages and the bottom add their (projected) input before their last activation.
        deep_supervision: Whether every decoder stage has a head whose logits are returned in training.
    """

    upsample: Literal["transposed", "linear"] = "transposed"
    merge: Literal["concat", "add"] = "concat"
    residual: bool = False
    deep_supervision: bool = False

    def __post_init__(self) -> None:
        for name, value, known in (
            ("upsample", self.upsample, ("transposed", "linear")),
            ("merge", self.merge, ("concat", "add")),
        ):
            if value not in known:
                raise ValueError(f"Unknown {name} {value!r}. Available: {', '.join(known)}.")
