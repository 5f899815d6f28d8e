"""The least time that a network can take on a machine, from its work and the machine's measured ceilings.

References:
    S. Williams, A. Waterman, D. Patterson, "Roofline: an insightful visual performance model for multicore
    architectures", 2009, doi:10.1145/1498765.1498785.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from seg.benchmark.subjects import Runtime
from seg.benchmark.timing import Timer

ITEM_BYTES = {"fp32": 4, "bf16": 2}
PRODUCT_SIZE = {"cpu": 1024, "cuda": 8192}
CONV_EDGE = {"cpu": 32, "cuda": 128}
COPY_ELEMENTS = {"cpu": 2**25, "cuda": 2**28}
CONV_CHANNELS, REPEATS = 64, 5
NORM_READS = {"aten.native_batch_norm": 1, "aten.native_batch_norm_backward": 2}
"""Passes over the input that an operator takes beside the one that its arguments count: for its statistics."""
VIEWS = frozenset(
    {"alias", "as_strided", "detach", "empty", "expand", "permute", "select", "slice", "split", "t", "transpose"}
    | {"unsqueeze", "view", "_unsafe_view"}
)
"""Operators that move no data."""


@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """The highest rates that a device reached in a measurement: of arithmetic and of copies in memory.

    Attributes:
        flops: Floating-point operations per second, two a multiply-accumulate, in the network's precision: the faster
            of a product of matrices and a 3x3x3 convolution of 64 channels.
        bytes: Bytes per second, read and written, of a copy far larger than any cache.
    """

    flops: float
    bytes: float


@dataclass(frozen=True, kw_only=True)
class Work:
    """The arithmetic and the bytes of one operator of a network.

    Attributes:
        flops: Two for each multiply-accumulate; 0 of what is no convolution and no product of matrices.
        bytes: Read and written, if nothing stays in a cache.
    """

    flops: int
    bytes: int

    def seconds(self, ceilings: Ceilings) -> float:
        """Returns the least time: that of its arithmetic or of its bytes, whichever is longer."""
        return max(self.flops / ceilings.flops, self.bytes / ceilings.bytes)


@dataclass(frozen=True, kw_only=True)
class Floor:
    """The shortest time that one pass can take on a device, by its ceilings.

    Attributes:
        unfused_s: Seconds where each operator reads its inputs from memory and writes its output there.
        fused_s: Seconds where norms, activations, sums, interpolations and copies cost nothing beside the
            convolutions, as if their bytes never left the cache.
    """

    unfused_s: float
    fused_s: float


def measure_ceilings(runtime: Runtime) -> Ceilings:
    """Measures what a device reaches, each time the best of a few runs."""
    on, kind = runtime.device.type, torch.bfloat16 if runtime.precision == "bf16" else torch.float32
    n = PRODUCT_SIZE[on]
    a, b = (torch.randn(n, n, device=runtime.device, dtype=kind) for _ in range(2))
    product = 2 * n**3 / _best(lambda: a @ b, runtime)
    conv = runtime.put(nn.Conv3d(CONV_CHANNELS, CONV_CHANNELS, 3, padding=1, bias=False).to(kind))
    image = runtime.image(2, CONV_CHANNELS, (CONV_EDGE[on],) * 3).to(kind)
    with torch.inference_mode():
        convolution = 2 * image.numel() * CONV_CHANNELS * 27 / _best(lambda: conv(image), runtime)
    source = torch.ones(COPY_ELEMENTS[on], device=runtime.device)
    target = torch.empty_like(source)
    copied = 2 * source.numel() * source.element_size() / _best(lambda: target.copy_(source), runtime)
    return Ceilings(flops=max(product, convolution), bytes=copied)


def _best(call: Callable[[], object], runtime: Runtime) -> float:
    timer = Timer(wait=runtime.wait)
    timer.seconds(call)
    return min(timer.seconds(call) for _ in range(REPEATS))


def count_work(network: nn.Module, shape: tuple[int, ...], item_bytes: int, *, training: bool = False) -> list[Work]:
    """Counts what each operator of a pass does, without computing it.

    Args:
        network: A network on the device `meta`.
        shape: Shape (B, C, X, Y, Z) of the image.
        item_bytes: Bytes of a number: 4 in fp32, 2 in bf16.
        training: Whether the backward pass follows; loss and update are never counted.

    Returns:
        One entry for each operator that moves data, in the order of computation.
    """
    counter = _Counter(item_bytes)
    network.train(training)
    image = torch.empty(shape, device="meta")
    with torch.set_grad_enabled(training), counter:
        out = network(image)
        if training:
            sum(o.sum() for o in (out if isinstance(out, list) else [out])).backward()
    return counter.work


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, item_bytes: int) -> None:
        untyped: Any = super()
        untyped.__init__()
        self.item_bytes = item_bytes
        self.work: list[Work] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        name = f"aten.{packet.__name__}"
        if packet.__name__ in VIEWS:
            return out
        tensors = [t for part in (args, out if isinstance(out, tuple) else (out,)) for t in _tensors(part)]
        largest = max((t.numel() for t in _tensors(args)), default=0)
        elements = sum(t.numel() for t in tensors) + NORM_READS.get(name, 0) * largest
        count = flop_registry.get(packet)
        flops = count(*args, **(kwargs or {}), out_val=out) if count is not None else 0
        self.work.append(Work(flops=int(flops), bytes=self.item_bytes * elements))
        return out


def _tensors(part: Any) -> Iterable[Tensor]:
    for one in part:
        if isinstance(one, Tensor):
            yield one
        elif isinstance(one, (list, tuple)):
            yield from _tensors(one)


def floor(work: Iterable[Work], ceilings: Ceilings) -> Floor:
    """Adds up the least times of all operators, and of the convolutions alone."""
    seconds = [(entry.seconds(ceilings), entry.flops > 0) for entry in work]
    return Floor(unfused_s=sum(s for s, _ in seconds), fused_s=sum(s for s, computes in seconds if computes))
