"""Convolutions: torch's own results, and never its slow kernels on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from monai.networks.nets import BasicUNet, DynUNet
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from seg.config import BottleneckConfig, NetworkConfig, WidthsConfig
from seg.networks import UNet
from seg.networks.conv import Conv3d, ConvTranspose3d, conv3d, use_fast_kernels
from tests.threads import torch_threads

SLOW = {
    torch._C._ConvBackend.Slow3d,
    torch._C._ConvBackend.SlowTranspose3d,
    torch._C._ConvBackend.SlowDilated3d,
}
BOTTLENECKS = [BottleneckConfig(ratio=1.0), BottleneckConfig(ratio=0.5, norm=True), BottleneckConfig(ratio=2.0)]
RANKS = (2, 3)
STAGES = {"channels": (4, 6, 8), "strides": ((1,) * 3, (1, 2, 2), (2,) * 3), "kernel_sizes": ((3,) * 3,) * 3}
CONFIGS = {
    "plain": {},
    "linear": {"upsample": "linear"},
    "add": {"merge": "add"},
    "residual": {"residual": True},
    "deep_supervision": {"deep_supervision": True},
    "ranks": {"widths": WidthsConfig(encoder_ranks=((RANKS,) * 2,) * 3, decoder_ranks=((RANKS,) * 2,) * 2)},
    "kernels of 1": {"kernel_sizes": ((1, 3, 3), (1, 3, 3), (3, 3, 3))},
    "skip 0.5, add": {"skip_bottleneck": BOTTLENECKS[1], "merge": "add"},
    "skip and decoder": {"skip_bottleneck": BOTTLENECKS[1], "decoder_bottleneck": BOTTLENECKS[1]},
    **{f"skip {b.ratio}": {"skip_bottleneck": b} for b in BOTTLENECKS},
    **{f"decoder {b.ratio}": {"decoder_bottleneck": b} for b in BOTTLENECKS},
    **{f"decoder {b.ratio}, linear": {"decoder_bottleneck": b, "upsample": "linear"} for b in BOTTLENECKS},
    **{f"decoder {b.ratio}, add": {"decoder_bottleneck": b, "merge": "add"} for b in BOTTLENECKS},
}


class Kernels(TorchDispatchMode):
    """Asks torch which kernel it takes for each convolution that runs inside, forwards and backwards."""

    def __init__(self) -> None:
        super().__init__()
        self.forward: list[Any] = []
        self.backward: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("conv3d", "conv_transpose3d"):  # in inference mode they come whole
            with self:
                return func.decompose(*args, **(kwargs or {}))
        if name == "mkldnn_convolution":
            self.forward.append(torch._C._ConvBackend.Mkldnn)
        elif name == "convolution":
            self.forward.append(torch._C._select_conv_backend(*args[:3], *map(tuple, args[3:6]), args[6], *args[7:9]))
        elif name == "convolution_backward":
            _, x, weight, _, stride, padding, dilation, transposed, extra, groups = args[:10]
            self.backward.append(
                torch._C._select_conv_backend(x, weight, None, stride, padding, dilation, transposed, extra, groups)
            )
        return func(*args, **(kwargs or {}))


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    with torch_threads(request.param):
        yield request.param


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("options", "channels"),
    [*((options, 1) for options in CONFIGS.values()), ({}, 2)],
    ids=[*CONFIGS, "two input channels"],
)
def test_no_convolution_of_any_network_takes_a_slow_kernel(options, channels, precision, batch, threads):
    if precision == "bf16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this processor computes no bf16 convolution in oneDNN, and the package takes fp32 on it")
    net = UNet(channels, 3, NetworkConfig(**STAGES | options))
    convolutions = sum(isinstance(m, (nn.Conv3d, nn.ConvTranspose3d)) for m in net.modules())
    image = torch.randn(batch, channels, 4, 8, 8)
    with Kernels() as kernels:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            out = net(image)
        sum(o.float().sum() for o in (out if isinstance(out, list) else [out])).backward()
    assert len(kernels.forward) >= convolutions
    assert kernels.backward
    assert not SLOW & {*kernels.forward, *kernels.backward}
    heads = len(net.heads) - 1  # which have no part in a prediction
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
    with Kernels() as kernels, torch.inference_mode(), autocast:
        net.eval()(image)
    assert len(kernels.forward) >= convolutions - heads
    assert not kernels.backward
    assert not SLOW & set(kernels.forward)


def test_under_autocast_every_convolution_computes_in_its_type():
    net = UNet(2, 3, NetworkConfig(**STAGES)).eval()
    kinds = []
    for module in net.modules():
        if isinstance(module, (nn.Conv3d, nn.ConvTranspose3d)):
            module.register_forward_hook(lambda module, inputs, out: kinds.append(out.dtype))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        net(torch.randn(1, 2, 4, 8, 8))
    assert len(kinds) > 5
    assert set(kinds) == {torch.bfloat16}


def test_the_slow_kernel_is_seen_where_torch_takes_it():
    with Kernels() as kernels:
        nn.Conv3d(4, 4, 3, padding=1)(torch.randn(1, 4, 4, 4, 4, requires_grad=True)).sum().backward()
    assert {*kernels.forward, *kernels.backward} == {torch._C._ConvBackend.Slow3d}


def gradients(function, *inputs):
    leaves = [t.detach().clone().requires_grad_() for t in inputs]
    out = function(*leaves)
    (out.double() * torch.linspace(-1, 1, out.numel(), dtype=torch.float64).reshape(out.shape)).sum().backward()
    return out.detach().double(), *(leaf.grad.double() for leaf in leaves)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [
        ((3,) * 3, (1,) * 3, (1,) * 3),
        ((3,) * 3, (2,) * 3, (1,) * 3),
        ((1, 3, 3), (1, 2, 2), (0, 1, 1)),
        ((1,) * 3, (1,) * 3, (0,) * 3),
    ],
)
def test_conv3d_and_its_gradients_are_those_of_torch_in_float64(kernel, stride, padding, bias):
    torch.manual_seed(0)
    x = torch.randn(1, 5, 6, 7, 9).contiguous(memory_format=torch.channels_last_3d)
    parts = [x, torch.randn(6, 5, *kernel), *([torch.randn(6)] if bias else [])]

    def ours(x, weight, bias=None):
        return conv3d(x, weight, bias, stride, padding)

    def exact(x, weight, bias=None):
        return F.conv3d(x.double(), weight.double(), None if bias is None else bias.double(), stride, padding)

    for found, wanted in zip(gradients(ours, *parts), gradients(exact, *parts), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("stride", [(2, 2, 2), (1, 2, 2), (2, 1, 3)])
def test_a_transposed_convolution_and_its_gradients_are_those_of_torch(stride, bias, batch):
    torch.manual_seed(0)
    ours = ConvTranspose3d(5, 4, stride, stride, bias=bias)
    exact = nn.ConvTranspose3d(5, 4, stride, stride, bias=bias).double()
    exact.load_state_dict(ours.state_dict())
    x = torch.randn(batch, 5, 3, 4, 5)
    for found, wanted in zip(gradients(ours, x), gradients(lambda x: exact(x.double()), x), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(
            parameter.grad.double(), dict(exact.named_parameters())[name].grad, rtol=1e-5, atol=1e-4
        )


def test_features_stay_in_channels_last():
    x = torch.randn(1, 8, 4, 6, 4).contiguous(memory_format=torch.channels_last_3d)
    for layer in (Conv3d(8, 4, 3, padding=1), ConvTranspose3d(8, 4, 2, 2)):
        assert layer(x).is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv3d(4, 4, 3, padding=2, dilation=2),
        nn.Conv3d(4, 4, 3, padding=1, groups=2),
        nn.Conv3d(4, 4, 3, padding="same"),
        nn.Conv3d(4, 4, 3, padding=1, padding_mode="replicate"),
        nn.ConvTranspose3d(4, 4, 3, 2, padding=1, output_padding=1),
    ],
)
def test_layers_of_others_give_what_they_gave(layer):
    x = torch.randn(1, 4, 5, 6, 7)
    wanted = layer(x)
    torch.testing.assert_close(use_fast_kernels(layer)(x), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "build",
    [
        lambda: DynUNet(3, 1, 3, [3] * 3, [1, 2, 2], [2, 2], filters=[4, 6, 8]),
        lambda: BasicUNet(3, 1, 3, features=(4,) * 6),
    ],
)
def test_a_network_of_others_gives_what_it_gave_without_a_slow_kernel(build):
    torch.manual_seed(0)
    net = build().eval()
    x = torch.randn(1, 1, 32, 16, 16)
    with torch.inference_mode():
        wanted = net(x)
        with Kernels() as kernels:
            found = use_fast_kernels(net)(x)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert kernels.forward
    assert not SLOW & set(kernels.forward)


def test_an_exported_network_holds_torch_operators_alone():
    net = UNet(1, 3, NetworkConfig(channels=(4, 6), strides=((1,) * 3, (2,) * 3), kernel_sizes=((3,) * 3,) * 2)).eval()
    with torch.no_grad():
        program = torch.export.export(net, (torch.randn(1, 1, 4, 8, 8),))
    names = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert {"aten.conv3d.default", "aten.conv_transpose3d.input"} <= names
    assert not {name for name in names if "mkldnn" in name}


@pytest.mark.parametrize("training", [False, True])
def test_a_compiled_network_is_the_network(training):
    torch.manual_seed(0)
    torch.compiler.reset()
    net = UNet(1, 3, NetworkConfig(**STAGES)).train(training)
    compiled = torch.compile(net, backend="aot_eager")
    x = torch.randn(1, 1, 4, 8, 8)
    with torch.set_grad_enabled(training):
        found, wanted = compiled(x), net(x)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    if training:
        parts = list(net.parameters())
        ours, theirs = (torch.autograd.grad(out.square().mean(), parts) for out in (found, wanted))
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="total stride"):
        compiled(torch.randn(1, 1, 3, 8, 8))
