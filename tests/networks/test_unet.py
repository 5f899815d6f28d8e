"""The U-Net against MONAI's DynUNet and against the contract that every network keeps."""

import itertools
from dataclasses import replace

import pytest
import torch
from monai.losses import DeepSupervisionLoss, DiceCELoss
from monai.networks.nets import DynUNet

from seg.config import BottleneckConfig, NetworkConfig
from seg.errors import ConfigError
from seg.networks import UNet

HIPPOCAMPUS = NetworkConfig(
    channels=(32, 64, 128, 256), strides=((1,) * 3, *((2,) * 3,) * 3), kernel_sizes=((3,) * 3,) * 4
)
SMALL = NetworkConfig(
    channels=(4, 6, 8), strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)), kernel_sizes=((1, 3, 3), (3, 3, 3), (3, 3, 3))
)


def dynunet(filters: tuple[int, ...], residual: bool) -> DynUNet:
    strides = [1, *[2] * (len(filters) - 1)]
    return DynUNet(3, 1, 3, [3] * len(filters), strides, strides[1:], filters=list(filters), res_block=residual).eval()


def our_key(key: str, stages: int) -> str:
    """Translates the name of a DynUNet parameter."""
    block, _, rest = key.partition(".")
    if block == "output_block":
        return rest.replace("conv.conv.", "heads.0.")
    if block == "upsamples":
        index, _, rest = rest.partition(".")
        prefix = f"decoder.{stages - 2 - int(index)}"
        if rest.startswith("transp_conv"):
            return f"{prefix}.up.weight"
        prefix, rest = f"{prefix}.block", rest.removeprefix("conv_block.")
    elif block == "downsamples":
        index, _, rest = rest.partition(".")
        prefix = f"encoder.{int(index) + 1}"
    else:
        prefix = {"input_block": "encoder.0", "bottleneck": f"encoder.{stages - 1}"}[block]
    layer, _, rest = rest.partition(".")
    kind, number = layer[:-1], int(layer[-1]) - 1
    return f"{prefix}.{number}.{kind}.{rest.removeprefix('conv.')}"


def residual_key(key: str) -> str:
    """Adapts a translated name to residual encoder stages."""
    part = key.split(".")
    if part[0] == "encoder":
        part[2:3] = ["project"] if part[2] == "2" else ["convs", part[2]]
    return ".".join(part)


@pytest.mark.parametrize("residual", [False, True])
def test_outputs_equal_dynunet_given_its_weights(residual):
    torch.manual_seed(0)
    reference = dynunet(HIPPOCAMPUS.channels, residual)
    net = UNet(1, 3, replace(HIPPOCAMPUS, residual=residual)).eval()
    for p in reference.parameters():  # norms too, or their order would go unseen
        torch.nn.init.normal_(p, std=0.5)
    state = {our_key(k, 4): v for k, v in reference.state_dict().items() if not k.startswith("skip_layers")}
    net.load_state_dict({residual_key(k): v for k, v in state.items()} if residual else state)
    x = torch.randn(2, 1, 16, 24, 16)
    torch.testing.assert_close(net(x), reference(x), rtol=1e-4, atol=1e-4)


def test_baseline_has_the_parameters_of_dynunet():
    net = UNet(1, 3, HIPPOCAMPUS)
    assert sum(p.numel() for p in net.parameters()) == 5_600_963
    assert sum(p.numel() for p in net.parameters()) == sum(
        p.numel() for p in dynunet(HIPPOCAMPUS.channels, False).parameters()
    )


BOTTLENECKS = [
    (None, None),
    (BottleneckConfig(ratio=0.25), None),
    (BottleneckConfig(ratio=(0.5, 2.0), activation="prelu", norm=True), None),
    (None, BottleneckConfig(ratio=0.5)),
    (
        BottleneckConfig(ratio=1.0, activation="sigmoid"),
        BottleneckConfig(ratio=(0.5, 1.5), activation="leaky_relu", norm=True),
    ),
]
OPTIONS = [
    {"upsample": u, "merge": m, "residual": r, "deep_supervision": d}
    for u, m, r, d in itertools.product(("transposed", "linear"), ("concat", "add"), (False, True), (False, True))
]


@pytest.mark.parametrize(("skip", "decoder"), BOTTLENECKS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_network_contract(skip, decoder, options):
    torch.manual_seed(0)
    config = replace(SMALL, skip_bottleneck=skip, decoder_bottleneck=decoder, **options)
    net = UNet(2, 3, config)
    x = torch.randn(2, 2, 4, 8, 8)

    out = net(x)
    outputs = out if config.deep_supervision else [out]
    shapes = [(2, 3, 4, 8, 8), (2, 3, 4, 4, 4)] if config.deep_supervision else [(2, 3, 4, 8, 8)]
    assert [tuple(o.shape) for o in outputs] == shapes

    sum(o.square().mean() for o in outputs).backward()
    for name, p in net.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name

    other = UNet(2, 3, config)
    other.load_state_dict(net.state_dict())
    torch.testing.assert_close(other.eval()(x), net.eval()(x), rtol=0, atol=0)
    assert isinstance(net(x), torch.Tensor)


@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="torch's own bfloat16 kernels know one format alone"
)
@pytest.mark.parametrize(("skip", "decoder"), BOTTLENECKS)
@pytest.mark.parametrize("upsample", ["transposed", "linear"])
@pytest.mark.parametrize("in_channels", [1, 2])
def test_channels_last_is_kept_throughout(in_channels, upsample, skip, decoder):
    # In bfloat16, because a float32 convolution of so few voxels goes to a kernel that knows one format alone.
    changes = {"skip_bottleneck": skip, "decoder_bottleneck": decoder, "upsample": upsample, "residual": True}
    net = UNet(in_channels, 3, replace(SMALL, **changes))
    broken = []

    def check(module, inputs, output):
        if not all(t.is_contiguous(memory_format=torch.channels_last_3d) for t in (*inputs, output)):
            broken.append(module)

    for child in net.children():
        for module in child.modules():
            module.register_forward_hook(check)
    with torch.autocast("cpu", torch.bfloat16):
        out = net(torch.randn(2, in_channels, 4, 8, 8))
    assert not broken
    assert out.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("shape", "numbers"),
    [((1, 1, 34, 52, 35), ["(8, 8, 8)", "(6, 4, 5)", "(40, 56, 40)"]), ((1, 2, 8, 8, 8), ["(B, 1, X, Y, Z)"])],
)
def test_an_image_that_does_not_fit_is_refused_with_the_padding_or_the_channels(shape, numbers):
    with pytest.raises(ValueError, match="image") as error:
        UNet(1, 3, HIPPOCAMPUS)(torch.zeros(shape))
    assert all(number in str(error.value) for number in numbers)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"channels": (4,)}, "network.channels"),
        ({"strides": ((1, 1, 1),)}, "network.strides"),
        ({"strides": ((2, 1, 1), (2, 2, 2), (2, 2, 2))}, "network.strides[0]"),
        ({"kernel_sizes": ((1, 3, 3), (2, 3, 3), (3, 3, 3))}, "network.kernel_sizes[1]"),
        ({"decoder_bottleneck": BottleneckConfig(ratio=(0.5, 0.5, 0.5))}, "network.decoder_bottleneck.ratio"),
    ],
)
def test_fields_that_do_not_fit_one_another_are_named(change, path):
    with pytest.raises(ConfigError) as caught:
        UNet(1, 2, replace(SMALL, **change))
    assert path in [problem.path for problem in caught.value.problems]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exported_program_computes_the_same(dtype):
    torch.manual_seed(0)
    spec = BottleneckConfig(ratio=0.5, activation="leaky_relu", norm=True)
    net = UNet(1, 3, replace(SMALL, skip_bottleneck=spec, decoder_bottleneck=spec, upsample="linear"))
    x = torch.randn(1, 1, 4, 8, 8, dtype=dtype)
    program = torch.export.export(net.to(dtype).eval(), (x,))
    expected = net(x)
    if dtype == torch.float64:
        torch.testing.assert_close(program.module()(x), expected)
    else:  # other kernels round in other ways, by the processor, and norms over few voxels enlarge that
        torch.testing.assert_close(program.module()(x), expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_the_deep_supervision_loss_of_monai_takes_the_training_output():
    torch.manual_seed(0)
    net = UNet(1, 3, replace(SMALL, deep_supervision=True)).train()
    label = torch.randint(3, (2, 1, 8, 8, 8)).float()
    outputs = net(torch.randn(2, 1, 8, 8, 8))
    single = DiceCELoss(to_onehot_y=True, softmax=True)
    found = DeepSupervisionLoss(single)(outputs, label)
    sizes = [torch.nn.functional.interpolate(label, one.shape[2:], mode="nearest-exact") for one in outputs]
    expected = sum(0.5**n * single(one, size) for n, (one, size) in enumerate(zip(outputs, sizes, strict=True)))
    assert len(outputs) > 1
    torch.testing.assert_close(found, expected)
