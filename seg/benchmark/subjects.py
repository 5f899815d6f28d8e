"""The networks that are measured, where and how they compute, and one step of their training."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from seg.benchmark.peers import PEERS, Peer, build_peer, count_macs, peer_problem
from seg.config import ExperimentConfig, Precision, PrecisionName
from seg.config.loading import comparable, content_digest
from seg.data.augmentation import augment
from seg.data.streams import Stream, torch_generator
from seg.hardware import MIB, choose_precision, keep_heap
from seg.inference.memory import memory_format_on
from seg.inference.model import autocast
from seg.networks import network_from_config
from seg.networks.blocks import initialise
from seg.networks.complexity import complexity
from seg.networks.conv import use_fast_kernels
from seg.runs import TrainedRun, weights_bytes
from seg.training.losses import build_loss
from seg.training.optim import build_optimizer

LOG = logging.getLogger(__name__)
NEWER_FIELDS = {"loss": ("class_weights", "focal_gamma", "top_k"), "network": ("widths",)}
"""Fields that are newer than the digests of published studies, which hold where these have their defaults."""


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Where and how a network computes.

    Attributes:
        device: The device.
        precision: Arithmetic of the forward pass.
        memory_format: Layout of weights and images in memory.
    """

    device: torch.device
    precision: Precision
    memory_format: torch.memory_format = torch.channels_last_3d

    def put(self, network: nn.Module) -> nn.Module:
        """Moves a network to the device, in this memory format."""
        return network.to(self.device, memory_format=self.memory_format)  # type: ignore[call-overload, no-any-return]

    def image(self, batch: int, channels: int, size: tuple[int, int, int]) -> Tensor:
        """Makes images (B, C, X, Y, Z) of noise on the device; always the same images."""
        noise = torch.randn((batch, channels, *size), generator=torch.Generator().manual_seed(0))
        return noise.to(self.device).contiguous(memory_format=self.memory_format)

    def wait(self) -> None:
        """Returns once the device has nothing left to do."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()


class TrainingStep:
    """Takes one step of training at each call: forward passes, loss, backward passes, clipping, update.

    Images are noise of the training size, so no data are read, unless a call is given batches.

    On a processor this process keeps freed memory from then on, as training does, and prediction does not.

    Args:
        config: Batch, loss, optimiser, and augmentation.
        network: The network, in training mode where it computes.
        channels: Channels of an image.
        num_classes: Classes, background included.
        runtime: Where to compute.
        augmented: Whether augmentation of the noise is part of the step.
        ignore_index: Label of voxels without a known class, in batches that are given.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        network: nn.Module,
        *,
        channels: int,
        num_classes: int,
        runtime: Runtime,
        augmented: bool = False,
        ignore_index: int | None = None,
    ) -> None:
        self.config, self.network, self.runtime = config, network, runtime
        self.augmented = augmented
        self.loss = build_loss(config.loss, ignore_index=ignore_index)
        self.optimizer = build_optimizer(network, config.optimizer)
        self.image = runtime.image(config.patches.batch, channels, config.patches.size)
        shape = (config.patches.batch, 1, *config.patches.size)
        noise = torch.Generator().manual_seed(1)
        self.label = torch.randint(num_classes, shape, generator=noise).to(runtime.device)
        self._drawn = 0
        if runtime.device.type == "cpu":
            keep_heap()

    def __call__(self, batches: Iterator[tuple[Tensor, Tensor]] | None = None) -> None:
        """Takes one step of training, on noise or on the next of some batches.

        Args:
            batches: Images f32 (B, C, X, Y, Z) and labels i64 (B, 1, X, Y, Z) on the device, augmented where that is
                wanted, one pair for each batch that is accumulated.
        """
        accumulate = self.config.training.accumulate
        for _ in range(accumulate):
            image, label = self._noise() if batches is None else next(batches)
            (self._loss(image, label) / accumulate).backward()  # type: ignore[no-untyped-call]
        if self.config.optimizer.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.config.optimizer.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _noise(self) -> tuple[Tensor, Tensor]:
        if not self.augmented:
            return self.image, self.label
        stream = torch_generator(self.config.seed, Stream.AUGMENTATION, self._drawn)
        self._drawn += 1
        return augment(self.image, self.label, self.config.augmentation, generator=stream)

    def _loss(self, image: Tensor, label: Tensor) -> Tensor:
        with autocast(self.runtime.device, self.runtime.precision):
            output = self.network(image.to(memory_format=self.runtime.memory_format))
            loss: Tensor = self.loss(output, label)
        return loss


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network to measure.

    Attributes:
        name: Its name among those that are compared.
        config: Its experiment.
        channel_names: Channels of its images.
        class_names: Classes, the background first.
        run_dir: Finished run whose weights it has; None draws initial ones, which are as fast.
        peer: The network of MONAI that stands in its place; None is its own.
        precision: Arithmetic of the forward pass; None is that of its training.
        stock: Whether the kernels are those that torch takes by itself, as the users of a peer run it.
    """

    name: str
    config: ExperimentConfig
    channel_names: tuple[str, ...]
    class_names: tuple[str, ...]
    run_dir: Path | None = None
    peer: Peer | None = None
    precision: Literal["fp32"] | None = None
    stock: bool = False

    @property
    def ends(self) -> tuple[int, int]:
        """Channels of the image, and classes."""
        return len(self.channel_names), len(self.class_names)

    @property
    def run(self) -> TrainedRun:
        """The run that predictions take weights and settings from; its path is empty where nothing was trained."""
        return TrainedRun(
            path=self.run_dir or Path(),
            config=self.config,
            channel_names=self.channel_names,
            class_names=self.class_names,
        )

    def runtime(self, device: torch.device) -> Runtime:
        """Returns where and how the network computes, as its experiment says; peers in torch's own layout."""
        own = memory_format_on(device, self.config.training.memory_format)
        layout = own if self.peer is None else torch.contiguous_format
        precision = _precision(self.precision or self.config.training.precision, device)
        return Runtime(device=device, precision=precision, memory_format=layout)

    def network(self, *, trained: bool = True) -> nn.Module:
        """Builds the network on the processor, in evaluation mode with the weights of its run, where it has one.

        With ``trained`` off it has initial weights and is in training mode.

        Raises:
            RunError: The run's weights cannot be used.
        """
        if self.peer is not None:
            built = build_peer(self.peer, self.config.network, *self.ends)
            if not self.stock:
                use_fast_kernels(built)
        elif trained and self.run_dir is not None:
            return self.run.network()
        else:
            built = network_from_config(self.config.network, *self.ends)
            initialise(built, self.config.seed)
        return built.requires_grad_(not trained).train(not trained)

    def checkpoint_mib(self, network: nn.Module) -> float:
        """Returns the size of the file of the network's weights, in MiB."""
        return len(weights_bytes(network, channel_names=self.channel_names, class_names=self.class_names)) / MIB

    def on_meta(self) -> nn.Module:
        """Builds the network on the device ``meta``, where nothing is computed."""
        with torch.device("meta"):
            if self.peer is not None:
                return build_peer(self.peer, self.config.network, *self.ends)
            return network_from_config(self.config.network, *self.ends)

    def macs(self) -> int:
        """Counts multiply-accumulates of convolutions for one image of the patch size."""
        size = self.config.patches.size
        if self.peer is None:
            return complexity(*self.ends, self.config.network, shape=size).macs
        return count_macs(self.on_meta(), (1, self.ends[0], *size))

    def fingerprint(self) -> str:
        """Returns a digest of all that the network's speed depends on, beside machine and code."""
        config = asdict(comparable(self.config))
        for section, names in NEWER_FIELDS.items():
            plain = asdict(getattr(ExperimentConfig(), section))
            config[section] = {k: v for k, v in config[section].items() if k not in names or v != plain[k]}
        layout = self.config.training.memory_format
        parts = {
            "ends": self.ends,
            "peer": self.peer,
            "precision": self.precision or self.config.training.precision,
            "accumulate": self.config.training.accumulate,
            "size": self.config.patches.size,
            "batch": self.config.patches.batch,
            "spacing_mm": self.config.data.spacing_mm,
            "network": {"name": "unet", **config["network"]},  # the name that networks had in published studies
            **{name: config[name] for name in ("loss", "optimizer", "inference", "postprocessing")},
            **({"stock": True} if self.stock else {}),
            **({} if layout == "channels_last_3d" else {"memory_format": layout}),
        }
        return content_digest(parts)


@cache
def _precision(wanted: PrecisionName, device: torch.device) -> Precision:
    """Chooses the precision once for a device, and so logs it once."""
    return choose_precision(wanted, device)


def with_peers(subject: Subject) -> list[Subject]:
    """Returns the peers of a network; one that cannot be built is named in a warning.

    Each comes in the network's precision and in fp32 with the package's kernels, and in fp32 as its users run it.
    """
    found: list[Subject] = []
    for peer in PEERS:
        if (problem := peer_problem(peer, subject.config)) is not None:
            LOG.warning("%s", problem)
            continue
        own = replace(subject, name=peer, run_dir=None, peer=peer)
        plain = replace(own, name=f"{peer} fp32", precision="fp32")
        found += [own, plain, replace(plain, name=f"{peer} as shipped", stock=True)]
    return found
