"""A 3-D U-Net with optional 1x1 bottlenecks in its skips and its decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seg.config import BottleneckConfig, NetworkConfig
from seg.config.rules import network_problems
from seg.errors import ConfigError
from seg.networks.blocks import ConvStage, ResidualStage, draw_weights, total_stride
from seg.networks.bottleneck import DecoderBottleneck, SkipBottleneck, interpolate, reduce_pair, stage_ratios
from seg.networks.conv import ONE, Conv3d, ConvTranspose3d, Triple, is_exporting
from seg.networks.layout import Layout, layout


class DecoderStage(nn.Module):
    """Upsampling, merging with the skip, and convolutions.

    Args:
        up: The transposed convolution, or the 1x1 reduction before the interpolation.
        scale: Interpolation factor per axis behind `up`; 1 where `up` is the transposed convolution.
        block: Convolutions on the merged features.
        merge: `concat` or `add`.
    """

    def __init__(self, up: nn.Module, scale: Triple, block: ConvStage | DecoderBottleneck, merge: str) -> None:
        super().__init__()
        self.up = up
        self.scale = scale
        self.block = block
        self.merge = merge

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Upsamples features, merges them with those of the skip, and convolves the result.

        Args:
            x: Features of the stage below, shape (B, C_lower, X / s, Y / s, Z / s).
            skip: Features of the skip, shape (B, C_skip, X, Y, Z).

        Returns:
            Features, shape (B, C, X, Y, Z).
        """
        up: Tensor = self.up(x)
        reduce = self.block.reduce if self.merge == "concat" else None
        if reduce is not None:
            merged = reduce_pair(up, skip, reduce.weight, reduce.bias, self.scale)
        elif self.merge == "concat":
            merged = torch.cat((interpolate(up, self.scale), skip), dim=1)
        else:
            merged = interpolate(up, self.scale) + skip
        out: Tensor = self.block(merged, reduced=reduce is not None)
        return out


class UNet(nn.Module):
    """A 3-D U-Net after nnU-Net, with optional 1x1 bottlenecks in its skips and its decoder.

    Every convolution is unbiased and followed by an instance norm and a leaky ReLU of slope 0.01; a strided
    convolution leads into each lower stage. Without bottlenecks and options it computes what MONAI's DynUNet does.
    On a CPU the features are kept in channels_last_3d whatever the format of the input.

    Args:
        in_channels: Channels of the image.
        out_channels: Classes, background included.
        config: Stages, bottlenecks and options.

    Raises:
        ConfigError: If the fields of the configuration do not fit one another, such as strides for another number of
            stages.

    References:
        O. Ronneberger, P. Fischer, T. Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", 2015,
        arXiv:1505.04597. F. Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical
        image segmentation", 2021, doi:10.1038/s41592-020-01008-z. Deviation from nnU-Net: convolutions before a norm
        have no bias, transposed convolutions neither, and every decoder stage has a head under deep supervision.
    """

    def __init__(self, in_channels: int, out_channels: int, config: NetworkConfig) -> None:
        super().__init__()
        if problems := network_problems(config):
            raise ConfigError(problems)
        self.in_channels, self.out_channels, self.config = in_channels, out_channels, config
        widths = layout(config)
        stage = ResidualStage if config.residual else ConvStage
        inputs = (in_channels, *config.channels[:-1])
        self.encoder = nn.ModuleList(
            stage(c_in, c, kernel, stride, ranks)
            for c_in, c, kernel, stride, ranks in zip(
                inputs, widths.encoder, config.kernel_sizes, config.strides, widths.encoder_ranks, strict=True
            )
        )
        upper = config.channels[:-1]
        self.skips = nn.ModuleList(_skips(upper, config.skip_bottleneck, config.merge))
        self.decoder = nn.ModuleList(_decoder_stage(config, widths, level) for level in range(len(upper)))
        outputs = [stage_widths[-1] for stage_widths in widths.decoder]
        heads = outputs if config.deep_supervision else outputs[:1]
        self.heads = nn.ModuleList(Conv3d(c, out_channels, 1) for c in heads)
        self.apply(draw_weights)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Segments an image of shape (B, C, X, Y, Z).

        Returns:
            Logits of shape (B, K, X, Y, Z); in training under deep supervision a list of the logits of every decoder
            stage, from full resolution down.

        Raises:
            ValueError: If the image has the wrong number of axes or channels, or a grid that the total stride does
                not divide.
        """
        if not is_exporting():
            self._check(x)
            if x.device.type == "cpu":
                x = _channels_last(x)
        features: list[Tensor] = []
        for stage in self.encoder:
            x = stage(x)
            features.append(x)
        x = features.pop()
        outputs: list[Tensor] = []
        for level in reversed(range(len(self.decoder))):
            x = self.decoder[level](x, self.skips[level](features.pop()))
            if level == 0 or (self.training and self.config.deep_supervision):
                outputs.append(self.heads[level](x))
        return outputs[::-1] if self.training and self.config.deep_supervision else outputs[-1]

    def _check(self, x: Tensor) -> None:
        if x.ndim != 5 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"image must have shape (B, {self.in_channels}, X, Y, Z), got {tuple(x.shape)}; "
                f"build the network with the channels of the data."
            )
        stride = total_stride(self.config.strides)
        shape = tuple(x.shape[2:])
        padding = tuple(-n % s for n, s in zip(shape, stride, strict=True))
        if any(padding):
            padded = tuple(n + p for n, p in zip(shape, padding, strict=True))
            raise ValueError(
                f"image shape must be divisible by the network's total stride {stride}, got {shape}; "
                f"pad it by {padding} voxels to {padded}."
            )


def _channels_last(x: Tensor) -> Tensor:
    if x.shape[1] == 1:
        # With one channel both formats describe the same bytes, and torch would take the other one.
        return x[:, 0].contiguous().unsqueeze(-1).permute(0, 4, 1, 2, 3)
    return x.contiguous(memory_format=torch.channels_last_3d)


def _skips(channels: tuple[int, ...], spec: BottleneckConfig | None, merge: str) -> list[nn.Module]:
    if spec is None:
        return [nn.Identity() for _ in channels]
    return [SkipBottleneck(c, spec, r, merge) for c, r in zip(channels, stage_ratios(spec, len(channels)), strict=True)]


def _decoder_stage(config: NetworkConfig, widths: Layout, level: int) -> DecoderStage:
    lower = widths.decoder[level + 1][-1] if level + 1 < len(widths.decoder) else config.channels[-1]
    channels, merged = widths.up[level], sum(widths.merged(level, config.merge))
    stride, kernel = config.strides[level + 1], config.kernel_sizes[level]
    transposed = config.upsample == "transposed"
    up = (
        ConvTranspose3d(lower, channels, stride, stride, bias=False)
        if transposed
        else Conv3d(lower, channels, 1, bias=False)
    )
    block: ConvStage | DecoderBottleneck
    if config.decoder_bottleneck is None:
        block = ConvStage(merged, widths.decoder[level], kernel, ranks=widths.decoder_ranks[level])
    else:
        (ranks,) = widths.decoder_ranks[level]
        block = DecoderBottleneck(merged, widths.decoder[level], kernel, config.decoder_bottleneck, ranks)
    return DecoderStage(up, ONE if transposed else stride, block, config.merge)


def network_from_config(config: NetworkConfig, in_channels: int, out_channels: int) -> UNet:
    """Builds the network of a configuration, with weights that no seed of an experiment has drawn.

    `initialise` draws them. Constructors of layers draw weights of their own; torch's global stream of random numbers
    is left where it was.
    """
    with torch.random.fork_rng(devices=[]):
        return UNet(in_channels, out_channels, config)
