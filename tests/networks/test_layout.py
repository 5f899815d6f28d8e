"""Widths of single maps: what they are by default, and what a convolution between two linear 1x1 computes."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from seg.config import BottleneckConfig, NetworkConfig, WidthsConfig
from seg.networks import UNet
from seg.networks.blocks import FactoredConv3d
from seg.networks.layout import layout

PLAN = NetworkConfig(
    channels=(4, 6, 8), strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)), kernel_sizes=((1, 3, 3), (3, 3, 3), (3, 3, 3))
)


@pytest.mark.parametrize("ranks", [(2, 3), (0, 3), (2, 0), (0, 0)])
def test_a_convolution_between_two_linear_1x1_is_their_product(ranks):
    torch.manual_seed(0)
    factored = FactoredConv3d(4, 5, (3, 1, 3), (2, 1, 1), (1, 0, 1), ranks).double()
    weight = factored.conv.weight
    if ranks[0]:
        weight = torch.einsum("oixyz,ic->ocxyz", weight, factored.before.weight.flatten(1))
    if ranks[1]:
        weight = torch.einsum("oixyz,po->pixyz", weight, factored.behind.weight.flatten(1))
    x = torch.randn(2, 4, 6, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(factored(x), F.conv3d(x, weight, stride=(2, 1, 1), padding=(1, 0, 1)))
    assert sum(p.numel() for p in factored.parameters()) == (
        9 * (ranks[0] or 4) * (ranks[1] or 5) + 4 * ranks[0] + 5 * ranks[1]
    )


@pytest.mark.parametrize("decoder", [None, BottleneckConfig(ratio=0.5)])
def test_stated_widths_that_are_those_of_the_stages_change_no_weight_and_no_name(decoder):
    plain = replace(PLAN, decoder_bottleneck=decoder)
    inner = ((2, 2, 4), (3, 3, 6)) if decoder else ((4, 4), (6, 6))
    stated = replace(plain, widths=WidthsConfig(encoder=(4, 6, 8), up=(4, 6), decoder=inner))
    assert layout(stated) == layout(plain)
    states = []
    for config in (plain, stated):
        torch.manual_seed(3)
        states.append(UNet(1, 2, config).state_dict())
    assert list(states[0]) == list(states[1])
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name])


def test_maps_have_the_widths_that_are_stated():
    widths = WidthsConfig(encoder=(2, 3, 5), up=(1, 7), decoder=((3, 2), (4, 5)))
    net = UNet(1, 2, replace(PLAN, deep_supervision=True, widths=widths))
    shapes = {name: tuple(p.shape[:2]) for name, p in net.named_parameters() if p.ndim == 5}
    assert shapes == {
        "encoder.0.0.conv.weight": (2, 1),
        "encoder.0.1.conv.weight": (4, 2),
        "encoder.1.0.conv.weight": (3, 4),
        "encoder.1.1.conv.weight": (6, 3),
        "encoder.2.0.conv.weight": (5, 6),
        "encoder.2.1.conv.weight": (8, 5),
        "decoder.0.up.weight": (5, 1),
        "decoder.0.block.0.conv.weight": (3, 5),
        "decoder.0.block.1.conv.weight": (2, 3),
        "decoder.1.up.weight": (8, 7),
        "decoder.1.block.0.conv.weight": (4, 13),
        "decoder.1.block.1.conv.weight": (5, 4),
        "heads.0.weight": (2, 2),
        "heads.1.weight": (2, 5),
    }
    assert net.eval()(torch.zeros(1, 1, 4, 8, 8)).shape == (1, 2, 4, 8, 8)


@pytest.mark.parametrize("merge", ["concat", "add"])
@pytest.mark.parametrize("upsample", ["transposed", "linear"])
def test_a_decoder_stage_with_a_1x1_computes_what_its_folded_kernel_computes(upsample, merge):
    plain = replace(PLAN, upsample=upsample, merge=merge)
    ranks = WidthsConfig(decoder_ranks=(((3, 0), (0, 2)), ((2, 5), (0, 0))))
    torch.manual_seed(0)
    net = UNet(1, 2, replace(plain, widths=ranks)).double()
    folded = UNet(1, 2, plain).double()
    state = net.state_dict()
    for name in ("decoder.0.block.0.conv", "decoder.0.block.1.conv", "decoder.1.block.0.conv"):
        weight = state.pop(f"{name}.conv.weight")
        if (before := state.pop(f"{name}.before.weight", None)) is not None:
            weight = torch.einsum("oixyz,ic->ocxyz", weight, before.flatten(1))
        if (behind := state.pop(f"{name}.behind.weight", None)) is not None:
            weight = torch.einsum("oixyz,po->pixyz", weight, behind.flatten(1))
        state[f"{name}.weight"] = weight
    folded.load_state_dict(state)
    x = torch.randn(1, 1, 4, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(net(x), folded(x), rtol=1e-9, atol=1e-9)
    net(x).square().sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
