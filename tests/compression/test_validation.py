"""What predictions are compared with: a network that is cut at one place, whose earlier layers run once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from seg.compression.calibration import narrowed_at
from seg.compression.sites import find_sites
from seg.config import NetworkConfig
from seg.networks import UNet
from tests.compression.validation import losses_of, remembered


@pytest.mark.parametrize(
    "options",
    [{}, {"residual": True}, {"merge": "add"}, {"upsample": "transposed"}, {"decoder_bottleneck": None}],
    ids=str,
)
@torch.no_grad()
def test_a_cut_behind_remembered_layers_gives_what_the_whole_network_gives(options: dict[str, Any]) -> None:
    stream = torch.Generator().manual_seed(0)
    config = NetworkConfig(
        channels=(8, 12, 16), strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)), kernel_sizes=((3, 3, 3),) * 3, **options
    )
    network = UNet(1, 3, config).eval()
    image = torch.randn(1, 1, 16, 16, 16, generator=stream)
    cuts = [
        (site, torch.randn(site.channels, generator=stream), torch.randn((site.channels,) * 2, generator=stream))
        for site in find_sites(network)
    ]
    whole, cut = network(image), []
    for one in cuts:
        with narrowed_at(network, *one):
            cut.append(network(image))
    with remembered(network) as recall_before:
        assert torch.equal(network(image), whole)
        for (site, mean, projection), wanted in zip(cuts, cut, strict=True):
            recall_before(site)
            with narrowed_at(network, site, mean, projection):
                assert torch.equal(network(image), wanted), site.name
            assert not torch.equal(wanted, whole), site.name
    assert torch.equal(network(image), whole)


@torch.no_grad()
def test_a_structure_that_a_cut_invents_is_lost_dice() -> None:
    config = NetworkConfig(channels=(4, 4), strides=((1, 1, 1), (2, 2, 2)), kernel_sizes=((3, 3, 3),) * 2)
    network = UNet(1, 3, config).eval()
    image, label = torch.zeros(1, 1, 4, 4, 4), torch.zeros(4, 4, 4, dtype=torch.long)
    network.heads[0].bias.copy_(torch.tensor([2.0, 1.0, 0.0]))  # all background where features are 0
    (site,) = [site for site in find_sites(network) if site.name == "decoder 0 second"]
    network.heads[0].weight[1] = 1
    mean = torch.full((site.channels,), 5.0)
    dice, _, _ = losses_of(network, [(site, mean, torch.zeros(site.channels, site.channels))], image, label, None)
    assert dice[0] == pytest.approx([1.0, np.nan], nan_ok=True)
