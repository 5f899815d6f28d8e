from __future__ import annotations

import copy
from math import cos, pi

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, PolynomialLR

from seg.config import OptimizerConfig
from seg.training.optim import build_optimizer, build_schedule, rate_factor

TOTAL = 40


def tiny_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(1, 2, 1), nn.InstanceNorm3d(2, affine=True), nn.Conv3d(2, 2, 1, bias=False))


def rates(config, count=TOTAL):
    """Learning rates that torch applies, step by step."""
    optimizer = build_optimizer(tiny_network(), config)
    schedule = build_schedule(optimizer, config, TOTAL)
    found = []
    for _ in range(count):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    assert all(len(set(row)) == 1 for row in found)
    return [row[0] for row in found]


@pytest.mark.parametrize(
    ("name", "decay"),
    [
        ("cosine", lambda x: (1 + cos(pi * x)) / 2),
        ("linear", lambda x: 1 - x),
        ("poly", lambda x: (1 - x) ** 0.9),
        ("constant", lambda x: 1.0),
    ],
)
@pytest.mark.parametrize("warmup", [0, 10])
def test_schedules_are_their_closed_forms(name, decay, warmup):
    config = OptimizerConfig(learning_rate=0.5, schedule=name, warmup_steps=warmup)
    ramp = [(step + 1) / (warmup + 1) for step in range(warmup)]
    expected = ramp + [decay(step / (TOTAL - warmup)) for step in range(TOTAL - warmup)]
    assert rates(config) == pytest.approx([0.5 * value for value in expected])


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("cosine", lambda optimizer: CosineAnnealingLR(optimizer, TOTAL)),
        ("linear", lambda optimizer: LinearLR(optimizer, 1.0, 0.0, TOTAL)),
        ("poly", lambda optimizer: PolynomialLR(optimizer, TOTAL, power=0.9)),
    ],
)
def test_schedules_without_warmup_are_those_of_torch(name, build):
    config = OptimizerConfig(learning_rate=0.1, schedule=name, warmup_steps=0)
    optimizer = build_optimizer(tiny_network(), config)
    schedule, expected = build(optimizer), []
    for _ in range(TOTAL):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates(config) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", ["cosine", "linear", "poly"])
def test_the_rate_ends_at_zero_and_stays_there(name):
    config = OptimizerConfig(schedule=name, warmup_steps=5)
    assert rate_factor(TOTAL, config, TOTAL) == pytest.approx(0)
    assert rate_factor(TOTAL + 3, config, TOTAL) == pytest.approx(0)
    assert rate_factor(5, config, TOTAL) == 1


def test_norms_and_biases_are_not_decayed():
    network = tiny_network()
    optimizer = build_optimizer(network, OptimizerConfig(weight_decay=0.3))
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    found = {name: decays[id(parameter)] for name, parameter in network.named_parameters()}
    assert found == {"0.weight": 0.3, "0.bias": 0, "1.weight": 0, "1.bias": 0, "2.weight": 0.3}


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_frozen_parameters_are_left_out(name):
    network = tiny_network()
    network[0].requires_grad_(False)
    optimizer = build_optimizer(network, OptimizerConfig(name=name))
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 3


@pytest.mark.parametrize(
    ("config", "build"),
    [
        (
            OptimizerConfig(name="adamw", learning_rate=0.1, weight_decay=0.2, momentum=0.8),
            lambda groups: torch.optim.AdamW(groups, lr=0.1, betas=(0.8, 0.999)),
        ),
        (
            OptimizerConfig(name="sgd", learning_rate=0.1, weight_decay=0.2, momentum=0.9),
            lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True),
        ),
        (
            OptimizerConfig(name="sgd", learning_rate=0.1, weight_decay=0.2, momentum=0.0),
            lambda groups: torch.optim.SGD(groups, lr=0.1),
        ),
    ],
)
def test_steps_are_those_of_torch(config, build):
    network = tiny_network()
    other = copy.deepcopy(network)
    optimizer = build_optimizer(network, config)
    weights = [other[0].weight, other[2].weight]
    rest = [other[0].bias, other[1].weight, other[1].bias]
    expected = build([{"params": weights, "weight_decay": 0.2}, {"params": rest, "weight_decay": 0.0}])
    image = torch.randn(2, 1, 3, 3, 3)
    for _ in range(4):
        for net, opt in ((network, optimizer), (other, expected)):
            opt.zero_grad()
            net(image).square().mean().backward()
            opt.step()
    for one, two in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two)


def test_adamw_decays_weights_apart_from_the_gradient():
    network = nn.Conv3d(1, 1, 1)
    weight, bias = network.weight.item(), network.bias.item()
    optimizer = build_optimizer(network, OptimizerConfig(learning_rate=0.1, weight_decay=0.5))
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert network.weight.item() == pytest.approx(weight * (1 - 0.1 * 0.5))
    assert network.bias.item() == bias
