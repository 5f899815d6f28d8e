"""Where a U-Net's features are read: what enters each bottleneck and what it hands over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from seg.networks import UNet
from seg.networks.blocks import ConvNormAct, Triple, total_stride
from seg.networks.bottleneck import DecoderBottleneck, SkipBottleneck, interpolate
from seg.networks.unet import DecoderStage

Receiver = Callable[["Tap", Tensor, Tensor | None], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Tap:
    """One place of a network where a bottleneck stands or could stand.

    Attributes:
        path: ``skip`` or ``decoder``.
        stage: Stage, 0 at full resolution.
        stride: Voxels of the image per voxel of the stage, per axis.
        channels: Channels of the stage, to which a bottleneck's ratio refers.
        wide: Channels that enter.
        handed: Channels handed over; 0 without a bottleneck.
        narrow: The fewest channels on the way, at most ``wide``; 0 without a bottleneck.
        reduce: The 1x1 that the wide features enter.
        block: From wide features to what is handed over, voxel by voxel where no norm stands in it.
    """

    path: Literal["skip", "decoder"]
    stage: int
    stride: Triple
    channels: int
    wide: int
    handed: int = 0
    narrow: int = 0
    reduce: nn.Conv3d | None = None
    block: nn.Module | None = None

    @property
    def name(self) -> str:
        """Name such as ``skip_0``."""
        return f"{self.path}_{self.stage}"


def find_taps(network: UNet) -> tuple[Tap, ...]:
    """Lists the places of a network: the skips, then the decoder stages, each from full resolution down."""
    config = network.config
    strides = [total_stride(config.strides[: level + 1]) for level in range(len(config.channels) - 1)]
    return (*_skip_taps(network, strides), *_decoder_taps(network, strides))


def _skip_taps(network: UNet, strides: list[Triple]) -> Iterator[Tap]:
    for stage, (module, stride) in enumerate(zip(network.skips, strides, strict=True)):
        channels = network.config.channels[stage]
        if not isinstance(module, SkipBottleneck):
            yield Tap(path="skip", stage=stage, stride=stride, channels=channels, wide=channels)
            continue
        yield Tap(
            path="skip",
            stage=stage,
            stride=stride,
            channels=channels,
            wide=channels,
            handed=module.out_channels,
            narrow=min(module.reduce.out_channels, channels),
            reduce=module.reduce,
            block=module,
        )


def _decoder_taps(network: UNet, strides: list[Triple]) -> Iterator[Tap]:
    for stage, (module, stride) in enumerate(zip(network.decoder, strides, strict=True)):
        assert isinstance(module, DecoderStage)
        channels = network.config.channels[stage]
        block = module.block
        if not isinstance(block, DecoderBottleneck):
            first = block[0]
            assert isinstance(first, ConvNormAct)
            yield Tap(path="decoder", stage=stage, stride=stride, channels=channels, wide=first.conv.in_channels)
            continue
        yield Tap(
            path="decoder",
            stage=stage,
            stride=stride,
            channels=channels,
            wide=block.reduce.in_channels,
            handed=block.reduce.out_channels,
            narrow=min(block.reduce.out_channels, block.reduce.in_channels),
            reduce=block.reduce,
            block=nn.Sequential(block.reduce, block.pointwise),
        )


@contextmanager
def tapped(network: UNet, taps: tuple[Tap, ...], receive: Receiver) -> Iterator[None]:
    """Hands the features of each place to a function while images go through the network.

    A decoder bottleneck never builds its merged input; it is built here for the measurement, and let go after it.

    Args:
        network: The network, whose results do not change.
        taps: Its places.
        receive: Called with the place, the wide features (B, wide, X, Y, Z) and those handed over (B, handed, X, Y, Z),
            None without a bottleneck.
    """
    handles = []
    for tap in taps:
        if tap.path == "skip":
            handles.append(network.skips[tap.stage].register_forward_hook(_skip_hook(tap, receive)))
        else:
            stage = network.decoder[tap.stage]
            assert isinstance(stage, DecoderStage)
            seen: dict[str, Tensor] = {}
            handles.append(stage.up.register_forward_hook(_keep(seen, "up")))
            if isinstance(stage.block, DecoderBottleneck):
                handles.append(stage.block.pointwise.register_forward_hook(_keep(seen, "narrow")))
            handles.append(stage.register_forward_hook(_decoder_hook(tap, seen, receive)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _skip_hook(tap: Tap, receive: Receiver) -> Callable[..., None]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        receive(tap, inputs[0], None if tap.block is None else output)

    return hook


def _keep(seen: dict[str, Tensor], name: str) -> Callable[..., None]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen[name] = output

    return hook


def _decoder_hook(tap: Tap, seen: dict[str, Tensor], receive: Receiver) -> Callable[..., None]:
    def hook(module: DecoderStage, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        up, skip = interpolate(seen.pop("up"), module.scale), inputs[1]
        wide = torch.cat((up, skip), dim=1) if module.merge == "concat" else up + skip
        receive(tap, wide, seen.pop("narrow", None))

    return hook
