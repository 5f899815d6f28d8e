"""A few timed training steps, from which the time of trials that nobody ran yet is predicted."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from seg.config import ExperimentConfig
from seg.data.augmentation import augment
from seg.data.streams import Stream, torch_generator
from seg.hardware import choose_device, choose_precision
from seg.losses import build_loss
from seg.networks.initialisation import initialise
from seg.optim import build_optimizer
from seg.weights import network_from_config

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
    precision = choose_precision(config.training.precision, device)
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        step = _Step(config, (in_channels, num_classes), device, bf16=precision == "bf16")
        times = [step.seconds(index) for index in range(WARMUP + TIMED)][WARMUP:]
        return StepTime(seconds=statistics.median(times), steps=TIMED, device=_name(device, precision))
    finally:
        torch.set_num_threads(before)


class _Step:
    def __init__(self, config: ExperimentConfig, ends: tuple[int, int], device: torch.device, *, bf16: bool) -> None:
        self.config = config
        self.device = device
        self.bf16 = bf16
        network = network_from_config(config.network, *ends)
        initialise(network, config.seed)
        self.network = network.to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.loss = build_loss(config.loss, ignore_index=None)
        self.optimizer = build_optimizer(self.network, config.optimizer)
        noise = torch.Generator().manual_seed(config.seed)
        shape = (config.patches.batch, ends[0], *config.patches.size)
        self.image = torch.randn(shape, generator=noise).to(device)
        self.label = torch.randint(ends[1], (shape[0], 1, *shape[2:]), generator=noise).to(device)

    def seconds(self, index: int) -> float:
        self._wait()
        start = time.perf_counter()
        for part in range(self.config.training.accumulate):
            self._loss(index * self.config.training.accumulate + part).backward()  # type: ignore[no-untyped-call]
        if self.config.optimizer.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.optimizer.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._wait()
        return time.perf_counter() - start

    def _loss(self, position: int) -> Tensor:
        stream = torch_generator(self.config.seed, Stream.AUGMENTATION, position)
        image, label = augment(self.image, self.label, self.config.augmentation, generator=stream)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            loss: Tensor = self.loss(self.network(image.to(memory_format=torch.channels_last_3d)), label)
        return loss

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _name(device: torch.device, precision: str) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {precision}"
    threads = torch.get_num_threads()
    return f"this processor with {threads} thread{'s' if threads > 1 else ''}, {precision}"
