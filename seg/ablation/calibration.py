"""A few timed training steps, from which the time of trials that nobody ran yet is predicted."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch

from seg.benchmark.rounds import Rounds, Timer, interleave
from seg.benchmark.step import Place, TrainingStep
from seg.config import ExperimentConfig
from seg.hardware import choose_device, choose_precision
from seg.networks.build import network_from_config
from seg.networks.initialisation import initialise

WARMUP = 2
TIMED = 5


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Wall time of a training step.

    Attributes:
        seconds: Median over the timed steps, in s.
        steps: Timed steps.
        device: Where they were computed, with threads and precision.
    """

    seconds: float
    steps: int
    device: str


def time_step(config: ExperimentConfig, in_channels: int, num_classes: int, *, threads: int = 0) -> StepTime:
    """Times training steps of an experiment on this machine: augmentation, forward, backward and update.

    Patches are noise of the training size, so no data are read; drawing patches from prepared cases takes next to
    nothing beside a step and is left out, as is validation.

    Args:
        config: The experiment.
        in_channels: Channels of an image.
        num_classes: Classes, background included.
        threads: Threads of the numerical library meanwhile; 0 leaves its own choice.

    Raises:
        ConfigError: The device that the experiment asks for is not there.
    """
    device = choose_device(config.training.device)
    place = Place(device=device, precision=choose_precision(config.training.precision, device))
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        network = network_from_config(config.network, in_channels, num_classes)
        initialise(network, config.seed)
        step = TrainingStep(
            config, place.put(network), channels=in_channels, num_classes=num_classes, place=place, augmented=True
        )
        timer = Timer(wait=place.wait, clock=time.perf_counter, least_seconds=0)
        times = interleave({"step": step}, Rounds(timed=TIMED, warmup=WARMUP), timer)["step"]
        return StepTime(seconds=statistics.median(times), steps=TIMED, device=_name(device, place.precision))
    finally:
        torch.set_num_threads(before)


def _name(device: torch.device, precision: str) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {precision}"
    threads = torch.get_num_threads()
    return f"this processor with {threads} thread{'s' if threads > 1 else ''}, {precision}"
