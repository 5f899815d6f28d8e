"""Maps with fewer channels: exact where channels depend on others, counted as built, predicted as stated."""

import pytest
import torch
from torch import nn

from seg.compression import moments
from seg.compression.channels import cut_channels, feature_maps, measure_maps
from seg.compression.cuts import cut, project, solve_anew
from seg.compression.moments import Moments, drawn_loss, measure
from seg.config import BottleneckConfig, NetworkConfig
from seg.networks import network_from_config
from tests.compression.test_moments import predicted_loss
from tests.costs import checked_complexity

SHAPE = (8, 8, 8)
OPTIONS = [
    {},
    {"upsample": "linear", "deep_supervision": True},
    {"residual": True},
    {"residual": True, "merge": "add", "upsample": "linear"},
    {"decoder_bottleneck": BottleneckConfig(ratio=0.5, norm=True, activation="leaky_relu"), "upsample": "linear"},
    {"decoder_bottleneck": BottleneckConfig(ratio=0.75, activation="prelu"), "merge": "add"},
    {"skip_bottleneck": BottleneckConfig(ratio=0.5, activation="relu")},
    {"skip_bottleneck": BottleneckConfig(ratio=(0.5, 2.0)), "decoder_bottleneck": BottleneckConfig(ratio=0.5)},
]


def _network(**options):
    config = NetworkConfig(
        channels=(4, 6, 8),
        strides=((1, 1, 1), (2, 2, 2), (1, 2, 2)),
        kernel_sizes=((3, 3, 3), (1, 3, 3), (3, 3, 3)),
        **options,
    )
    torch.manual_seed(0)
    network = network_from_config(config, 2, 3).double().requires_grad_(False).eval()
    for name, parameter in network.named_parameters():
        if "norm" in name or name.endswith("bias"):
            parameter += 0.3 * torch.randn_like(parameter)
    return network


def _images(count, size=SHAPE):
    stream = torch.Generator().manual_seed(7)
    return [torch.randn(1, 2, *size, dtype=torch.float64, generator=stream) for _ in range(count)]


def _entries(network, writer):
    """The weights of each channel that a module writes, the channels first."""
    module = network.get_submodule(writer)
    turned = isinstance(module, nn.ConvTranspose3d)
    return [parameter.transpose(0, 1) if turned else parameter for parameter in module.parameters()]


def _depend(network, one):
    """Makes the last channel of a map a multiple of its first one."""
    for writer in one.writers:
        module = network.get_submodule(writer)
        for parameter in _entries(network, writer):
            parameter[-1] = parameter[0]
        if hasattr(module, "norm"):
            module.norm.weight[-1] = 0.5 * module.norm.weight[0]
            module.norm.bias[-1] = 0.5 * module.norm.bias[0]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_channels_that_depend_on_others_go_without_a_change(options, monkeypatch):
    monkeypatch.setattr(moments, "RIDGE", 1e-10)
    net = _network(**options)
    maps = [one for one in feature_maps(net) if one.channels > one.least]
    for one in maps:
        _depend(net, one)
    images = _images(3)
    measured = measure_maps(net, images)
    small = cut_channels(net, measured, {one.name: one.channels - 1 for one in maps})
    (fresh,) = _images(1, (4, 16, 8))
    torch.testing.assert_close(small(fresh), net(fresh), rtol=1e-5, atol=1e-5)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_what_is_built_is_what_is_counted_and_has_the_widths_asked_for(options):
    net = _network(**options)
    measured = measure_maps(net, _images(2))
    asked = {name: max(one.map.least, one.map.channels // 2) for name, one in measured.items()}
    small = cut_channels(net, measured, asked)
    cost = checked_complexity(2, 3, small.config, shape=SHAPE)
    assert cost.parameters == sum(p.numel() for p in small.parameters())
    found = {}
    hooks = [
        small.get_submodule(name).register_forward_hook(
            lambda _m, _i, out, name=name: found.update({name: out.shape[1]})
        )
        for name in asked
    ]
    small(_images(1)[0])
    assert len(hooks) == len(found)
    assert found == asked


def test_maps_are_all_but_those_that_are_tied_to_others():
    def names(**options):
        return {one.name for one in feature_maps(_network(**options))}

    blocks = {f"{part}.{number}" for part in ("encoder.0", "encoder.1", "encoder.2") for number in (0, 1)}
    blocks |= {f"decoder.{level}.{part}" for level in (0, 1) for part in ("up", "block.0", "block.1")}
    assert names() == blocks
    assert names(merge="add") == blocks - {"encoder.0.1", "encoder.1.1", "decoder.0.up", "decoder.1.up"}
    assert names(skip_bottleneck=BottleneckConfig(ratio=(0.5, 2.0))) == blocks - {"encoder.1.1"}
    stages = {"encoder.0", "encoder.1", "encoder.2"}
    assert {name for name in names(residual=True) if name.count(".") == 1} == stages


def test_a_residual_stage_keeps_the_projection_of_its_input():
    net = _network(residual=True)
    assert {one.name: one.least for one in feature_maps(net)}["encoder.0"] == net.in_channels + 1
    config = NetworkConfig(
        channels=(2, 6), strides=((1, 1, 1), (2, 2, 2)), kernel_sizes=((3, 3, 3),) * 2, residual=True
    )
    assert "encoder.0" not in {one.name for one in feature_maps(network_from_config(config, 2, 3))}


def test_a_constant_moves_into_the_bias_of_the_head():
    net, images = _network(), _images(3)
    last = net.decoder[0].block[1].norm
    last.bias[:] = 30.0  # behind its activation the map is positive, so the last channel below differs by a constant
    for weight in (net.decoder[0].block[1].conv.weight, last.weight):
        weight[-1] = weight[0]
    last.bias[-1] = 35.0
    measured = measure_maps(net, images)
    small = cut_channels(net, measured, {"decoder.0.block.1": 3})
    torch.testing.assert_close(small(images[0]), net(images[0]), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(small.heads[0].bias, net.heads[0].bias)


@pytest.mark.parametrize("width", [1, 3, 5])
def test_the_predicted_loss_is_the_quadratic_form_of_what_the_substitutes_leave(width):
    net, images = _network(), _images(3)
    name, labels = "encoder.1.1", torch.Generator().manual_seed(11)
    one = measure_maps(net, images, seed=11)[name]
    subset = one.subsets[width]
    # The same by torch alone: all readers of the map read the sum of it and a zero of their own.
    zeros, values = [], []

    def add(_module, _inputs, output):
        values.append(output.detach()[0].flatten(1))
        zeros.append(torch.zeros_like(output, requires_grad=True))
        return output + zeros[-1]

    net.get_submodule(name).register_forward_hook(add)
    second, fisher = torch.zeros(6, 6, dtype=torch.float64), torch.zeros(6, 6, dtype=torch.float64)
    for image in images:
        logits = net(image)
        drawn_loss(logits, labels).backward()
        h, g = values[-1], zeros[-1].grad[0].flatten(1)
        assert g.any()
        second += h @ h.T / h.shape[1] / 3
        fisher += g @ g.T / 512 / 3
    rest = torch.eye(6, dtype=torch.float64)
    rest[:, list(subset.kept)] -= subset.substitutes
    assert subset.loss == pytest.approx(float((fisher @ rest @ second @ rest.T).trace()) / 2, rel=1e-3)
    spread = torch.eye(6, dtype=torch.float64) - rest
    pooled = Moments(second=second, fisher=fisher)
    assert float(predicted_loss(pooled, spread)) == pytest.approx(subset.loss, rel=1e-3)


def test_channels_go_from_maps_between_kernels_that_have_1x1():
    net, images = _network(), _images(3)
    places = measure(net, images)
    ranks = {place.name: (place.before.channels, place.behind.channels) for place in places}
    factored = cut(net, ranks, project(places))
    asked = {one.name: one.channels - 1 for one in feature_maps(net)}
    found = cut_channels(factored, measure_maps(factored, images), asked)
    wanted = cut_channels(net, measure_maps(net, images), asked)
    torch.testing.assert_close(found(images[0]), wanted(images[0]), rtol=1e-4, atol=1e-4)


def test_layers_are_solved_towards_the_kept_channels_of_the_original():
    net, images = _network(upsample="linear"), _images(6, (16, 16, 16))
    measured = measure_maps(net, images[:4])
    asked = {name: max(1, 2 * one.map.channels // 3) for name, one in measured.items()}
    kept = {writer: one.subsets[asked[name]].kept for name, one in measured.items() for writer in one.map.writers}

    def divergence(other):
        total = 0.0
        for image in images[4:]:
            p, q = (n(image).log_softmax(1) for n in (net, other))
            total += float((p.exp() * (p - q)).sum(1).mean())
        return total

    small = cut_channels(net, measured, asked)
    before = divergence(small)
    solve_anew(net, small, images[:4], kept=kept)
    assert divergence(small) < 0.9 * before


def test_layers_without_a_norm_are_solved_with_the_constant_that_they_have(monkeypatch):
    monkeypatch.setattr(moments, "RIDGE", 1e-10)
    net, images = _network(upsample="linear"), _images(4, (16, 16, 16))
    maps = [one for one in feature_maps(net) if one.channels > one.least]
    for one in maps:
        _depend(net, one)
    measured = measure_maps(net, images)
    asked = {one.name: one.channels - 1 for one in maps}
    kept = {writer: one.subsets[asked[name]].kept for name, one in measured.items() for writer in one.map.writers}
    small = cut_channels(net, measured, asked)
    for layer in (small.decoder[0].up, small.decoder[1].up, small.heads[0]):
        layer.weight.mul_(1.5)
    small.heads[0].bias.add_(1.0)
    assert not torch.allclose(small(images[0]), net(images[0]), atol=0.1)
    solve_anew(net, small, images, kept=kept)
    torch.testing.assert_close(small(images[0]), net(images[0]), rtol=0.03, atol=0.03)
