"""One step of training, as training computes it, on noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from seg.config import ExperimentConfig
from seg.data.augmentation import augment
from seg.data.streams import Stream, torch_generator
from seg.inference.model import autocast
from seg.training.losses import build_loss
from seg.training.optim import build_optimizer


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where and how a network computes.

    Attributes:
        device: The device.
        precision: Arithmetic of the forward pass.
        memory_format: Layout of weights and images in memory.
    """

    device: torch.device
    precision: Literal["fp32", "bf16"]
    memory_format: torch.memory_format = torch.channels_last_3d

    def put(self, network: nn.Module) -> nn.Module:
        """Moves a network there."""
        return network.to(self.device, memory_format=self.memory_format)  # type: ignore[call-overload, no-any-return]

    def image(self, batch: int, channels: int, size: tuple[int, int, int]) -> Tensor:
        """Makes images (B, C, X, Y, Z) of noise there; always the same ones."""
        noise = torch.randn((batch, channels, *size), generator=torch.Generator().manual_seed(0))
        return noise.to(self.device).contiguous(memory_format=self.memory_format)

    def wait(self) -> None:
        """Returns once the device has nothing left to do."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class TrainingStep:
    """A call makes one step of the optimiser: forward passes, loss, backward passes, clipping, update.

    Images are noise of the training size, so no data are read; drawing patches from prepared cases takes next to
    nothing beside a step.

    Args:
        config: Batch, loss, optimiser, and augmentation.
        network: The network, in training mode on the place.
        num_classes: Classes, background included.
        channels: Channels of an image.
        place: Where to compute.
        augmented: Whether augmentation of the images is part of the step.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        network: nn.Module,
        *,
        channels: int,
        num_classes: int,
        place: Place,
        augmented: bool = False,
    ) -> None:
        self.config, self.network, self.place = config, network, place
        self.augmented = augmented
        self.loss = build_loss(config.loss, ignore_index=None)
        self.optimizer = build_optimizer(network, config.optimizer)
        self.image = place.image(config.patches.batch, channels, config.patches.size)
        shape = (config.patches.batch, 1, *config.patches.size)
        noise = torch.Generator().manual_seed(1)
        self.label = torch.randint(num_classes, shape, generator=noise).to(place.device)
        self._drawn = 0

    def __call__(self) -> None:
        """Makes a step."""
        accumulate = self.config.training.accumulate
        for _ in range(accumulate):
            (self._loss() / accumulate).backward()  # type: ignore[no-untyped-call]
        if self.config.optimizer.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.config.optimizer.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _loss(self) -> Tensor:
        image, label = self.image, self.label
        if self.augmented:
            stream = torch_generator(self.config.seed, Stream.AUGMENTATION, self._drawn)
            image, label = augment(image, label, self.config.augmentation, generator=stream)
            self._drawn += 1
        with autocast(self.place.device, self.place.precision):
            output = self.network(image.to(memory_format=self.place.memory_format))
            loss: Tensor = self.loss(output, label)
        return loss
