"""The 1x1 bottleneck: where it looks, and the cheaper forms against the plain ones."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from seg.config import BottleneckConfig, NetworkConfig
from seg.networks import UNet
from seg.networks.bottleneck import DecoderBottleneck, SkipBottleneck, interpolate, projects_back, reduce_pair, width

ACTIVATIONS = ["none", "relu", "leaky_relu", "prelu", "sigmoid"]


def jacobian_off_the_voxel(module, channels=3, shape=(2, 3, 2)):
    """Largest derivative of an output voxel by any other input voxel, and by itself."""
    module = module.double()
    x = torch.randn(1, channels, *shape, dtype=torch.float64)
    matrix = torch.autograd.functional.jacobian(module, x)[0, :, :, :, :, 0]
    n = x[0, 0].numel()
    matrix = matrix.reshape(-1, n, channels, n).abs().amax((0, 2))
    same = torch.eye(n, dtype=torch.bool)
    return matrix[~same].max().item(), matrix[same].max().item()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
def test_each_voxel_depends_on_itself_alone(activation, ratio):
    torch.manual_seed(0)
    block = SkipBottleneck(3, BottleneckConfig(ratio=ratio, activation=activation), ratio, "concat")
    other, own = jacobian_off_the_voxel(block)
    assert other == 0
    assert own > 0


def test_a_norm_makes_each_voxel_depend_on_all():
    torch.manual_seed(0)
    block = SkipBottleneck(3, BottleneckConfig(ratio=0.5, activation="leaky_relu", norm=True), 0.5, "concat")
    other, _ = jacobian_off_the_voxel(block)
    assert other > 1e-3


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("none", lambda x: x),
        ("relu", lambda x: x.clamp(min=0)),
        ("leaky_relu", lambda x: torch.where(x > 0, x, 0.01 * x)),
        ("prelu", lambda x: torch.where(x > 0, x, 0.25 * x)),
        ("sigmoid", lambda x: 1 / (1 + torch.exp(-x))),
    ],
)
@pytest.mark.parametrize("norm", [False, True])
def test_is_a_linear_map_over_channels_then_the_function(activation, function, norm):
    torch.manual_seed(0)
    block = SkipBottleneck(8, BottleneckConfig(ratio=0.25, activation=activation, norm=norm), 0.25, "concat")
    x = torch.randn(2, 8, 3, 4, 5)
    mapped = torch.einsum("kc,bcxyz->bkxyz", block.reduce.weight[:, :, 0, 0, 0], x)
    mapped = F.instance_norm(mapped) if norm else mapped + block.reduce.bias.reshape(1, -1, 1, 1, 1)
    torch.testing.assert_close(block(x), function(mapped))


def test_prelu_has_a_slope_of_its_own_for_each_channel():
    torch.manual_seed(0)
    block = SkipBottleneck(8, BottleneckConfig(ratio=0.5, activation="prelu"), 0.5, "concat")
    slopes = torch.tensor([0.0, 0.1, 0.5, 2.0])
    with torch.no_grad():
        block.pointwise[0].weight.copy_(slopes)
        mapped = block.reduce(x := torch.randn(2, 8, 3, 4, 5))
    torch.testing.assert_close(block(x), torch.where(mapped > 0, mapped, slopes.reshape(1, -1, 1, 1, 1) * mapped))


def test_width_is_the_nearest_number_of_channels_and_never_none():
    pairs = [(32, 0.25), (32, 1 / 16), (16, 1 / 64), (32, 4), (10, 0.33), (10, 0.37), (32, 0.3)]
    assert [width(*pair) for pair in pairs] == [8, 2, 1, 128, 3, 4, 10]


def test_a_second_1x1_stands_where_the_widths_differ():
    wide = SkipBottleneck(4, BottleneckConfig(ratio=2.0), 2.0, "concat")
    assert (wide.reduce.out_channels, wide.project.out_channels, wide.out_channels) == (8, 4, 4)
    narrow = SkipBottleneck(4, BottleneckConfig(ratio=0.5), 0.5, "concat")
    assert isinstance(narrow.project, nn.Identity)
    assert narrow.out_channels == 2
    added = SkipBottleneck(4, BottleneckConfig(ratio=0.5), 0.5, "add")
    assert (added.reduce.out_channels, added.project.out_channels, added.out_channels) == (2, 4, 4)
    assert not projects_back(1.0, "add")


SCALES = [(2, 2, 2), (1, 2, 2), (1, 1, 1), (3, 1, 2)]


@pytest.mark.parametrize("scale", SCALES)
def test_reduction_commutes_with_interpolation(scale):
    torch.manual_seed(0)
    conv = nn.Conv3d(5, 3, 1).double()
    x = torch.randn(2, 5, 3, 2, 4, dtype=torch.float64, requires_grad=True)
    inputs = (x, *conv.parameters())
    early, late = interpolate(conv(x), scale), conv(interpolate(x, scale))
    torch.testing.assert_close(early, late, rtol=1e-12, atol=1e-12)
    grad = torch.randn_like(late)
    for a, b in zip(torch.autograd.grad(early, inputs, grad), torch.autograd.grad(late, inputs, grad), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("scale", "bias"), itertools.product(SCALES, [True, False]))
def test_reduction_needs_no_concatenation(scale, bias):
    torch.manual_seed(0)
    conv = nn.Conv3d(7, 3, 1, bias=bias).double()
    up = torch.randn(2, 5, 3, 2, 4, dtype=torch.float64, requires_grad=True)
    skip = torch.randn(2, 2, *(n * s for n, s in zip((3, 2, 4), scale, strict=True)), dtype=torch.float64)
    skip.requires_grad_()
    inputs = (up, skip, *conv.parameters())
    pair = reduce_pair(up, skip, conv.weight, conv.bias, scale)
    plain = conv(torch.cat((interpolate(up, scale), skip), dim=1))
    torch.testing.assert_close(pair, plain, rtol=1e-12, atol=1e-12)
    grad = torch.randn_like(plain)
    for a, b in zip(torch.autograd.grad(pair, inputs, grad), torch.autograd.grad(plain, inputs, grad), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_decoder_block_is_one_function_in_both_forms():
    torch.manual_seed(0)
    spec = BottleneckConfig(ratio=0.5, activation="leaky_relu", norm=True)
    block = DecoderBottleneck(6, (2, 2, 4), (3, 3, 3), spec).double()
    up, skip = torch.randn(2, 4, 2, 3, 2, dtype=torch.float64), torch.randn(2, 2, 4, 6, 4, dtype=torch.float64)
    plain = block(torch.cat((interpolate(up, (2, 2, 2)), skip), dim=1))
    pair = reduce_pair(up, skip, block.reduce.weight, block.reduce.bias, (2, 2, 2))
    torch.testing.assert_close(block(pair, reduced=True), plain, rtol=1e-12, atol=1e-12)
    assert [m.out_channels for m in block.modules() if isinstance(m, nn.Conv3d)] == [2, 2, 4]


@pytest.mark.parametrize("scale", [(2, 2, 2), (1, 2, 2)])
def test_linear_interpolation_of_a_ramp_is_a_ramp_inside(scale):
    ramp = torch.arange(6.0).reshape(1, 1, 1, 1, 6).expand(1, 1, 4, 4, 6)
    out = interpolate(ramp, scale)
    # Voxel centres: the new voxel j lies at (j + 1/2) / 2 - 1/2.
    expected = (torch.arange(12.0) + 0.5) / 2 - 0.5
    torch.testing.assert_close(out[0, 0, 0, 0, 1:-1], expected[1:-1])


STAGES = {"channels": (4, 6, 8), "strides": ((1,) * 3, (2,) * 3, (2,) * 3), "kernel_sizes": ((3,) * 3,) * 3}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_trains_in_mixed_precision(activation):
    spec = BottleneckConfig(ratio=0.5, activation=activation)
    net = UNet(1, 2, NetworkConfig(**STAGES, skip_bottleneck=spec, decoder_bottleneck=spec))
    with torch.autocast("cpu", torch.bfloat16):
        out = net(torch.randn(1, 1, 8, 8, 8))
    out.float().square().mean().backward()
    assert all(p.grad is not None for p in net.parameters())
