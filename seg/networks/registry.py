"""Names of the networks that a configuration can ask for."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from seg.networks.unet import UNet

NETWORKS: dict[str, Callable[..., nn.Module]] = {"unet": UNet}


def get_network(name: str) -> Callable[..., nn.Module]:
    """Return the constructor registered under `name`.

    Raises:
        ValueError: If there is none; the message lists the names there are.
    """
    if name not in NETWORKS:
        raise ValueError(f"Unknown network {name!r}. Available: {', '.join(sorted(NETWORKS))}.")
    return NETWORKS[name]
