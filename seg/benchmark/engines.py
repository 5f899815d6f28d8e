"""Speed of networks in other engines than torch, side by side on the processor."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from math import prod
from typing import Any

import numpy as np
import torch

from seg.benchmark.measure import Settings, describe
from seg.benchmark.subjects import Runtime, Subject
from seg.benchmark.timing import interleave, ratios, spread
from seg.config import Precision
from seg.hardware import package_version
from seg.inference.engines import Engine, check_installed
from seg.inference.export import check_packages, in_engine
from seg.networks import UNet

LOG = logging.getLogger(__name__)


def measure_engine(
    subjects: Sequence[Subject], engine: Engine, settings: Settings, precision: Precision = "fp32"
) -> dict[str, Any]:
    """Measures a forward pass of networks in an engine, with as many threads as torch has here.

    Networks are exported to ONNX for it. Training, memory and the way from file to file are not measured.

    Args:
        subjects: The project's own networks, the baseline first.
        engine: The engine.
        settings: How to measure.
        precision: Arithmetic; bf16 is for engines that have it.

    Returns:
        The entry of an engine on this device in ``speed.json`` and ``benchmark.json``.

    Raises:
        ConfigError: The engine, or what exports networks, is not installed.
        RunError: Weights cannot be used.
    """
    check_installed(engine)
    check_packages("onnx")
    first = subjects[0]
    cpu = Runtime(device=torch.device("cpu"), precision=precision, memory_format=torch.contiguous_format)
    about = describe(first, cpu, settings)
    LOG.info("speed: %d network(s) in %s on %s", len(subjects), engine, about["device"])
    times: dict[str, dict[str, tuple[float, ...]]] = {}
    with ExitStack() as stack:
        networks = {}
        for index, subject in enumerate(subjects):
            LOG.info("speed: exporting %s (%d of %d)", subject.name, index + 1, len(subjects))
            network = subject.network()
            assert isinstance(network, UNet)  # peers are not among them
            networks[subject.name] = stack.enter_context(
                in_engine(network, subject.config.patches.size, engine, precision)
            )
        for measure in ("latency", "throughput"):
            calls = {}
            for subject in subjects:
                patches = subject.config.patches
                batch = 1 if measure == "latency" else patches.batch
                image = np.ascontiguousarray(cpu.image(batch, subject.ends[0], patches.size).numpy())
                calls[subject.name] = partial(networks[subject.name], image)
            timer = settings.timer(cpu)
            times[measure] = interleave(calls, timer, rounds=settings.rounds, warmup=settings.warmup, words=measure)
    voxels = {one.name: one.config.patches.batch * prod(one.config.patches.size) for one in subjects}
    rows = []
    for subject in subjects:
        name = subject.name
        per_voxel = {one: [s / voxels[one] for s in times["throughput"][one]] for one in (first.name, name)}
        rows.append(
            {
                "name": name,
                "precision": precision,
                "memory_format": "contiguous",
                "engine": engine,
                "weights": "initial" if subject.run_dir is None else "trained",
                "configuration": subject.fingerprint(),
                "latency_ms": spread([1e3 * value for value in times["latency"][name]]),
                "throughput_voxels_per_s": spread([1 / value for value in per_voxel[name]]),
                "latency_ratio": ratios(times["latency"][first.name], times["latency"][name]),
                "throughput_ratio": ratios(per_voxel[first.name], per_voxel[name]),
            }
        )
    return {
        **about,
        "engine": engine,
        "engine_version": package_version(engine),
        "load_1min": settings.load_1min,
        "variants": rows,
    }
