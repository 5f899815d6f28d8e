"""Speed, memory and size of several networks on one device, side by side in one process."""

from __future__ import annotations

import logging
import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from seg.benchmark.memory import measure_peaks
from seg.benchmark.prediction import FilePrediction
from seg.benchmark.subjects import Runtime, Subject, TrainingStep
from seg.config.study import SpeedConfig
from seg.errors import Problem, RunError
from seg.hardware import environment, load_1min
from seg.inference.model import Model

LOG = logging.getLogger(__name__)

CODE_VERSION = 2
"""Version of the code whose speed is measured, and of how it is measured: networks, kernels, loss, sweep, files.

Raise it with any change that alters times or memory. A study measures records of another version anew; those without a
version are of version 1. Version 2 has the kernels of its own.
"""

LEAST_SECONDS = 0.02
"""A shorter call is repeated, so that neither the clock nor a cold cache makes up its time."""

PREDICTION_SHARE, LEAST_ROUNDS = 2, 3
"""Prediction, which goes over several cases, is timed in this part of the rounds, and in no fewer than these."""

LAYOUTS = {torch.channels_last_3d: "channels_last_3d", torch.contiguous_format: "contiguous"}

Call = Callable[[], object]
Times = dict[str, tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class Timer:
    """Measures how long a call takes.

    Attributes:
        wait: Returns once the device has nothing left to do.
        clock: Gives seconds.
        least_seconds: A call is repeated until so much has passed, and its time is the mean.
    """

    wait: Call = lambda: None
    clock: Callable[[], float] = time.perf_counter
    least_seconds: float = LEAST_SECONDS

    def seconds(self, call: Call) -> float:
        """Returns the seconds that a call takes, until the device is done."""
        self.wait()
        start = self.clock()
        count = 0
        while True:
            call()
            self.wait()
            count += 1
            passed = self.clock() - start
            if passed >= self.least_seconds:
                return passed / count


def interleave(calls: Mapping[str, Call], timer: Timer, *, rounds: int, warmup: int, words: str = "") -> Times:
    """Times several calls side by side: in every round each of them once, in an order drawn for the round.

    What changes with time, such as the clock of a processor that grows warm, meets all of them alike, and times of one
    round can be compared with one another. On a terminal a bar shows how far that is, elsewhere a line a round.

    Args:
        calls: The calls by name.
        timer: Takes the time.
        rounds: Rounds that count, >= 1.
        warmup: Rounds before, which do not count, >= 0.
        words: What the bar says.

    Returns:
        Seconds of each call by name, round by round.
    """
    from tqdm import tqdm

    times: dict[str, list[float]] = {name: [] for name in calls}
    visits = (rounds + warmup) * len(calls)
    with tqdm(total=visits, desc=words, unit="call", disable=None, leave=False) as bar:
        for index in range(warmup + rounds):
            order = list(calls)
            random.Random(f"0 {index}").shuffle(order)
            for name in order:
                seconds = timer.seconds(calls[name])
                if index >= warmup:
                    times[name].append(seconds)
                bar.update()
            if bar.disable:
                LOG.info("speed: %s, round %d of %d", words, index + 1, warmup + rounds)
    return {name: tuple(values) for name, values in times.items()}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Returns ``median`` and the quartiles ``q1`` and ``q3`` of values, interpolated linearly between two of them."""
    q1, median, q3 = np.percentile(np.asarray(values, dtype=np.float64), [25, 50, 75])
    return {"median": float(median), "q1": float(q1), "q3": float(q3)}


def ratios(baseline: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    """Returns the spread of the baseline's time over the other's in the same round: above 1 the other is faster."""
    return spread([first / second for first, second in zip(baseline, other, strict=True)])


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a measurement.

    Attributes:
        rounds: Timed rounds, >= 3, each network once in each.
        warmup: Untimed rounds before, >= 1.
        images: Files of each case that prediction is measured on; without any it is not measured.
        timer: Makes the timer of a device.
    """

    rounds: int = SpeedConfig().rounds
    warmup: int = SpeedConfig().warmup
    images: Sequence[tuple[Path, ...]] = ()
    timer: Callable[[Runtime], Timer] = field(default=lambda runtime: Timer(wait=runtime.wait))

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
    load, first = load_1min(), subjects[0]
    runtimes = {subject.name: subject.runtime(device) for subject in subjects}
    runtime = runtimes[first.name]
    about = environment(device, runtime.precision)
    LOG.info("speed: %d network(s) on %s, %s", len(subjects), about["device"], runtime.precision)
    peaks = {}
    for number, subject in enumerate(subjects, 1):
        LOG.info("speed: memory of %s (%d of %d)", subject.name, number, len(subjects))
        peaks[subject.name] = measure_peaks(subject, runtimes[subject.name])
    networks = {subject.name: runtimes[subject.name].put(subject.network()) for subject in subjects}
    timed = partial(interleave, timer=settings.timer(runtime), rounds=settings.rounds, warmup=settings.warmup)
    patches = first.config.patches
    times = {
        "latency": timed(_forward_calls(subjects, runtimes, networks, 1), words="latency"),
        "throughput": timed(_forward_calls(subjects, runtimes, networks, patches.batch), words="throughput"),
        "training_step": timed(_training_calls(subjects, runtimes), words="training step"),
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
    voxels = {one.name: one.config.patches.batch * prod(one.config.patches.size) for one in subjects}
    rows = []
    for subject in subjects:
        name, network = subject.name, networks[subject.name]
        seconds = {measure: found.get(name) for measure, found in times.items()}
        row = {
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
        for measure, taken in seconds.items():
            if taken is not None and measure == "throughput":  # by voxel, where patches differ
                taken = tuple(value * voxels[first.name] / voxels[name] for value in taken)
            row[f"{measure}_ratio"] = None if taken is None else ratios(times[measure][first.name], taken)
        rows.append(row)
    return {
        "device": about["device"],
        "kind": device.type,
        "threads": torch.get_num_threads(),
        "precision": runtime.precision,
        "memory_format": LAYOUTS[runtime.memory_format],
        "environment": about,
        "code_version": CODE_VERSION,
        "patch_size": list(patches.size),
        "batch": patches.batch,
        "accumulate": first.config.training.accumulate,
        "rounds": settings.rounds,
        "warmup": settings.warmup,
        "prediction_rounds": settings.prediction_rounds if settings.images else 0,
        "prediction_cases": len(settings.images),
        "load_1min": load,
        "baseline": first.name,
        "variants": rows,
    }


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
