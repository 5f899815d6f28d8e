"""How long a pass of a smaller network takes beside the original, in the engine that is to run it."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from seg.benchmark.subjects import Runtime
from seg.benchmark.timing import Call, Timer, interleave, spread
from seg.config import ExperimentConfig
from seg.hardware import choose_device, choose_precision
from seg.inference.engines import Engine, ExportedNetwork
from seg.inference.export import write_network
from seg.inference.model import Model
from seg.networks import UNet

ROUNDS, WARMUP = 15, 2
"""Rounds that count, and those before them."""
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
    engine: Engine,
    rounds: int = ROUNDS,
    timer: Timer | None = None,
) -> dict[str, Latency]:
    """Measures passes of one patch through networks, in turns, the original first.

    Args:
        networks: Networks by name, in evaluation mode; a path is a file that the engine reads.
        config: The original's experiment, of which the patch, the device and the precision are.
        engine: What runs them; others than torch run in fp32, with as many threads as torch has here.
        rounds: Rounds that count.
        timer: Takes the time; None is the clock.
    """
    channels = next(network.in_channels for network in networks.values() if isinstance(network, UNet))
    size = config.patches.size
    with tempfile.TemporaryDirectory() as folder:
        calls: dict[str, Call] = {}
        if engine == "torch":
            device = choose_device(config.training.device)
            runtime = Runtime(device=device, precision=choose_precision(config.training.precision, device))
            image = runtime.image(1, channels, size)
            for name, network in networks.items():
                if isinstance(network, UNet):
                    put = runtime.put(copy.deepcopy(network))  # its layout decides the last digits of what follows
                    model = Model(network=put, window=size, device=device, precision=runtime.precision)
                    calls[name] = partial(model.logits, image)
        else:
            runtime = Runtime(device=torch.device("cpu"), precision="fp32", memory_format=torch.contiguous_format)
            voxels = np.ascontiguousarray(runtime.image(1, channels, size).numpy())
            for index, (name, network) in enumerate(networks.items()):
                file = network if isinstance(network, Path) else Path(folder) / f"{index}.onnx"
                if isinstance(network, UNet):
                    write_network(network, channels, replace(config, network=network.config), file, "onnx")
                calls[name] = partial(ExportedNetwork(file, engine, threads=torch.get_num_threads()), voxels)
        times = interleave(calls, timer or Timer(wait=runtime.wait), rounds=rounds, warmup=WARMUP, words="latency")
    first = next(iter(times.values()))
    found = {}
    for name, own in times.items():
        ratio = spread([mine / others for mine, others in zip(own, first, strict=True)])
        found[name] = Latency(ms=1e3 * spread(own)["median"], ratio=ratio["median"], q1=ratio["q1"], q3=ratio["q3"])
    return found
