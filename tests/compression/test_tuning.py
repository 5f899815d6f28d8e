"""Tuning towards the original: it ends closer, and never further off than it began."""

import copy
import math

import pytest
import torch

from seg.compression import tuning
from seg.compression.tuning import tune, weighted_divergence
from seg.config import NetworkConfig, OptimizerConfig
from seg.networks import network_from_config


@torch.no_grad()
def _distance(net, other, images):
    """The mean divergence from the first network to the second, in nats a voxel."""
    pairs = [(net(image).log_softmax(1), other(image).log_softmax(1)) for image in images]
    return sum(float((p.exp() * (p - q)).sum(1).mean()) for p, q in pairs) / len(images)


CONFIG = NetworkConfig(channels=(4, 6), strides=((1, 1, 1), (2, 2, 2)), kernel_sizes=((3, 3, 3), (3, 3, 3)))


@pytest.fixture
def pair():
    torch.manual_seed(0)
    net = network_from_config(CONFIG, 1, 3).requires_grad_(False).eval()
    other = network_from_config(CONFIG, 1, 3).requires_grad_(False).eval()
    other.load_state_dict({name: value + 0.1 * torch.randn_like(value) for name, value in net.state_dict().items()})
    return net, other


@pytest.fixture
def beginnings(monkeypatch):
    """Learning rate, steps and weights of each beginning of a tuning."""
    found, prepare = [], tuning._begin

    def noted(network, optimizer, rate, steps):
        found.append((rate, steps, copy.deepcopy(network.state_dict())))
        return prepare(network, optimizer, rate, steps)

    monkeypatch.setattr(tuning, "_begin", noted)
    return found


def _images(count, seed):
    stream = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 1, 8, 8, 8, generator=stream) for _ in range(count)]


@pytest.mark.parametrize(
    "optimizer",
    [
        OptimizerConfig(name="adamw", learning_rate=0.004),
        OptimizerConfig(name="muon", learning_rate=0.004),
        OptimizerConfig(name="sgd", learning_rate=0.6),
    ],
    ids=lambda one: one.name,
)
@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.8, 0.2)])
def test_a_tuned_network_is_closer_on_images_that_it_did_not_see(pair, optimizer, weights):
    net, other = pair
    kept_back = _images(2, 1)
    before = _distance(net, other, kept_back)
    kept = tune(
        net,
        other,
        _images(60, 2),
        lambda n: _distance(net, n, kept_back),
        weights=torch.ones(2),
        optimizer=optimizer,
        steps=60,
    )
    assert kept in (25, 50, 60)
    assert _distance(net, other, kept_back) < 0.7 * before
    assert not any(parameter.requires_grad for parameter in other.parameters())


@pytest.mark.parametrize("worse", [None, math.nan])
def test_what_makes_a_network_worse_is_not_kept(pair, worse):
    net, other = pair
    kept_back = _images(2, 1)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    judged = iter([0.5])

    def judge(network):
        return _distance(net, network, kept_back) if worse is None else next(judged, worse)

    kept = tune(
        net,
        other,
        _images(5, 2),
        judge,
        weights=torch.ones(2),
        optimizer=OptimizerConfig(name="adamw", learning_rate=10.0),
        steps=5,
    )
    assert kept == 0
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_a_rate_that_improves_nothing_is_given_up_for_the_next(pair, beginnings):
    net, other = pair
    kept_back = _images(2, 1)
    before = _distance(net, other, kept_back)

    def judge(network):
        found = _distance(net, network, kept_back)
        return found if len(beginnings) == 2 else max(found, before)

    optimizer = OptimizerConfig(name="adamw", learning_rate=0.004)
    kept = tune(net, other, _images(200, 2), judge, weights=torch.ones(2), optimizer=optimizer, steps=200)
    # A third of 200 steps is over after 75, and a trial has 100 at least.
    (rate, steps, first), (lower, left, second) = beginnings
    assert (rate, steps, lower, left) == pytest.approx((0.002, 200, 0.0004, 100))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert 0 < kept <= 100
    assert _distance(net, other, kept_back) < before


def test_tuning_ends_where_no_rate_improves_anything(pair, beginnings):
    net, other = pair
    judged, asked = iter([0.5]), []

    def judge(network):
        asked.append(network)
        return next(judged, 1.0)

    optimizer = OptimizerConfig(name="adamw", learning_rate=0.004)
    assert tune(net, other, _images(600, 2), judge, weights=torch.ones(2), optimizer=optimizer, steps=600) == 0
    # A third of 600 steps is 200; of the 400 that are left 134, seen after 150; of 250 then 84, seen after 100.
    assert [(rate, steps) for rate, steps, _ in beginnings] == [
        (pytest.approx(0.002), 600),
        (pytest.approx(0.0004), 400),
        (pytest.approx(0.00008), 250),
    ]
    assert len(asked) == 1 + 450 // 25
    assert all(torch.equal(value, beginnings[0][2][name]) for name, value in other.state_dict().items())


@pytest.mark.parametrize(
    ("steps", "errors", "kept"), [(200, [4, 3, 5, 5, 5, 5, 5, 5, 5], 25), (100, [4, 5, 5, 5, 5], 0)]
)
def test_a_rate_that_improved_something_or_has_no_steps_left_is_not_given_up(pair, beginnings, steps, errors, kept):
    judged = iter(map(float, errors))
    optimizer = OptimizerConfig(name="adamw", learning_rate=0.004)
    assert (
        tune(*pair, _images(steps, 2), lambda _: next(judged), weights=torch.ones(2), optimizer=optimizer, steps=steps)
        == kept
    )
    assert len(beginnings) == 1


def test_progress_is_said_every_hundred_steps(pair, caplog):
    judged = iter(map(float, range(9, 0, -1)))
    with caplog.at_level("INFO", logger="seg"):
        tune(
            *pair,
            _images(200, 2),
            lambda _: next(judged),
            weights=torch.ones(2),
            optimizer=OptimizerConfig(name="adamw"),
            steps=200,
        )
    assert [record.args for record in caplog.records] == [(100, 200, 5.0, 9.0), (200, 200, 1.0, 9.0)]


def test_the_weighted_divergence_is_that_of_each_class_against_the_rest():
    stream = torch.Generator().manual_seed(0)
    wanted, logits = (3 * torch.randn(2, 4, 3, 4, 5, dtype=torch.float64, generator=stream) for _ in range(2))
    weights = torch.tensor([2.0, 0.5, 7.0])
    p, q = (torch.distributions.Bernoulli(one.softmax(1)[:, 1:]) for one in (wanted, logits))
    each = torch.distributions.kl_divergence(p, q).mean((0, 2, 3, 4))
    assert weighted_divergence(wanted, logits, weights).item() == pytest.approx((each * weights).sum().item())
    assert weighted_divergence(wanted, wanted + 5, weights).item() == pytest.approx(0, abs=1e-12)
