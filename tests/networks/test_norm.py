"""The instance norm against torch's own, in every format and precision."""

import pytest
import torch
from torch.nn import functional as F

from seg.networks import norm
from seg.networks.norm import InstanceNorm3d, channels_last_norm, instance_norm, is_channels_last
from tests.threads import torch_threads

FORMATS = [torch.contiguous_format, torch.channels_last_3d]


def tensors(dtype, memory_format=torch.contiguous_format, batch=2, channels=3, shape=(3, 4, 5)):
    generator = torch.Generator().manual_seed(0)
    x = 5 + 2 * torch.randn(batch, channels, *shape, generator=generator)
    x = x.to(dtype).contiguous(memory_format=memory_format).requires_grad_()
    kind = torch.float64 if dtype == torch.float64 else torch.float32
    weight = torch.randn(channels, generator=generator).to(kind).requires_grad_()
    bias = torch.randn(channels, generator=generator).to(kind).requires_grad_()
    return x, weight, bias


def reference(x, weight, bias, slope):
    """Instance norm and leaky ReLU spelt out in float64."""
    x, weight, bias = (t.detach().double().requires_grad_() for t in (x, weight, bias))
    mean = x.mean((2, 3, 4), keepdim=True)
    variance = (x - mean).square().mean((2, 3, 4), keepdim=True)
    normal = (x - mean) / (variance + 1e-5).sqrt()
    out = normal * weight.reshape(1, -1, 1, 1, 1) + bias.reshape(1, -1, 1, 1, 1)
    return torch.where(out > 0, out, slope * out), (x, weight, bias)


@pytest.mark.parametrize("slope", [1.0, 0.01])
@pytest.mark.parametrize("memory_format", FORMATS)
def test_gradient_is_that_of_finite_differences(memory_format, slope):
    inputs = tensors(torch.float64, memory_format)
    assert torch.autograd.gradcheck(lambda x, w, b: instance_norm(x, w, b, negative_slope=slope), inputs)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 1e-2)]
)
@pytest.mark.parametrize("slope", [1.0, 0.01])
@pytest.mark.parametrize("memory_format", FORMATS)
def test_equals_the_definition_in_value_and_gradient(memory_format, slope, dtype, tolerance):
    inputs = tensors(dtype, memory_format, channels=8, shape=(6, 7, 8))
    out = instance_norm(*inputs, negative_slope=slope)
    expected, twins = reference(*inputs, slope)
    assert out.dtype == dtype
    assert out.is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(out.double(), expected, rtol=tolerance, atol=tolerance)

    # Away from the kink, where rounding would choose the other slope.
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    weight = weight * (expected.abs() > 0.05)
    gradients = torch.autograd.grad(out, inputs, weight)
    for ours, theirs in zip(gradients, torch.autograd.grad(expected, twins, weight.double()), strict=True):
        scale = theirs.abs().max().item()
        torch.testing.assert_close(ours.double(), theirs, rtol=tolerance, atol=tolerance * scale)
    assert gradients[0].is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5), (torch.bfloat16, 2e-2)]
)
@pytest.mark.parametrize(("channels", "folds"), [(3, 16), (8, 2), (12, 4), (24, 2), (16, 1)])
def test_maps_whose_sums_share_a_cache_line_are_folded_to_the_same_result(channels, folds, dtype, tolerance, threads):
    with torch_threads(threads):
        inputs = tensors(dtype, torch.channels_last_3d, channels=channels, shape=(24, 30, 16))
        assert norm._folds(inputs[0], norm.LINE) == (folds if threads > 1 or channels in (3, 12) else 1)
        out = instance_norm(*inputs, negative_slope=0.01)
        expected, twins = reference(*inputs, 0.01)
        grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
        gradients = torch.autograd.grad(out, inputs, grad * (expected.abs() > 0.05))
    theirs = torch.autograd.grad(expected, twins, grad.double() * (expected.abs() > 0.05))
    for one, other in zip((out, *gradients), (expected, *theirs), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=tolerance, atol=tolerance * other.abs().max().item())
    assert gradients[0].is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("channels", [3, 8])
def test_equal_voxels_become_the_shift(channels):
    x = torch.full((1, channels, 24, 30, 16), 4.0).contiguous(memory_format=torch.channels_last_3d)
    bias = torch.arange(channels, dtype=torch.float32)
    out = instance_norm(x, torch.ones(channels), bias)
    assert torch.equal(out, bias.view(1, -1, 1, 1, 1).expand_as(out))


def test_statistics_of_bfloat16_are_those_of_float32():
    # In bfloat16 a running sum of ones stops at 256; 40 x 56 x 40 voxels would give a mean of 0.003.
    x = torch.ones(1, 2, 40, 56, 40, dtype=torch.bfloat16)
    x[:, :, ::2] = 3
    out = instance_norm(x.contiguous(memory_format=torch.channels_last_3d), torch.ones(2), torch.zeros(2))
    assert out.unique().tolist() == [-1.0, 1.0]


def test_takes_a_gradient_of_another_format():
    inputs = tensors(torch.float32, torch.channels_last_3d)
    out = instance_norm(*inputs, negative_slope=0.01)
    grad = torch.randn(out.shape)
    parts = torch.cat((grad, grad), dim=1)[:, :3]  # not dense, as from a concatenation
    for given in (grad, parts):
        result = torch.autograd.grad(out, inputs, given, retain_graph=True)
        expected = torch.autograd.grad(
            out, inputs, grad.contiguous(memory_format=torch.channels_last_3d), retain_graph=True
        )
        for a, b in zip(result, expected, strict=True):
            torch.testing.assert_close(a, b)


def test_takes_an_input_of_neither_format():
    x, weight, bias = tensors(torch.float32)
    y = x.detach().transpose(2, 4)
    torch.testing.assert_close(
        instance_norm(y, weight, bias), F.instance_norm(y.contiguous(), weight=weight, bias=bias)
    )


def test_shares_the_state_of_torch():
    theirs = torch.nn.InstanceNorm3d(3, affine=True)
    torch.nn.init.normal_(theirs.weight)
    torch.nn.init.normal_(theirs.bias)
    ours = InstanceNorm3d(3)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 4, 4, 4)
    torch.testing.assert_close(ours(x), theirs(x))
    assert list(ours.state_dict()) == list(theirs.state_dict())


def test_weights_may_be_cast_with_the_network():
    layer = InstanceNorm3d(3, negative_slope=0.01).bfloat16()
    x = torch.randn(2, 3, 4, 4, 4, dtype=torch.bfloat16)
    layer(x).sum().backward()
    assert layer.weight.grad.dtype == torch.bfloat16


def test_is_torchs_own_when_traced():
    layer = InstanceNorm3d(3, negative_slope=0.01)
    x = torch.randn(2, 3, 4, 4, 4)
    program = torch.export.export(layer, (x,))
    assert "instance_norm" in str(program.graph)
    torch.testing.assert_close(program.module()(x), layer(x))


def test_single_voxel_is_refused():
    with pytest.raises(ValueError, match="voxel"):
        InstanceNorm3d(3)(torch.zeros(1, 3, 1, 1, 1))


@pytest.mark.parametrize("slope", [1.0, 0.01])
def test_a_norm_of_elementary_operators_keeps_channels_last_and_is_torchs(slope):
    torch.manual_seed(0)
    x = (3 + torch.randn(2, 5, 4, 6, 8)).contiguous(memory_format=torch.channels_last_3d)
    weight, bias = torch.randn(5), torch.randn(5)
    found = channels_last_norm(x, weight, bias, 1e-5, slope)
    wanted = F.leaky_relu(F.instance_norm(x.double(), weight=weight.double(), bias=bias.double()), slope)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)
    assert is_channels_last(found)
    half = channels_last_norm(x.bfloat16(), weight, bias, 1e-5, slope)
    assert (half.dtype, is_channels_last(half)) == (torch.bfloat16, True)


@pytest.mark.parametrize("slope", [1.0, 0.01])
def test_gradients_of_a_norm_of_elementary_operators_are_those_of_torchs(slope):
    inputs = tensors(torch.float32, torch.channels_last_3d, channels=5, shape=(4, 6, 8))
    x, weight, bias = (one.detach().double().requires_grad_() for one in inputs)
    wanted = F.leaky_relu(F.instance_norm(x, weight=weight, bias=bias), slope)
    direction = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(1)) * (wanted.abs() > 1e-3)
    direction = direction.contiguous(memory_format=torch.channels_last_3d)
    found = torch.autograd.grad(channels_last_norm(*inputs, 1e-5, slope), inputs, direction)
    for ours, theirs in zip(found, torch.autograd.grad(wanted, (x, weight, bias), direction.double()), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4)
    assert is_channels_last(found[0])


@pytest.mark.parametrize("compiled", [False, True])
def test_on_another_device_the_format_of_the_input_stays(compiled):
    x = torch.empty(2, 5, 4, 6, 8, device="meta")
    norm = InstanceNorm3d(5, 0.01).to("meta")
    norm = torch.compile(norm, backend="eager") if compiled else norm
    assert is_channels_last(norm(x.contiguous(memory_format=torch.channels_last_3d)))
    assert norm(x).is_contiguous()
