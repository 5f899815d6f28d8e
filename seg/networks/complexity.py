"""Parameters and multiply-accumulates of a U-Net, counted from its arguments."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TypeVar

from torch import Tensor

from seg.config import BottleneckConfig, NetworkConfig
from seg.networks.blocks import total_stride
from seg.networks.bottleneck import projects_back, stage_ratios, width
from seg.networks.conv import Triple
from seg.networks.layout import PLAIN, Layout, Ranks, layout

Count = TypeVar("Count", int, float, Tensor)


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """Sizes of one convolution, from which its cost follows.

    Attributes:
        in_channels: Channels that it reads.
        out_channels: Channels that it writes.
        taps: Voxels of its kernel.
        voxels: Voxels at which it works for one image: those of its output, of a transposed convolution those of its
            input, 0 for a head that evaluation leaves out.
    """

    in_channels: int
    out_channels: int
    taps: int
    voxels: int

    @property
    def weights(self) -> int:
        """Number of weights in the kernel, without a bias."""
        return self.in_channels * self.out_channels * self.taps

    def macs(self, vector: int = 1) -> int:
        """Counts multiply-accumulates for one image, with the output channels rounded up to a multiple of `vector`."""
        return self.in_channels * padded(self.out_channels, vector) * self.taps * self.voxels


def padded(channels: Count, vector: int) -> Count:
    """Rounds a number of channels up to a multiple of `vector`; a tensor holds several numbers of channels."""
    return -(-channels // vector) * vector


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """Cost of one part of the network.

    Attributes:
        name: `encoder 0` (full resolution) to `bottom`, `skip 0`, `upsample 0`, `decoder 0` and `head 0` and on,
            numbered by the level of their output.
        parameters: Learned numbers.
        convolutions: Its convolutions.
    """

    name: str
    parameters: int = 0
    convolutions: tuple[Convolution, ...] = ()

    @property
    def macs(self) -> int:
        """Multiply-accumulates of this part of the network for one image in evaluation mode."""
        return sum(one.macs() for one in self.convolutions)

    def __add__(self, other: StageCost) -> StageCost:
        return StageCost(
            name=self.name,
            parameters=self.parameters + other.parameters,
            convolutions=self.convolutions + other.convolutions,
        )


@dataclass(frozen=True, kw_only=True)
class Complexity:
    """Cost of a network, part by part in the order of computation.

    Attributes:
        stages: Cost of every part.
    """

    stages: tuple[StageCost, ...]

    @property
    def parameters(self) -> int:
        """Learned numbers of the whole network."""
        return sum(stage.parameters for stage in self.stages)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image in evaluation mode."""
        return self.vector_macs(1)

    def vector_macs(self, vector: int) -> int:
        """Counts multiply-accumulates of one image, with output channels rounded up to multiples of `vector`.

        Args:
            vector: Output channels that an engine computes at once, >= 1.
        """
        return sum(one.macs(vector) for stage in self.stages for one in stage.convolutions)


def complexity(in_channels: int, out_channels: int, config: NetworkConfig, *, shape: Triple) -> Complexity:
    """Counts the parameters of the `UNet` that these arguments build, and its multiply-accumulates for one image.

    Multiply-accumulates are those of the convolutions, as torch's FLOP counter has them (two FLOP each); norms,
    activations, interpolation and additions move bytes and multiply little. The heads of deep supervision below full
    resolution have parameters but no work in evaluation mode.

    Args:
        in_channels: Channels of the image.
        out_channels: Classes, background included.
        config: The architecture.
        shape: Voxels of the image per axis, divisible by the network's total stride.

    Raises:
        ValueError: If the total stride does not divide the shape.
    """
    stride = total_stride(config.strides)
    if any(n % s for n, s in zip(shape, stride, strict=True)):
        raise ValueError(f"shape must be divisible by the total stride {stride}, got {tuple(shape)}; pad the image.")
    skip_bottleneck, decoder_bottleneck = config.skip_bottleneck, config.decoder_bottleneck
    voxels, widths = _voxels_per_level(config, shape), layout(config)
    levels = len(config.channels) - 1
    skip_ratios = stage_ratios(skip_bottleneck, levels) if skip_bottleneck else (None,) * levels

    stages = _encoder(in_channels, config, widths, voxels)
    lower = config.channels[-1]
    for level in reversed(range(levels)):
        n, inner = voxels[level], widths.decoder[level]
        skip = _skip(level, config.channels[level], n, skip_bottleneck, skip_ratios[level], config)
        # A strided transposed convolution and a 1x1 before the interpolation both work once per lower voxel.
        taps = prod(config.strides[level + 1]) if config.upsample == "transposed" else 1
        up = _conv(lower, widths.up[level], taps, voxels[level + 1])
        merged, ranks = widths.merged(level, config.merge), widths.decoder_ranks[level]
        taps = prod(config.kernel_sizes[level])
        reduced = _reduced(widths, config, level)
        read = voxels[level + 1] if _reduces_early(config) else n
        block = StageCost(name="")
        if reduced:
            block += _conv(merged[0], reduced, 1, read) + _conv(sum(merged[1:]), reduced, 1, n)
        if decoder_bottleneck is None:
            block += _stage(reduced or sum(merged), inner, taps, n, ranks=((0, ranks[0][1]), ranks[1]))
        else:
            _, between, channels = inner
            block += _behind(reduced, decoder_bottleneck)
            block += _normed(reduced, between, taps, n, ranks=ranks[0]) + _normed(between, channels, 1, n)
        stages += [skip, _named(f"upsample {level}", up), _named(f"decoder {level}", block)]
        lower = inner[-1]
        if level == 0 or config.deep_supervision:
            head = _conv(lower, out_channels, 1, n if level == 0 else 0, bias=True)
            stages.append(_named(f"head {level}", head))
    return Complexity(stages=tuple(stages))


def map_elements(config: NetworkConfig, *, shape: Triple) -> int:
    """Counts the numbers in the feature maps of one image, each map where it is built.

    Norms, activations and copies are no multiply-accumulates; what they cost grows with these numbers. Of a 1x1 that
    a decoder stage begins with, the sum of its parts counts, and no part by itself.

    Args:
        config: The architecture.
        shape: Voxels of the image per axis, divisible by the network's total stride.
    """
    voxels, found = _voxels_per_level(config, shape), layout(config)
    count = 0
    for level, n in enumerate(voxels):
        above = voxels[max(0, level - 1)]
        count += n * sum(found.encoder[level]) + n * config.channels[level] * _projects(config, level)
        for (before, behind), read in zip(found.encoder_ranks[level], (above, n), strict=True):
            count += before * read + behind * n
    levels = len(config.channels) - 1
    ratios = stage_ratios(config.skip_bottleneck, levels) if config.skip_bottleneck else ()
    for level, ratio in enumerate(ratios):
        channels = config.channels[level]
        back = channels if projects_back(ratio, config.merge) else 0
        count += voxels[level] * (width(channels, ratio) + back)
    for level, n in enumerate(voxels[:levels]):
        early = _reduces_early(config) and _reduced(found, config, level) > 0
        up = found.up[level] * (voxels[level + 1] if early else n)
        count += up + n * (sum(found.decoder[level]) + sum(map(sum, found.decoder_ranks[level])))
    return count


def _voxels_per_level(config: NetworkConfig, shape: Triple) -> list[int]:
    voxels, n = [], prod(shape)
    for stride in config.strides:
        n //= prod(stride)
        voxels.append(n)
    return voxels


def _projects(config: NetworkConfig, level: int, in_channels: int | None = None) -> bool:
    """Returns whether a residual stage adds its input by a 1x1, as it does for an image of unknown channels."""
    read = config.channels[level - 1] if level else in_channels
    return config.residual and (read != config.channels[level] or prod(config.strides[level]) > 1)


def _reduces_early(config: NetworkConfig) -> bool:
    """Tells whether decoder stages apply a first 1x1 convolution before they interpolate features from below."""
    return config.merge == "concat" and config.upsample == "linear"


def _reduced(widths: Layout, config: NetworkConfig, level: int) -> int:
    """Counts the output channels of the 1x1 convolution that a decoder stage starts with; 0 if it has none."""
    return widths.decoder_ranks[level][0][0] if config.decoder_bottleneck is None else widths.decoder[level][0]


def _encoder(in_channels: int, config: NetworkConfig, widths: Layout, voxels: list[int]) -> list[StageCost]:
    stages = []
    last = len(config.channels) - 1
    for level, channels in enumerate(config.channels):
        taps, n, above = prod(config.kernel_sizes[level]), voxels[level], voxels[max(0, level - 1)]
        cost = _stage(in_channels, widths.encoder[level], taps, n, above, ranks=widths.encoder_ranks[level])
        if _projects(config, level, in_channels):
            cost += _normed(in_channels, channels, 1, n)
        stages.append(_named("bottom" if level == last else f"encoder {level}", cost))
        in_channels = channels
    return stages


def _skip(
    level: int, channels: int, voxels: int, spec: BottleneckConfig | None, ratio: float | None, config: NetworkConfig
) -> StageCost:
    name = f"skip {level}"
    if spec is None or ratio is None:
        return StageCost(name=name)
    inner = width(channels, ratio)
    cost = _named(name, _conv(channels, inner, 1, voxels) + _behind(inner, spec))
    if projects_back(ratio, config.merge):
        return cost + _conv(inner, channels, 1, voxels, bias=True)
    return cost


def _behind(channels: int, spec: BottleneckConfig) -> StageCost:
    """Counts the parameters of what follows a bottleneck's 1x1: its bias or norm, and the slopes of its activation."""
    shift = 2 * channels if spec.norm else channels
    return StageCost(name="", parameters=shift + (channels if spec.activation == "prelu" else 0))


def _stage(
    in_channels: int,
    widths: tuple[int, ...],
    taps: int,
    voxels: int,
    above: int | None = None,
    *,
    ranks: tuple[Ranks, ...],
) -> StageCost:
    """Counts the two convolutions of a stage.

    Args:
        in_channels: Channels of the input.
        widths: Channels behind each convolution.
        taps: Voxels of a kernel.
        voxels: Voxels of the output.
        above: Voxels of the input; those of the output where not given.
        ranks: Channels of the linear 1x1 before and behind each kernel, 0 where there is none.
    """
    between, channels = widths
    first = _normed(in_channels, between, taps, voxels, above, ranks=ranks[0])
    return first + _normed(between, channels, taps, voxels, ranks=ranks[1])


def _normed(
    in_channels: int, channels: int, taps: int, voxels: int, above: int | None = None, *, ranks: Ranks = PLAIN
) -> StageCost:
    """Counts a convolution with an affine norm, and the linear 1x1 before and behind its kernel, as `_stage` does."""
    read, written = ranks[0] or in_channels, ranks[1] or channels
    cost = _conv(read, written, taps, voxels) + StageCost(name="", parameters=2 * channels)
    if ranks[0]:
        cost += _conv(in_channels, read, 1, voxels if above is None else above)
    if ranks[1]:
        cost += _conv(written, channels, 1, voxels)
    return cost


def _conv(in_channels: int, out_channels: int, taps: int, voxels: int, bias: bool = False) -> StageCost:
    one = Convolution(in_channels=in_channels, out_channels=out_channels, taps=taps, voxels=voxels)
    return StageCost(name="", parameters=one.weights + bias * out_channels, convolutions=(one,))


def _named(name: str, cost: StageCost) -> StageCost:
    return replace(cost, name=name)
