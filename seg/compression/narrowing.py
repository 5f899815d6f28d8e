"""Measures the time that a narrower feature map saves: the layers in which two networks differ run in turns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from seg.benchmark.timing import Timer, interleave, ratios, spread
from seg.config import NetworkConfig
from seg.networks import UNet, network_from_config
from seg.networks.blocks import ConvStage
from seg.networks.conv import Triple

PAIRS = 5
"""How often the full and the narrowed layers are timed, in turns, after one untimed pair."""
LEAST_SECONDS = 0.01
_Calls = list[tuple[nn.Module, list[Tensor]]]


@dataclass(frozen=True, kw_only=True)
class Saving:
    """What a narrower map saves in the layers that write and read it.

    Attributes:
        full_ms: Median time of these layers as they are.
        saved_ms: Median difference of the pairs; below 0 the narrow layers are slower.
        speedup: Median ratio of the pairs, full over narrow.
        speedup_quartiles: Quartiles of that ratio.
    """

    full_ms: float
    saved_ms: float
    speedup: float
    speedup_quartiles: tuple[float, float]


def time_narrowing(
    in_channels: int, out_channels: int, full: NetworkConfig, narrow: NetworkConfig, shape: Triple
) -> Saving:
    """Times the layers in which two networks differ, on the processor, in float32 and with torch's threads.

    Args:
        in_channels: Channels of the image.
        out_channels: Classes.
        full: The network.
        narrow: The network with a narrower map.
        shape: Voxels of the image.
    """
    wide, slim = (_Layers(network_from_config(config, in_channels, out_channels), shape) for config in (full, narrow))
    calls = {"full": partial(_run, wide.that_differ_from(slim)), "narrow": partial(_run, slim.that_differ_from(wide))}
    with torch.no_grad():
        times = interleave(calls, Timer(least_seconds=LEAST_SECONDS), rounds=PAIRS, warmup=1)
    ratio = ratios(times["full"], times["narrow"])
    return Saving(
        full_ms=1e3 * spread(times["full"])["median"],
        saved_ms=1e3 * spread([a - b for a, b in zip(times["full"], times["narrow"], strict=True)])["median"],
        speedup=ratio["median"],
        speedup_quartiles=(ratio["q1"], ratio["q3"]),
    )


def _run(calls: _Calls) -> None:
    for layer, inputs in calls:
        layer(*inputs)


class _Layers:
    """The timed parts of one network: blocks of the encoder, skips, whole decoder stages, and the head."""

    def __init__(self, network: UNet, shape: Triple) -> None:
        self.parts = dict(_parts(network.eval()))
        self.shapes = _input_shapes(network, list(self.parts), shape)

    def that_differ_from(self, other: _Layers) -> _Calls:
        """Returns the parts that the other network lacks, or has with other shapes of weights, with random inputs."""
        return [
            (part, [_random(shape) for shape in self.shapes[name]])
            for name, part in self.parts.items()
            if name not in other.parts or _weights(part) != _weights(other.parts[name])
        ]


def _parts(network: UNet) -> Mapping[str, nn.Module]:
    found: dict[str, nn.Module] = {}
    for name, stage in network.encoder.named_children():
        blocks = dict(stage.named_children()) if isinstance(stage, ConvStage) else {}
        found |= {f"encoder.{name}.{inner}": block for inner, block in blocks.items()} or {f"encoder.{name}": stage}
    found |= {f"skips.{n}": skip for n, skip in network.skips.named_children() if not isinstance(skip, nn.Identity)}
    found |= {f"decoder.{name}": stage for name, stage in network.decoder.named_children()}
    return found | {"heads.0": network.heads[0]}


def _input_shapes(network: UNet, names: list[str], shape: Triple) -> dict[str, list[torch.Size]]:
    """Returns the input shapes of each part, found by a pass on the device `meta`, which computes nothing."""
    with torch.device("meta"):
        empty = UNet(network.in_channels, network.out_channels, network.config).eval()
        image = torch.empty(1, network.in_channels, *shape)
    shapes: dict[str, list[torch.Size]] = {}

    def see(name: str, inputs: tuple[Tensor, ...]) -> None:
        shapes[name] = [one.shape for one in inputs]

    for name in names:
        empty.get_submodule(name).register_forward_pre_hook(lambda _module, inputs, name=name: see(name, inputs))
    with torch.no_grad():
        empty(image)
    return shapes


def _random(shape: torch.Size) -> Tensor:
    return torch.randn(shape).contiguous(memory_format=torch.channels_last_3d)


def _weights(part: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in part.state_dict().items()}
