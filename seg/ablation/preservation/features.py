"""Where a U-Net's features are read, and its cases, voxel by voxel of every such place."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
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
from seg.networks.blocks import ConvNormAct, FactoredConv3d, total_stride
from seg.networks.bottleneck import DecoderBottleneck, SkipBottleneck, interpolate
from seg.networks.conv import Triple
from seg.networks.unet import DecoderStage


@dataclass(frozen=True, kw_only=True, eq=False)
class Place:
    """One place of a network where a bottleneck stands or could stand.

    Attributes:
        path: ``skip`` or ``decoder``.
        stage: Stage, 0 at full resolution.
        stride: Voxels of the image per voxel of the stage, per axis.
        channels: Channels of the stage, to which a bottleneck's ratio refers.
        wide: Channels that enter.
        out: Channels that leave the bottleneck; 0 without a bottleneck.
        narrow: The fewest channels on the way, at most ``wide``; 0 without a bottleneck.
        reduce: The 1x1 that the wide features enter.
        block: From wide features to what leaves, voxel by voxel where no norm stands in it.
    """

    path: Literal["skip", "decoder"]
    stage: int
    stride: Triple
    channels: int
    wide: int
    out: int = 0
    narrow: int = 0
    reduce: nn.Conv3d | None = None
    block: nn.Module | None = None

    @property
    def name(self) -> str:
        """Name such as ``skip_0``."""
        return f"{self.path}_{self.stage}"


Receiver = Callable[[Place, Tensor, Tensor | None], None]
"""Takes wide features (B, wide, X, Y, Z), and those that leave the bottleneck (B, out, X, Y, Z) or None without one."""


def find_places(network: UNet) -> tuple[Place, ...]:
    """Lists the places of a network: the skips, then the decoder stages, each from full resolution down."""
    config = network.config
    skips, decoders = [], []
    for stage, channels in enumerate(config.channels[:-1]):
        stride = total_stride(config.strides[: stage + 1])
        skip = Place(path="skip", stage=stage, stride=stride, channels=channels, wide=channels)
        module = network.skips[stage]
        skips.append(_narrowed(skip, module.reduce, module) if isinstance(module, SkipBottleneck) else skip)
        block = _decoder(network, stage).block
        first = block.reduce if isinstance(block, DecoderBottleneck) else _first_conv(block)
        decoder = Place(path="decoder", stage=stage, stride=stride, channels=channels, wide=first.in_channels)
        if isinstance(block, DecoderBottleneck):
            decoder = _narrowed(decoder, block.reduce, nn.Sequential(block.reduce, block.pointwise))
        decoders.append(decoder)
    return (*skips, *decoders)


def _narrowed(place: Place, reduce: nn.Conv3d, block: nn.Module) -> Place:
    out = block.out_channels if isinstance(block, SkipBottleneck) else reduce.out_channels
    return replace(place, out=out, narrow=min(reduce.out_channels, place.wide), reduce=reduce, block=block)


def _decoder(network: UNet, stage: int) -> DecoderStage:
    found = network.decoder[stage]
    assert isinstance(found, DecoderStage)
    return found


def _first_conv(block: nn.Module) -> nn.Conv3d | FactoredConv3d:
    return next(layer.conv for layer in block.modules() if isinstance(layer, ConvNormAct))


@contextmanager
def recording(network: UNet, places: tuple[Place, ...], receive: Receiver) -> Iterator[None]:
    """Gives the features of each place to a function while images go through the network, whose results do not change.

    A decoder stage that begins with a 1x1 never builds its merged input; it is built here for the measurement, and let
    go after it.
    """
    handles = []
    for place in places:
        if place.path == "skip":
            handles.append(network.skips[place.stage].register_forward_hook(_skip_hook(place, receive)))
        else:
            stage = _decoder(network, place.stage)
            seen: dict[str, Tensor] = {}
            handles.append(stage.up.register_forward_hook(_keep(seen, "up")))
            if isinstance(stage.block, DecoderBottleneck):
                handles.append(stage.block.pointwise.register_forward_hook(_keep(seen, "narrow")))
            handles.append(stage.register_forward_hook(_decoder_hook(place, seen, receive)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]


def _skip_hook(place: Place, receive: Receiver) -> Hook:
    return lambda _, inputs, output: receive(place, inputs[0], None if place.block is None else output)


def _keep(seen: dict[str, Tensor], name: str) -> Hook:
    return lambda _, inputs, output: seen.update({name: output})


def _decoder_hook(place: Place, seen: dict[str, Tensor], receive: Receiver) -> Callable[..., None]:
    def hook(module: DecoderStage, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        up, skip = interpolate(seen.pop("up"), module.scale), inputs[1]
        wide = torch.cat((up, skip), dim=1) if module.merge == "concat" else up + skip
        receive(place, wide, seen.pop("narrow", None))

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
        block: From wide features (1, C, X, Y, Z) to what leaves, on the same grid.
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
class WindowVoxels:
    """The voxels of a window that count at one stage.

    Attributes:
        own: Where they lie on the stage's grid within the window, axis by axis.
        volume: Voxels of the volume that lie at their centres, axis by axis.
    """

    own: tuple[slice, slice, slice]
    volume: tuple[slice, slice, slice]

    def features(self, tensor: Tensor) -> Tensor:
        """Returns the features of the chosen voxels as rows (n, C), from those of a window (1, C, X, Y, Z)."""
        return tensor[(0, slice(None), *self.own)].flatten(1).T

    def labels(self, label: Tensor) -> Tensor:
        """Returns the labels (n,) of the same voxels in the same order, from those of the volume (X, Y, Z)."""
        return label[self.volume].flatten()


def window_voxels(windows: Windows, start: Triple, stride: Triple) -> WindowVoxels:
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
    for starts, begin, step, size, extent in zip(
        windows.starts, start, stride, windows.size, windows.shape, strict=True
    ):
        cuts = [(a + b + size) // 2 for a, b in itertools.pairwise(starts)]
        low, high = list(itertools.pairwise([0, *cuts, extent]))[starts.index(begin)]
        centre = begin + step // 2
        # the first and the last j with low <= centre + step j < high
        first = max(-((centre - low) // step), 0)
        last = max(min(-((centre - high) // step), size // step), first)
        own.append(slice(first, last))
        volume.append(slice(centre + step * first, centre + step * last, step))
    return WindowVoxels(own=(own[0], own[1], own[2]), volume=(volume[0], volume[1], volume[2]))


Rows = Callable[[Place, Tensor, Tensor | None, Tensor], None]
"""Takes wide features (n, wide), those that leave the bottleneck (n, out) or None, and labels i64 (n,)."""


def visit_case(model: Model, data: DataConfig, case: Case, ignore_label: int | None, receive: Rows) -> None:
    """Runs the windows of a prediction over a case and gives every voxel that counts to a function, in chunks.

    Args:
        model: A U-Net in evaluation mode, with its windows and device.
        data: How cases are prepared.
        case: The case.
        ignore_label: Label whose voxels count nowhere; None where there is none.
        receive: What takes the features.

    Raises:
        DataError: The case has no label.
    """
    network = model.network
    assert isinstance(network, UNet)
    array, reference = prepare_case(case, data)
    image, label = torch.from_numpy(array), torch.from_numpy(reference).long().to(model.device)
    windows, places = model.windows(image.shape[1:]), find_places(network)
    for _, start in windows.in_order((0, 1, 2)):
        # Built per window: which voxels of a stage count depends on where the window lies.
        here = {place.name: window_voxels(windows, start, place.stride) for place in places}

        def take(place: Place, wide: Tensor, narrow: Tensor | None, here: dict[str, WindowVoxels] = here) -> None:
            voxels = here[place.name]
            x, y, t = voxels.features(wide), None if narrow is None else voxels.features(narrow), voxels.labels(label)
            if ignore_label is not None:
                kept = t != ignore_label
                x, y, t = x[kept], None if y is None else y[kept], t[kept]
            for first in range(0, len(t), CHUNK):
                chunk = slice(first, first + CHUNK)
                receive(place, x[chunk], None if y is None else y[chunk], t[chunk])

        with torch.inference_mode(), recording(network, places, take):
            network(windows.crop(image, start)[None].to(model.device))
