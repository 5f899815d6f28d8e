"""Cost of a network as it is counted, checked against the built network."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from seg.config import NetworkConfig
from seg.networks import UNet, complexity
from seg.networks.complexity import Complexity
from seg.networks.conv import Triple


class _Convolutions(TorchDispatchMode):
    """Collects what each convolution multiplies for one image: channels read and written, times kernel and voxels."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[int, int, int]] = []

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **kwargs or {})
        if func is torch.ops.aten.convolution.default:
            (image, weight), transposed = args[:2], args[6]
            read, written = weight.shape[:2] if transposed else reversed(weight.shape[:2])
            voxels = math.prod((image if transposed else out).shape[2:])
            self.found.append((read, written, math.prod(weight.shape[2:]) * voxels))
        return out


def checked_complexity(in_channels: int, out_channels: int, config: NetworkConfig, *, shape: Triple) -> Complexity:
    """Counts like `complexity`, and checks the count against a network that is built with the same arguments.

    The network is built on torch's meta device, which has shapes and no numbers, and torch's FLOP counter watches it.
    """
    cost = complexity(in_channels, out_channels, config, shape=shape)
    with torch.device("meta"):
        network = UNet(in_channels, out_channels, config).eval()
        image = torch.empty(1, in_channels, *shape)
    with FlopCounterMode(display=False) as counter, _Convolutions() as convolutions, torch.no_grad():
        network(image)
    assert cost.parameters == sum(parameter.numel() for parameter in network.parameters()), config
    assert cost.macs * 2 == counter.get_total_flops(), config
    for vector in (1, 4):
        whole = sum(read * vector * math.ceil(written / vector) * times for read, written, times in convolutions.found)
        assert cost.vector_macs(vector) == whole, config
    return cost
