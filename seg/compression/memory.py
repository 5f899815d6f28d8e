"""Measures how much memory networks need to be loaded and run on one patch, each network in a process of its own."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from seg.benchmark.memory import PASSES, in_fresh_process
from seg.compression.speed import passes
from seg.hardware import PeakMemory, choose_device, held_mib
from seg.inference.engines import Engine, block_telemetry
from seg.networks.conv import Triple
from seg.runs import TrainedRun, read_run

LOG = logging.getLogger(__name__)
START = "import sys; sys.path[:] = sys.argv[1:]; from seg.compression.memory import serve; serve()"


def measure_memory(
    networks: Mapping[str, Path], run_dir: Path, *, engine: Engine, patch: Triple
) -> dict[str, float | None]:
    """Measures the peak memory, in MiB, of loading each network and running it twice on one patch.

    On a processor it is resident memory beyond that of a process with all imports, without pages of files; on a GPU it
    is that of tensors. A figure that is not known is None, which is announced.

    Args:
        networks: Run directories for torch, files for another engine, by the name of the network.
        run_dir: The original's run, which has the channels and, for torch, the device and the precision.
        engine: What runs them.
        patch: Size (X, Y, Z) of the patch in voxels.

    Returns:
        The figures by name. Between one call and another they differ by up to 2 MiB.
    """
    gpu = engine == "torch" and choose_device(read_run(run_dir).config.training.device).type == "cuda"
    if held_mib(gpu=gpu, files=False) is None or PeakMemory(gpu=gpu, files=False).mib() is None:
        LOG.warning("peak memory is not known: the system does not tell")
        return dict.fromkeys(networks)
    asked = {
        "networks": {name: str(path) for name, path in networks.items()},
        "run_dir": str(run_dir),
        "engine": engine,
        "patch": patch,
        "gpu": gpu,
        "threads": torch.get_num_threads(),
    }
    # A process of multiprocessing would run the caller's own script once more, where that has no guard.
    command = [sys.executable, "-c", START, *sys.path]
    try:
        done = subprocess.run(command, input=json.dumps(asked), stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout)
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        LOG.warning("peak memory is not known: %s", error)
        return dict.fromkeys(networks)
    for name, problem in found["problems"].items():
        LOG.warning("%s: peak memory is not known: %s", name, problem)
    return {name: found["mib"].get(name) for name in networks}


def serve() -> None:
    """Reads a request of `measure_memory` from stdin and writes the figures to stdout, as the main work of a process.

    The process imports what is needed once, and is forked for each network.
    """
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints is no answer
    asked = json.loads(sys.stdin.read())
    torch.set_num_threads(asked["threads"])
    block_telemetry()
    import_module(asked["engine"])
    context = multiprocessing.get_context("fork")
    original = read_run(Path(asked["run_dir"]))
    patches = replace(original.config.patches, size=tuple(asked["patch"]))
    original = replace(original, config=replace(original.config, patches=patches))
    found: dict[str, dict[str, Any]] = {"mib": {}, "problems": {}}
    for name, path in asked["networks"].items():
        call = (Path(path), original, asked["engine"], asked["gpu"])
        try:
            found["mib"][name] = in_fresh_process(peak_of_passes, *call, context=context)
        except ChildProcessError as error:
            found["problems"][name] = str(error)
    json.dump(found, answer)
    answer.close()


def peak_of_passes(path: Path, original: TrainedRun, engine: Engine, gpu: bool) -> float | None:
    """Measures by how much, in MiB, the memory of this process grows at most as a network is loaded and run twice.

    The process has to be a fresh one. None means that the system does not tell.
    """
    before, peak = held_mib(gpu=gpu, files=False), PeakMemory(gpu=gpu, files=False)
    network = read_run(path).network() if engine == "torch" else path
    channels = len(original.channel_names)
    with passes({"": network}, original.config, channels=channels, engine=engine) as (calls, runtime):
        for _ in range(PASSES):
            calls[""]()
        runtime.wait()
        most = peak.mib()
    return None if most is None or before is None else most - before
