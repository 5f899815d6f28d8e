"""Speed, memory and size of several networks on one device, side by side in one process."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seg.benchmark.memory import measure_peaks
from seg.benchmark.prediction import FilePrediction
from seg.benchmark.roofline import ITEM_BYTES, Ceilings, count_work, floor, measure_ceilings
from seg.benchmark.subjects import Runtime, Subject, TrainingStep
from seg.benchmark.timing import Call, Timer, interleave, ratios, spread
from seg.config import Precision
from seg.config.study import SpeedConfig
from seg.errors import Problem, RunError
from seg.hardware import environment, load_1min
from seg.inference.model import Model
from seg.networks.conv import MEMORY_FORMATS

LOG = logging.getLogger(__name__)

CODE_VERSION = 5
"""Version of the code whose speed is measured, and of how it is measured: networks, kernels, loss, sweep, files.

Raise it with any change that alters times or memory. A study measures records of another version anew; those without a
version are of version 1. Version 2 has the kernels of its own, version 3 measures prediction before training,
version 4 leaves the code of libraries out of peak memory, version 5 has faster norms of narrow maps.
"""

PREDICTION_SHARE, LEAST_ROUNDS = 2, 3
"""Prediction, which goes over several cases, is timed in this part of the rounds, and in no fewer than these."""

LAYOUTS = {memory_format: name for name, memory_format in MEMORY_FORMATS.items()}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a measurement.

    Attributes:
        rounds: Timed rounds, >= 3, each network once in each.
        warmup: Untimed rounds before, >= 1.
        images: Files of each case that prediction is measured on; without any it is not measured.
        timer: Makes the timer of a device.
        load_1min: Load of the machine before all measurements, whose own load is none of theirs; None is not known.
    """

    rounds: int = SpeedConfig().rounds
    warmup: int = SpeedConfig().warmup
    images: Sequence[tuple[Path, ...]] = ()
    timer: Callable[[Runtime], Timer] = field(default=lambda runtime: Timer(wait=runtime.wait))
    load_1min: float | None = field(default_factory=load_1min)

    @property
    def prediction_rounds(self) -> int:
        """Timed rounds of prediction."""
        return max(LEAST_ROUNDS, self.rounds // PREDICTION_SHARE)


def present_devices() -> list[torch.device]:
    """Lists the devices to measure on: the first GPU of each kind, then the processor."""
    kinds: dict[str, torch.device] = {}
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        kinds.setdefault(torch.cuda.get_device_name(index), torch.device("cuda", index))
    return [*kinds.values(), torch.device("cpu")]


def measure_device(subjects: Sequence[Subject], device: torch.device, settings: Settings) -> dict[str, Any]:
    """Measures networks on one device.

    Args:
        subjects: The networks, the baseline first; all of one patch size and batch.
        device: The device.
        settings: How to measure.

    Returns:
        The entry of a device in ``speed.json`` and ``benchmark.json``.

    Raises:
        RunError: Memory of the GPU does not suffice, weights cannot be used, or a case cannot be predicted.
    """
    try:
        return _measure(subjects, device, settings)
    except torch.OutOfMemoryError as error:
        rule, remedy = "must have memory for the networks side by side", "compare fewer at once, or take --device cpu"
        raise RunError(Problem(f"{device}", "memory", rule, f"'{str(error).splitlines()[0]}'", remedy)) from error


def _measure(subjects: Sequence[Subject], device: torch.device, settings: Settings) -> dict[str, Any]:
    first = subjects[0]
    runtimes = {subject.name: subject.runtime(device) for subject in subjects}
    runtime = runtimes[first.name]
    about = describe(first, runtime, settings)
    LOG.info("speed: %d network(s) on %s, %s", len(subjects), about["device"], runtime.precision)
    peaks = {}
    for number, subject in enumerate(subjects, 1):
        LOG.info("speed: memory of %s (%d of %d)", subject.name, number, len(subjects))
        peaks[subject.name] = measure_peaks(subject, runtimes[subject.name])
    ceilings = {name: measure_ceilings(one) for name, one in {r.precision: r for r in runtimes.values()}.items()}
    networks = {subject.name: runtimes[subject.name].put(subject.network()) for subject in subjects}
    timed = partial(interleave, timer=settings.timer(runtime), rounds=settings.rounds, warmup=settings.warmup)
    patches = first.config.patches
    times = {
        "latency": timed(_forward_calls(subjects, runtimes, networks, 1), words="latency"),
        "throughput": timed(_forward_calls(subjects, runtimes, networks, patches.batch), words="throughput"),
        "prediction": {},
    }
    if settings.images:
        with tempfile.TemporaryDirectory() as folder:
            own = [subject for subject in subjects if subject.peer is None]
            calls = {
                one.name: FilePrediction(
                    one, networks[one.name], runtimes[one.name], settings.images, Path(folder) / str(index)
                )
                for index, one in enumerate(own)
            }
            times["prediction"] = timed(calls, words="prediction", rounds=settings.prediction_rounds, warmup=1)
    # Last, as training keeps freed memory and prediction does not.
    times["training_step"] = timed(_training_calls(subjects, runtimes), words="training step")
    voxels = {one.name: one.config.patches.batch * prod(one.config.patches.size) for one in subjects}
    rows = []
    for subject in subjects:
        name, network = subject.name, networks[subject.name]
        seconds = {measure: found.get(name) for measure, found in times.items()}
        row: dict[str, Any] = {
            "name": name,
            "precision": runtimes[name].precision,
            "memory_format": LAYOUTS[runtimes[name].memory_format],
            "engine": "torch",
            "kernels": "torch" if subject.stock else "seg",
            "weights": "initial" if subject.run_dir is None else "trained",
            "configuration": subject.fingerprint(),
            "latency_ms": _scaled(seconds["latency"], 1e3),
            "throughput_voxels_per_s": spread([voxels[name] / value for value in seconds["throughput"] or ()]),
            "training_step_ms": _scaled(seconds["training_step"], 1e3),
            "prediction_s": _scaled(seconds["prediction"], 1 / max(1, len(settings.images))),
            "peak_memory_inference_mib": peaks[name].inference_mib,
            "peak_memory_training_mib": peaks[name].training_mib,
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "macs": subject.macs(),
            "checkpoint_mib": subject.checkpoint_mib(network),
        }
        row |= _floors(subject, runtimes[name].precision, ceilings[runtimes[name].precision])
        for measure, taken in seconds.items():
            if taken is not None and measure == "throughput":  # by voxel, where patches differ
                taken = tuple(value * voxels[first.name] / voxels[name] for value in taken)
            row[f"{measure}_ratio"] = None if taken is None else ratios(times[measure][first.name], taken)
        rows.append(row)
    return {
        **about,
        "load_1min": settings.load_1min,
        "accumulate": first.config.training.accumulate,
        "prediction_rounds": settings.prediction_rounds if settings.images else 0,
        "prediction_cases": len(settings.images),
        "ceilings": {
            name: {"gflops": found.flops / 1e9, "gb_per_s": found.bytes / 1e9} for name, found in ceilings.items()
        },
        "variants": rows,
    }


def describe(baseline: Subject, runtime: Runtime, settings: Settings) -> dict[str, Any]:
    """Returns what the entry of every device and engine says of a measurement: machine, arithmetic, shapes, rounds."""
    about, patches = environment(runtime.device, runtime.precision), baseline.config.patches
    return {
        "device": about["device"],
        "kind": runtime.device.type,
        "threads": torch.get_num_threads(),
        "precision": runtime.precision,
        "memory_format": LAYOUTS[runtime.memory_format],
        "environment": about,
        "code_version": CODE_VERSION,
        "patch_size": list(patches.size),
        "batch": patches.batch,
        "rounds": settings.rounds,
        "warmup": settings.warmup,
        "baseline": baseline.name,
    }


def _floors(subject: Subject, precision: Precision, ceilings: Ceilings) -> dict[str, float]:
    """Returns the least time of a forward pass and of a training step, in ms."""
    network, patches = subject.on_meta(), subject.config.patches
    found: dict[str, float] = {}
    for measure, batch, training in (("latency", 1, False), ("training_step", patches.batch, True)):
        shape = (batch, subject.ends[0], *patches.size)
        least = floor(count_work(network, shape, ITEM_BYTES[precision], training=training), ceilings)
        passes = subject.config.training.accumulate if training else 1
        found[f"{measure}_floor_ms"] = 1e3 * passes * least.unfused_s
        found[f"{measure}_floor_fused_ms"] = 1e3 * passes * least.fused_s
    return found


def _forward_calls(
    subjects: Sequence[Subject], runtimes: Mapping[str, Runtime], networks: Mapping[str, nn.Module], batch: int
) -> dict[str, Call]:
    """Makes the calls that a window of prediction is: forward passes to logits in fp32."""
    calls: dict[str, Call] = {}
    for subject in subjects:
        runtime, size = runtimes[subject.name], subject.config.patches.size
        model = Model(network=networks[subject.name], window=size, device=runtime.device, precision=runtime.precision)
        calls[subject.name] = partial(model.logits, runtime.image(batch, subject.ends[0], size))
    return calls


def _training_calls(subjects: Sequence[Subject], runtimes: Mapping[str, Runtime]) -> dict[str, Call]:
    calls: dict[str, Call] = {}
    for subject in subjects:
        (channels, classes), runtime = subject.ends, runtimes[subject.name]
        network = runtime.put(subject.network(trained=False))
        calls[subject.name] = TrainingStep(
            subject.config, network, channels=channels, num_classes=classes, runtime=runtime
        )
    return calls


def _scaled(seconds: Sequence[float] | None, factor: float) -> dict[str, float] | None:
    """Returns the spread of times in another unit; None where there are none."""
    return None if seconds is None else spread([factor * value for value in seconds])
