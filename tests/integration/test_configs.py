"""Every configuration in the project is complete: it loads, its network computes, and its loss falls into place."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from seg.config import load_config
from seg.networks import network_from_config
from seg.training.losses import build_loss

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_configuration_takes_a_step(path: Path) -> None:
    config = load_config([path])
    network = network_from_config(config.network, 1, 3)
    totals = [1, 1, 1]
    for stride in config.network.strides:
        totals = [total * step for total, step in zip(totals, stride, strict=True)]
    image = torch.randn(1, 1, *(2 * total for total in totals))
    label = torch.randint(0, 3, image.shape)
    loss = build_loss(config.loss, ignore_index=None)(network(image), label)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(parameter.grad is not None for parameter in network.parameters())
