"""Times smaller networks against the original in an engine, and what the numbers of a feature map cost of that."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from seg.benchmark.subjects import Runtime
from seg.benchmark.timing import Call, Timer, interleave, spread
from seg.compression.channels import feature_maps, with_channels
from seg.compression.cuts import Prices, with_ranks
from seg.compression.moments import full_kernels
from seg.compression.shrink import work_of
from seg.config import ExperimentConfig
from seg.hardware import choose_device, choose_precision
from seg.inference.engines import Engine
from seg.inference.export import in_engine
from seg.inference.memory import memory_format_on
from seg.inference.model import Model
from seg.networks import UNet, map_elements, network_from_config
from seg.networks.conv import Triple

ROUNDS, WARMUP = 15, 2
"""How many rounds are timed, and how many untimed ones come before."""
MOST_OF_ELEMENTS = 0.9
"""Upper limit of the share of a network's time that is put down to its feature maps."""
LOG = logging.getLogger(__name__)
Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, kw_only=True)
class Latency:
    """The time of a pass of one patch.

    Attributes:
        ms: Median over the rounds.
        ratio: Median over the rounds of the time over the original's in the same round: below 1 is faster.
        q1: Lower quartile of these ratios.
        q3: Upper quartile.
    """

    ms: Positive
    ratio: Positive
    q1: Positive
    q3: Positive


def measure_latency(
    networks: Mapping[str, UNet | Path],
    config: ExperimentConfig,
    *,
    channels: int,
    engine: Engine,
    rounds: int = ROUNDS,
) -> dict[str, Latency]:
    """Measures passes of one patch through networks, in turns, the original first.

    Args:
        networks: Networks by name, in evaluation mode; a path is a file that the engine reads.
        config: The original's experiment: it has the size of the patch and, for torch, the device and the precision.
        channels: Channels of an image.
        engine: What runs them; others than torch run in fp32, with as many threads as torch has here.
        rounds: Rounds that count.
    """
    # A copy is moved to where it computes, as the layout of weights decides the last digits of what follows.
    with passes(copy.deepcopy(dict(networks)), config, channels=channels, engine=engine) as (calls, runtime):
        times = interleave(calls, Timer(wait=runtime.wait), rounds=rounds, warmup=WARMUP)
    first = next(iter(times.values()))
    found = {}
    for name, own in times.items():
        ratio = spread([mine / others for mine, others in zip(own, first, strict=True)])
        found[name] = Latency(ms=1e3 * spread(own)["median"], ratio=ratio["median"], q1=ratio["q1"], q3=ratio["q3"])
    return found


@contextmanager
def passes(
    networks: Mapping[str, UNet | Path], config: ExperimentConfig, *, channels: int, engine: Engine
) -> Iterator[tuple[dict[str, Call], Runtime]]:
    """Prepares a call for each network, by its name, that runs it on one patch of noise, as a context manager.

    It gives the calls and where they compute. Networks in other engines than torch are gone behind the block.

    Args:
        networks: Networks by name, in evaluation mode, which torch moves to its device and its layout; a path is a
            file that the engine reads.
        config: The original's experiment: it has the size of the patch and, for torch, the device and the precision.
        channels: Channels of an image.
        engine: What runs them; others than torch run in fp32, with as many threads as torch has here.
    """
    size = config.patches.size
    calls: dict[str, Call] = {}
    if engine == "torch":
        device = choose_device(config.training.device)
        runtime = Runtime(
            device=device,
            precision=choose_precision(config.training.precision, device),
            memory_format=memory_format_on(device, config.training.memory_format),
        )
        image = runtime.image(1, channels, size)
        for name, network in networks.items():
            if isinstance(network, UNet):
                model = Model(network=runtime.put(network), window=size, device=device, precision=runtime.precision)
                calls[name] = partial(model.logits, image)
        yield calls, runtime
        return
    runtime = Runtime(device=torch.device("cpu"), precision="fp32", memory_format=torch.contiguous_format)
    voxels = np.ascontiguousarray(runtime.image(1, channels, size).numpy())
    with ExitStack() as stack:
        for name, network in networks.items():
            calls[name] = partial(stack.enter_context(in_engine(network, size, engine)), voxels)
        yield calls, runtime


def time_of_elements(network: UNet, shape: Triple, ratio: Callable[[UNet], float], vector: int) -> float:
    """Measures how many multiply-accumulates take as long as handling one number of a feature map.

    Two networks are timed: one of half the channels, and one with linear 1x1 of half the width around every full
    kernel. The time of a network is modelled as a sum of two terms, one for its multiply-accumulates and one for the
    numbers in its feature maps. Least squares give the share of the second term in the original's time, which is
    limited to 0 to `MOST_OF_ELEMENTS`.

    Args:
        network: The original.
        shape: Voxels of an image along X, Y and Z.
        ratio: Gives the time of a network over the original's.
        vector: Output channels that the engine computes at once, as in `Prices`.
    """
    prices = Prices(vector=vector)
    maps = {one.where: max(one.least, one.channels // 2) for one in feature_maps(network)}
    kernels = {
        name: (max(1, kernel.in_channels // 2), max(1, kernel.out_channels // 2))
        for name, kernel in full_kernels(network).items()
    }
    macs, elements = work_of(network, network.config, shape, prices), map_elements(network.config, shape=shape)
    above = below = 0.0
    for config in (with_channels(network.config, maps), with_ranks(network.config, kernels)):
        other = network_from_config(config, network.in_channels, network.out_channels).eval()
        by_macs = work_of(network, config, shape, prices) / macs
        apart = map_elements(config, shape=shape) / elements - by_macs
        above += (ratio(other) - by_macs) * apart
        below += apart**2
    found = above / below
    share = min(max(found, 0.0), MOST_OF_ELEMENTS)
    counted_as = "" if share == found else f", counted as {share:.0%}"
    LOG.info(
        "%.0f %% of the time goes with the numbers in feature maps, by two networks of half the widths%s",
        100 * found,
        counted_as,
    )
    return share / (1 - share) * macs / elements
