"""Speed, memory and size of several networks on one device, side by side in one process."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from math import prod
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from seg.benchmark.memory import measure_peaks
from seg.benchmark.prediction import FilePrediction
from seg.benchmark.rounds import Call, Rounds, Timer, interleave, ratios, spread
from seg.benchmark.step import Place, TrainingStep
from seg.benchmark.subjects import Subject
from seg.errors import RunError
from seg.hardware import choose_precision, environment
from seg.inference.model import Model

LOG = logging.getLogger(__name__)
PREDICTION_SHARE = 2
LEAST_ROUNDS = 3
LAYOUTS = {torch.channels_last_3d: "channels_last_3d", torch.contiguous_format: "contiguous"}
Times = Mapping[str, Sequence[float]]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to measure.

    Attributes:
        rounds: Timed rounds, >= 3, each network once in each.
        warmup: Untimed rounds before, >= 1.
        images: Files of each case that prediction is measured on; without any it is not measured.
        seed: Seed of the order within rounds.
        timer: Makes the timer of a device.
    """

    rounds: int = 15
    warmup: int = 3
    images: Sequence[tuple[Path, ...]] = ()
    seed: int = 0
    timer: Callable[[Place], Timer] = field(default=lambda place: Timer(wait=place.wait))

    @property
    def prediction_rounds(self) -> int:
        """Timed rounds of prediction: half of them, as each goes over several cases."""
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
        What ``speed.json`` and ``benchmark.json`` say of a device.

    Raises:
        RunError: Memory of the GPU does not suffice, weights cannot be used, or a case cannot be predicted.
    """
    load = os.getloadavg()[0]
    try:
        return _Measurement(subjects, device, settings).record(load)
    except torch.OutOfMemoryError as error:
        raise RunError(
            f"{device}: memory must suffice for the networks side by side, got '{str(error).splitlines()[0]}'; compare "
            "fewer at once, or measure with --device cpu."
        ) from error


def place_of(subject: Subject, device: torch.device) -> Place:
    """Says where and how a subject computes: peers in torch's own layout, as MONAI runs them."""
    layout = torch.channels_last_3d if subject.peer is None else torch.contiguous_format
    precision = _precision(subject.precision or subject.config.training.precision, device)
    return Place(device=device, precision=precision, memory_format=layout)


@cache
def _precision(wanted: Literal["auto", "fp32", "bf16"], device: torch.device) -> Literal["fp32", "bf16"]:
    """Chooses once for a device, and so announces it once."""
    return choose_precision(wanted, device)


class _Measurement:
    def __init__(self, subjects: Sequence[Subject], device: torch.device, settings: Settings) -> None:
        self.subjects, self.settings = subjects, settings
        self.places = {subject.name: place_of(subject, device) for subject in subjects}
        self.first = subjects[0]
        self.networks: dict[str, nn.Module] = {}

    def record(self, load: float) -> dict[str, Any]:
        first, place, settings = self.first, self.places[self.first.name], self.settings
        about = environment(place.device, place.precision)
        LOG.info("speed: %d network(s) on %s, %s", len(self.subjects), about["device"], place.precision)
        peaks = {subject.name: measure_peaks(subject, self.places[subject.name]) for subject in self.subjects}
        self.networks = {s.name: self.places[s.name].put(s.network()) for s in self.subjects}
        latency = self._time("latency", partial(self._forward, 1))
        batch = self._time("throughput", partial(self._forward, first.config.patches.batch))
        training = self._time("training step", self._training)
        prediction = self._time_prediction()
        rows = []
        for subject in self.subjects:
            peak = peaks[subject.name]
            own = {
                "name": subject.name,
                "precision": self.places[subject.name].precision,
                "memory_format": LAYOUTS[self.places[subject.name].memory_format],
                "weights": "initial" if subject.run_dir is None else "trained",
                "configuration": subject.fingerprint(),
                "latency_ms": _scaled(latency, subject, 1e3),
                "throughput_voxels_per_s": self._throughput(batch[subject.name]),
                "training_step_ms": _scaled(training, subject, 1e3),
                "prediction_s": _scaled(prediction, subject, 1 / max(1, len(settings.images))),
                "peak_memory_inference_mib": peak.inference_mib,
                "peak_memory_training_mib": peak.training_mib,
                "parameters": sum(parameter.numel() for parameter in self.networks[subject.name].parameters()),
                "macs": subject.macs(),
                "checkpoint_mib": subject.checkpoint_mib(self.networks[subject.name]),
            }
            named = {"latency": latency, "throughput": batch, "training_step": training, "prediction": prediction}
            own |= {f"{name}_ratio": self._ratio(times, subject) for name, times in named.items()}
            rows.append(own)
        return {
            "device": about["device"],
            "kind": place.device.type,
            "threads": torch.get_num_threads(),
            "precision": place.precision,
            "memory_format": LAYOUTS[place.memory_format],
            "environment": about,
            "patch_size": list(first.config.patches.size),
            "batch": first.config.patches.batch,
            "accumulate": first.config.training.accumulate,
            "rounds": settings.rounds,
            "warmup": settings.warmup,
            "prediction_rounds": settings.prediction_rounds if settings.images else 0,
            "prediction_cases": len(settings.images),
            "load_1min": load,
            "baseline": first.name,
            "variants": rows,
        }

    def _time(self, what: str, make: Callable[[Subject], Call]) -> dict[str, tuple[float, ...]]:
        calls = {subject.name: make(subject) for subject in self.subjects}
        rounds = Rounds(timed=self.settings.rounds, warmup=self.settings.warmup, seed=self.settings.seed)
        return self._run(what, calls, rounds)

    def _run(self, what: str, calls: Mapping[str, Call], rounds: Rounds) -> dict[str, tuple[float, ...]]:
        from tqdm import tqdm

        timer = self.settings.timer(self.places[self.first.name])
        visits = (rounds.timed + rounds.warmup) * len(calls)
        with tqdm(total=visits, desc=what, unit="visit", disable=None, leave=False) as bar:
            return interleave(calls, rounds, timer, bar.update)

    def _forward(self, batch: int, subject: Subject) -> Call:
        """Makes the call that a window of prediction is: a forward pass to logits in fp32."""
        place, size = self.places[subject.name], subject.config.patches.size
        model = Model(network=self.networks[subject.name], window=size, device=place.device, precision=place.precision)
        return partial(model.logits, place.image(batch, subject.ends[0], size))

    def _training(self, subject: Subject) -> Call:
        channels, classes = subject.ends
        place = self.places[subject.name]
        network = place.put(subject.network(trained=False))
        return TrainingStep(subject.config, network, channels=channels, num_classes=classes, place=place)

    def _time_prediction(self) -> dict[str, tuple[float, ...]]:
        own = [subject for subject in self.subjects if subject.peer is None]
        if not self.settings.images:
            return {}
        with tempfile.TemporaryDirectory() as folder:
            calls = {
                subject.name: FilePrediction(
                    subject,
                    self.networks[subject.name],
                    self.places[subject.name],
                    self.settings.images,
                    Path(folder) / str(index),
                )
                for index, subject in enumerate(own)
            }
            rounds = Rounds(timed=self.settings.prediction_rounds, warmup=1, seed=self.settings.seed)
            return self._run("prediction", calls, rounds)

    def _throughput(self, seconds: Sequence[float]) -> dict[str, float]:
        patches = self.first.config.patches
        voxels = patches.batch * prod(patches.size)
        return spread([voxels / value for value in seconds])

    def _ratio(self, times: Times, subject: Subject) -> dict[str, float] | None:
        if subject.name not in times:
            return None
        return ratios(times[self.first.name], times[subject.name])


def _scaled(times: Times, subject: Subject, factor: float) -> dict[str, float] | None:
    """Returns the spread of times in another unit; None where there are none."""
    return spread([factor * value for value in times[subject.name]]) if subject.name in times else None
