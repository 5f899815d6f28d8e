"""Where a U-Net's features are read, and its cases, voxel by voxel of every such place."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from seg.ablation.preservation.moments import CHUNK
from seg.config import DataConfig
from seg.data.cases import Case
from seg.data.prepare import prepare_case
from seg.inference.model import Model
from seg.inference.windows import Windows
from seg.networks import InstanceNorm3d, UNet
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


CROP = (3, 3, 3)
NOISE = 10.0
"""Standard deviation of the noise, beyond the biases; it comes with either sign, lest every ReLU be shut."""


def keeps_position(block: nn.Module, channels: int) -> bool:
    """Checks that the derivatives of one voxel's output by every other voxel's input are exactly zero.

    The whole Jacobian of the middle voxel of small crops of noise is computed in double precision with the block's own
    weights. The mean and the variance that an instance norm takes over a window are held fixed at 0 and 1: through
    these two numbers a channel every voxel depends on all others a little, whatever the convolution before it.

    Args:
        block: From wide features (1, C, X, Y, Z) to what is handed over, on the same grid.
        channels: Wide channels C.

    Returns:
        Whether it is so, and the voxel's own derivatives are not all zero.
    """
    exact = _hold_statistics(copy.deepcopy(block)).cpu().double().requires_grad_(False)
    x = NOISE * torch.randn((channels, *CROP), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    i, j, k = (n // 2 for n in CROP)
    derive = torch.func.jacrev(lambda crop: exact(crop[None])[0, :, i, j, k])
    jacobian = torch.stack([derive(x), derive(-x)])
    own = jacobian[..., i, j, k].clone()
    jacobian[..., i, j, k] = 0
    return bool((jacobian == 0).all() and own.any())


class _HeldNorm(nn.Module):
    """An instance norm whose statistics are 0 and 1 whatever comes in."""

    def __init__(self, norm: InstanceNorm3d) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = (part[:, None, None, None] for part in (self.norm.weight, self.norm.bias))
        return functional.leaky_relu(x * weight + bias, self.norm.negative_slope)


def _hold_statistics(block: nn.Module) -> nn.Module:
    if isinstance(block, InstanceNorm3d):
        return _HeldNorm(block)
    for name, child in block.named_children():
        setattr(block, name, _hold_statistics(child))
    return block


@dataclass(frozen=True, kw_only=True)
class Places:
    """The voxels of a window that count at one stage.

    Attributes:
        own: Their places on the stage's grid within the window, axis by axis.
        volume: Voxels of the volume that lie at their centres, axis by axis.
    """

    own: tuple[slice, slice, slice]
    volume: tuple[slice, slice, slice]

    def features(self, tensor: Tensor) -> Tensor:
        """Takes features (1, C, X, Y, Z) of a window as rows (n, C)."""
        box = tensor[(0, slice(None), *self.own)]
        return box.flatten(1).T

    def labels(self, label: Tensor) -> Tensor:
        """Takes labels (X, Y, Z) of the volume in the same order, shape (n,)."""
        return label[self.volume].flatten()


def places(windows: Windows, start: Triple, stride: Triple) -> Places:
    """Chooses the voxels of a window, on the grid of a stage.

    Between windows that overlap, the volume is cut midway between their centres: every voxel is taken from the window
    in which it lies most central, whose logits weigh most in a prediction. A voxel of a stage lies where its centre
    lies; on an even stride that is the upper of the two voxels beside it. At full resolution the windows share the
    voxels of the volume out without gap or overlap, below it as far as their grids agree.

    Args:
        windows: The windows of the volume.
        start: Where the window begins.
        stride: Voxels of the volume per voxel of the stage, per axis; it divides the window.
    """
    own, volume = [], []
    for axis in range(3):
        low, high = core(windows, axis, start[axis])
        first = start[axis] + stride[axis] // 2
        # the first and the last j with low <= first + stride j < high
        begin = max(-((first - low) // stride[axis]), 0)
        end = min(-((first - high) // stride[axis]), windows.size[axis] // stride[axis])
        end = max(end, begin)
        own.append(slice(begin, end))
        volume.append(slice(first + stride[axis] * begin, first + stride[axis] * end, stride[axis]))
    return Places(own=(own[0], own[1], own[2]), volume=(volume[0], volume[1], volume[2]))


def core(windows: Windows, axis: int, start: int) -> tuple[int, int]:
    """Returns the interval of an axis that is taken from the windows beginning at ``start``."""
    starts = windows.starts[axis]
    place = starts.index(start)
    cuts = [(a + b + windows.size[axis]) // 2 for a, b in itertools.pairwise(starts)]
    edges = [0, *cuts, windows.shape[axis]]
    return edges[place], edges[place + 1]


def known(labels: Tensor, ignore_label: int | None) -> Tensor | None:
    """Returns which voxels are not of the ignore label; None where all count."""
    if ignore_label is None or not bool(torch.any(labels == ignore_label)):
        return None
    return labels != ignore_label


Rows = Callable[[Tap, Tensor, Tensor | None, Tensor], None]
"""Takes wide features (n, wide), those handed over (n, handed) or None, and labels i64 (n,)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Walker:
    """A network whose features are read, and how cases are prepared for it.

    Attributes:
        network: The network in evaluation mode.
        model: The same with its windows and device.
        data: How cases are prepared.
        ignore_label: Label whose voxels count nowhere; None where there is none.
    """

    network: UNet
    model: Model
    data: DataConfig
    ignore_label: int | None

    @cached_property
    def taps(self) -> tuple[Tap, ...]:
        """The places whose features are read."""
        return find_taps(self.network)

    def visit(self, case: Case, receive: Rows) -> None:
        """Runs the windows of a prediction over a case and hands on every voxel that counts, in chunks.

        Args:
            case: The case.
            receive: What takes the features.

        Raises:
            DataError: The case has no label.
        """
        image, label = self._prepared(case)
        windows = self.model.windows(image.shape[1:])
        for _, start in windows.in_order((0, 1, 2)):
            # Built per window: which voxels of a stage count depends on where the window lies.
            here = {tap.name: places(windows, start, tap.stride) for tap in self.taps}

            def take(tap: Tap, wide: Tensor, narrow: Tensor | None, here: dict[str, Places] = here) -> None:
                self._hand_on(tap, here[tap.name], (wide, narrow, label), receive)

            with (
                torch.inference_mode(),
                tapped(self.network, self.taps, take),
            ):
                self.network(windows.crop(image, start)[None].to(self.model.device))

    def _prepared(self, case: Case) -> tuple[Tensor, Tensor]:
        array, label = prepare_case(case, self.data)
        return torch.from_numpy(array), torch.from_numpy(label).long().to(self.model.device)

    def _hand_on(self, tap: Tap, here: Places, tensors: tuple[Tensor, Tensor | None, Tensor], receive: Rows) -> None:
        wide, narrow, labels = tensors
        x, y = here.features(wide), None if narrow is None else here.features(narrow)
        t = here.labels(labels)
        kept = known(t, self.ignore_label)
        if kept is not None:
            x, y, t = x[kept], None if y is None else y[kept], t[kept]
        for first in range(0, len(t), CHUNK):
            chunk = slice(first, first + CHUNK)
            receive(tap, x[chunk], None if y is None else y[chunk], t[chunk])
