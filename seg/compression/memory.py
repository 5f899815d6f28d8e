"""Peak memory of a pass of smaller networks and of the original, each in a fresh process of its own."""

from __future__ import annotations

import json
import logging
import multiprocessing
import subprocess
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from seg.benchmark.memory import PASSES, in_fresh_processes
from seg.compression.speed import passes
from seg.hardware import PeakMemory, choose_device, held_mib
from seg.inference.engines import Engine, block_telemetry
from seg.runs import TrainedRun, read_run

LOG = logging.getLogger(__name__)
START = "import sys; sys.path[:] = sys.argv[1:]; from seg.compression.memory import serve; serve()"


def measure_memory(networks: Mapping[str, Path], run_dir: Path, *, engine: Engine) -> dict[str, float | None]:
    """Measures the most memory over loading a network and two passes of one patch, in MiB.

    On a processor it is the resident memory of a process beyond that of its imports, on a GPU that of tensors. Where a
    process dies or the system does not tell, the figure is None, which is announced.

    Args:
        networks: Run directories for torch, files for another engine, by the name of the network.
        run_dir: The original's run, which has the patch, the channels and, for torch, the device and the precision.
        engine: What runs them.

    Returns:
        The figures by name. Between one call and another they differ by up to 2 MiB.
    """
    gpu = engine == "torch" and choose_device(read_run(run_dir).config.training.device).type == "cuda"
    if held_mib(gpu=gpu) is None:
        LOG.warning("peak memory is not known: the system does not tell")
        return dict.fromkeys(networks)
    asked = {
        "networks": {name: str(path) for name, path in networks.items()},
        "run_dir": str(run_dir),
        "engine": engine,
        "gpu": gpu,
        "threads": torch.get_num_threads(),
    }
    # A process of multiprocessing would run the caller's own script once more, where that has no guard.
    command = [sys.executable, "-c", START, *sys.path]
    done = subprocess.run(command, input=json.dumps(asked), stdout=subprocess.PIPE, text=True, check=False)
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}
    for name in networks:
        mib, problem = (found.get(name, {}).get(key) for key in ("mib", "problem"))
        if mib is None:
            LOG.warning("%s: peak memory is not known: %s", name, problem or "the process ended")
    return {name: found.get(name, {}).get("mib") for name in networks}


def serve() -> None:
    """Answers `measure_memory` in a process that has imported what is needed and is forked for each network."""
    asked = json.loads(sys.stdin.read())
    torch.set_num_threads(asked["threads"])
    block_telemetry()
    import_module(asked["engine"])  # its code is no memory of a network
    context = multiprocessing.get_context("fork")
    original = read_run(Path(asked["run_dir"]))
    found: dict[str, dict[str, Any]] = {}
    for name, path in asked["networks"].items():
        call = (Path(path), original, asked["engine"], asked["gpu"])
        try:
            (mib,) = in_fresh_processes(peak_of_passes, *call, context=context, count=1)
            found[name] = {"mib": mib}
        except ChildProcessError as error:
            found[name] = {"problem": str(error)}
    print(json.dumps(found))


def peak_of_passes(path: Path, original: TrainedRun, engine: Engine, gpu: bool) -> float | None:
    """Measures in this process, which has to be a fresh one, as `measure_memory` does."""
    before, peak = held_mib(gpu=gpu), PeakMemory(gpu=gpu)
    network = read_run(path).network() if engine == "torch" else path
    channels = len(original.channel_names)
    with passes({"": network}, original.config, channels=channels, engine=engine) as (calls, runtime):
        for _ in range(PASSES):
            calls[""]()
        runtime.wait()
        most = peak.mib()
    return None if most is None or before is None else most - before
