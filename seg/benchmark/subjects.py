"""What is measured: a network of an experiment, with or without trained weights, or a peer in its place."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from seg.benchmark.peers import PEERS, Peer, build_peer, count_macs, peer_problem
from seg.config import ExperimentConfig
from seg.networks.build import network_arguments, network_from_config
from seg.networks.complexity import complexity
from seg.networks.initialisation import initialise
from seg.runs import trained_network, weights_bytes

if TYPE_CHECKING:
    from torch import nn

MIB = 2**20


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
    """

    name: str
    config: ExperimentConfig
    channel_names: tuple[str, ...]
    class_names: tuple[str, ...]
    run_dir: Path | None = None
    peer: Peer | None = None
    precision: Literal["fp32"] | None = None

    @property
    def ends(self) -> tuple[int, int]:
        """Channels of the image, and classes."""
        return len(self.channel_names), len(self.class_names)

    def network(self, *, trained: bool = True) -> nn.Module:
        """Builds the network on the processor.

        Args:
            trained: Whether it has the weights of its run, where it has one, and is in evaluation mode; else it has
                initial ones and is in training mode.

        Raises:
            RunError: The run's weights cannot be used.
        """
        if self.peer is not None:
            built = build_peer(self.peer, self.config.network, *self.ends)
        elif trained and self.run_dir is not None:
            return trained_network(self.config.network, *self.ends, self.run_dir)
        else:
            built = network_from_config(self.config.network, *self.ends)
            initialise(built, self.config.seed)
        return built.requires_grad_(not trained).train(not trained)

    def checkpoint_mib(self, network: nn.Module) -> float:
        """Returns the size of the file of final weights of its network, in MiB."""
        return len(weights_bytes(network, channel_names=self.channel_names, class_names=self.class_names)) / MIB

    def macs(self) -> int:
        """Counts multiply-accumulates of convolutions for one image of the patch size."""
        size = self.config.patches.size
        if self.peer is None:
            return complexity(*self.ends, shape=size, **network_arguments(self.config.network)).macs
        import torch

        with torch.device("meta"):
            built = build_peer(self.peer, self.config.network, *self.ends)
        return count_macs(built, (1, self.ends[0], *size))

    def fingerprint(self) -> str:
        """Returns a digest of all that its speed depends on beside machine and code."""
        config = asdict(self.config)
        parts = {
            "ends": self.ends,
            "peer": self.peer,
            "precision": self.precision or self.config.training.precision,
            "accumulate": self.config.training.accumulate,
            "size": self.config.patches.size,
            "batch": self.config.patches.batch,
            "spacing_mm": self.config.data.spacing_mm,
            **{name: config[name] for name in ("network", "loss", "optimizer", "inference", "postprocessing")},
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def with_peers(subject: Subject) -> tuple[list[Subject], list[str]]:
    """Gives the peers of a subject, in its precision and in fp32, and says which are left out and why."""
    found: list[Subject] = []
    left_out: list[str] = []
    for peer in PEERS:
        problem = peer_problem(peer, subject.config)
        if problem is not None:
            left_out.append(problem)
            continue
        own = replace(subject, name=peer, run_dir=None, peer=peer)
        found += [own, replace(own, name=f"{peer} fp32", precision="fp32")]
    return found, left_out
