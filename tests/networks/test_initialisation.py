from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from seg.config import BottleneckConfig, NetworkConfig
from seg.networks import UNet
from seg.networks.blocks import initialise

STAGES = {
    "channels": (4, 8, 16),
    "strides": ((1, 1, 1), (2, 2, 2), (2, 2, 2)),
    "kernel_sizes": ((3, 3, 3),) * 3,
}


def network(seed=0, **fields):
    net = UNet(1, 3, NetworkConfig(**STAGES, **fields))
    initialise(net, seed)
    return {name: parameter.detach().clone() for name, parameter in net.named_parameters()}


@pytest.fixture(scope="module")
def baseline():
    return network()


def test_weights_are_a_function_of_the_seed(baseline):
    torch.manual_seed(99)
    again = network()
    assert all(torch.equal(again[name], value) for name, value in baseline.items())
    other = network(seed=1)
    for name, value in baseline.items():
        assert torch.equal(other[name], value) == (value.ndim == 1)


def test_drawing_leaves_the_global_generator_alone():
    net = nn.Conv3d(1, 2, 3)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    initialise(net, 0)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    "fields",
    [
        {"skip_bottleneck": BottleneckConfig(ratio=0.25)},
        {"decoder_bottleneck": BottleneckConfig(ratio=0.5)},
        {"skip_bottleneck": BottleneckConfig(ratio=2.0, activation="relu", norm=True)},
        {"deep_supervision": True},
        {"merge": "add", "upsample": "linear"},
    ],
)
def test_variants_share_what_agrees_in_name_and_shape(baseline, fields):
    variant = network(**fields)
    shared = [name for name in baseline if name in variant and baseline[name].shape == variant[name].shape]
    assert sum(name.startswith("encoder") for name in shared) > 5
    assert all(torch.equal(baseline[name], variant[name]) for name in shared)


def test_parameters_of_equal_shape_differ(baseline):
    weights = [value for value in baseline.values() if value.ndim > 1]
    for i, one in enumerate(weights):
        assert not any(one.shape == two.shape and torch.equal(one, two) for two in weights[i + 1 :])


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [
        (nn.Conv3d(8, 64, 3), 8 * 27),
        (nn.Conv3d(64, 128, 1), 64),
        (nn.Conv3d(16, 32, (1, 3, 3)), 16 * 9),
        (nn.Linear(64, 128), 64),
    ],
)
def test_weights_follow_he(layer, fan_in):
    initialise(layer, 0)
    weight = layer.weight.detach().double()
    expected = math.sqrt(2 / ((1 + 0.01**2) * fan_in))
    count = weight.numel()
    # 4.5 standard errors of a standard deviation and of a mean of normal numbers.
    assert float(weight.std()) == pytest.approx(expected, rel=4.5 / math.sqrt(2 * count))
    assert abs(float(weight.mean())) < 4.5 * expected / math.sqrt(count)
    # A normal distribution has a kurtosis of 3 (standard error sqrt(24 / n)).
    kurtosis = float(((weight - weight.mean()) ** 4).mean() / weight.var() ** 2)
    assert abs(kurtosis - 3) < 4.5 * math.sqrt(24 / count)


def test_biases_are_zero_and_norms_keep_their_constants():
    net = nn.Sequential(nn.Conv3d(2, 4, 1), nn.InstanceNorm3d(4, affine=True), nn.PReLU())
    nn.init.constant_(net[0].bias, 5.0)
    initialise(net, 0)
    assert torch.equal(net[0].bias, torch.zeros(4))
    assert torch.equal(net[1].weight, torch.ones(4))
    assert torch.equal(net[1].bias, torch.zeros(4))
    assert float(net[2].weight.detach()) == 0.25
