"""Cost of a step against published figures and what torch counts."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from seg.config import BottleneckConfig, NetworkConfig
from seg.networks.unet import UNet
from seg.training.cost import step_cost


@pytest.mark.parametrize(
    ("bottlenecks", "gmac", "millions"),
    [({}, 19.14, 5.60), ({"skip_bottleneck": 0.25, "decoder_bottleneck": 0.5}, 7.44, 4.03)],
)
def test_cost_of_known_networks(bottlenecks, gmac, millions):
    network = NetworkConfig(
        channels=(32, 64, 128, 256), **{name: BottleneckConfig(ratio=ratio) for name, ratio in bottlenecks.items()}
    )
    cost = step_cost(network, (40, 56, 40), 1, 1, 3)
    assert cost.gmac == pytest.approx(gmac, abs=0.005)
    assert cost.parameters / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize("upsample", ["transposed", "linear"])
@pytest.mark.parametrize("plain", [True, False])
def test_cost_is_what_torch_counts(plain, upsample):
    config = NetworkConfig(
        channels=(16, 32, 64),
        strides=((1, 1, 1), (2, 2, 1), (2, 2, 2)),
        kernel_sizes=((3, 3, 1), (3, 3, 3), (3, 3, 3)),
        skip_bottleneck=None if plain else BottleneckConfig(ratio=(0.25, 0.5)),
        decoder_bottleneck=None if plain else BottleneckConfig(ratio=0.5),
        upsample=upsample,
    )
    network = UNet(2, 4, config)
    cost = step_cost(config, (32, 32, 8), 2, 2, 4)
    assert cost.parameters == sum(weight.numel() for weight in network.parameters())
    kept: dict[int, int] = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    weights = {weight.untyped_storage().data_ptr() for weight in network.parameters()}
    counter = FlopCounterMode(display=False)
    with counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = network(torch.zeros(2, 2, 32, 32, 8))
    held = sum(size for pointer, size in kept.items() if pointer not in weights)
    assert output.shape == (2, 4, 32, 32, 8)
    assert counter.get_total_flops() == pytest.approx(2e9 * cost.gmac, rel=1e-6)
    assert held == pytest.approx(4 * cost.activations, rel=0.15)


def test_bf16_takes_less_memory_than_fp32():
    cost = step_cost(NetworkConfig(), (64, 64, 64), 2, 1, 3)
    assert 1 < cost.memory_gib("bf16") < cost.memory_gib("fp32")


def test_a_patch_that_strides_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="divisible"):
        step_cost(NetworkConfig(), (9, 8, 8), 1, 1, 3)
