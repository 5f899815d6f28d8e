"""Counted cost against torch's FLOP counter, the modules' own parameters and the published table."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from seg.config import BottleneckConfig, NetworkConfig, WidthsConfig
from seg.networks import UNet, complexity, map_elements
from tests.costs import checked_complexity

PLAN = NetworkConfig(
    channels=(4, 6, 7, 8),
    strides=((1, 1, 1), (1, 2, 2), (2, 2, 2), (1, 1, 2)),
    kernel_sizes=((1, 3, 3), (3, 3, 3), (3, 3, 5), (3, 3, 3)),
)
HIPPOCAMPUS = NetworkConfig(
    channels=(32, 64, 128, 256), strides=((1,) * 3, *((2,) * 3,) * 3), kernel_sizes=((3,) * 3,) * 4
)
SKIPS = [
    None,
    BottleneckConfig(ratio=0.3),
    BottleneckConfig(ratio=(0.5, 1.0, 2.0), activation="prelu"),
    BottleneckConfig(ratio=1.3, norm=True, activation="sigmoid"),
]
DECODERS = [None, BottleneckConfig(ratio=0.5), BottleneckConfig(ratio=(1.0, 0.1, 3.0), activation="prelu", norm=True)]
OPTIONS = [
    {"upsample": u, "merge": m, "residual": r, "deep_supervision": r}
    for u, m, r in itertools.product(("transposed", "linear"), ("concat", "add"), (False, True))
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("skip", SKIPS)
@pytest.mark.parametrize("decoder", DECODERS)
def test_equals_what_torch_counts(options, skip, decoder):
    config = replace(PLAN, skip_bottleneck=skip, decoder_bottleneck=decoder, **options)
    checked_complexity(2, 3, config, shape=(4, 8, 8))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("decoder", [None, BottleneckConfig(ratio=0.5)])
def test_widths_of_single_maps_equal_what_torch_counts(options, decoder):
    wide = ((5, 4, 3), (7, 5, 9), (9, 8, 11)) if decoder else ((5, 3), (7, 9), (9, 11))
    ranks = ((0, 2), (3, 4))
    widths = WidthsConfig(
        encoder=(3, 9, 5, 7),
        up=(4, 6, 7) if options["merge"] == "add" else (2, 6, 3),
        decoder=wide,
        encoder_ranks=(ranks, ((5, 0), (0, 0)), ((2, 3), (4, 5)), ranks),
        decoder_ranks=(((2, 3),), ((0, 0),), ((4, 0),)) if decoder else (ranks, ((0, 0), (1, 1)), ((0, 2), (2, 0))),
    )
    config = replace(PLAN, decoder_bottleneck=decoder, widths=widths, **options)
    checked_complexity(2, 3, config, shape=(4, 8, 8))


@pytest.mark.parametrize(
    ("skip", "decoder", "channels", "million", "gmac", "saved"),
    [
        (None, None, (32, 64, 128, 256), 5.60, 19.1, 0),
        (1 / 4, None, (32, 64, 128, 256), 5.17, 15.9, 17),
        (1 / 16, None, (32, 64, 128, 256), 5.06, 15.1, 21),
        (1 / 4, 1 / 2, (32, 64, 128, 256), 4.03, 7.4, 61),
        (1 / 4, 1 / 4, (32, 64, 128, 256), 3.91, 6.5, 66),
        (None, None, (16, 16, 16, 16), 0.12, 3.0, 84),
    ],
)
def test_reproduces_the_table_of_the_hippocampus(skip, decoder, channels, million, gmac, saved):
    config = replace(
        HIPPOCAMPUS,
        channels=channels,
        skip_bottleneck=BottleneckConfig(ratio=skip) if skip else None,
        decoder_bottleneck=BottleneckConfig(ratio=decoder) if decoder else None,
    )
    cost = complexity(1, 3, config, shape=(40, 56, 40))
    assert round(cost.parameters / 1e6, 2) == million
    assert round(cost.macs / 1e9, 1) == gmac
    assert round(100 * (1 - cost.macs / 19.14e9)) == saved


def test_baseline_of_the_hippocampus_part_by_part():
    cost = complexity(1, 3, HIPPOCAMPUS, shape=(40, 56, 40))
    assert cost.parameters == 5_600_963
    assert round(cost.macs / 1e9, 2) == 19.14
    parts = {stage.name: stage for stage in cost.stages}
    assert list(parts) == [
        *("encoder 0", "encoder 1", "encoder 2", "bottom"),
        *("skip 2", "upsample 2", "decoder 2", "skip 1", "upsample 1", "decoder 1"),
        *("skip 0", "upsample 0", "decoder 0", "head 0"),
    ]
    voxels = 40 * 56 * 40
    assert parts["encoder 0"].macs == voxels * 27 * (1 * 32 + 32 * 32)
    assert parts["decoder 0"].macs == voxels * 27 * (64 * 32 + 32 * 32)
    assert parts["skip 0"].parameters == parts["skip 0"].macs == 0
    assert parts["head 0"].parameters == 3 * 32 + 3


def test_shape_must_be_divisible():
    with pytest.raises(ValueError, match=r"\(2, 4, 8\)"):
        complexity(1, 3, PLAN, shape=(4, 8, 9))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("skip", [None, BottleneckConfig(ratio=0.5), BottleneckConfig(ratio=1.3)])
@pytest.mark.parametrize("decoder", [None, BottleneckConfig(ratio=0.5)])
@pytest.mark.parametrize("with_ranks", [False, True])
def test_map_elements_are_what_convolutions_and_interpolations_write(options, skip, decoder, with_ranks):
    ranks = (((0, 2), (3, 4)), ((5, 0), (0, 0)), ((1, 1), (2, 2)), ((0, 0), (3, 0)))
    behind = tuple(stage[:1] if decoder else stage for stage in ranks[:3])
    widths = WidthsConfig(encoder=(3, 9, 5, 7), encoder_ranks=ranks, decoder_ranks=behind) if with_ranks else None
    config = replace(PLAN, skip_bottleneck=skip, decoder_bottleneck=decoder, widths=widths, **options)
    with torch.device("meta"):
        net = UNet(2, 3, config).eval()
        image = torch.empty(1, 2, 4, 8, 8)
    written = []
    for name, module in net.named_modules():
        # What a decoder's 1x1 reduces is seen behind its activation, as concatenated features go by no module.
        reduced = name.endswith("block.pointwise")
        leaf = isinstance(module, (nn.Conv3d, nn.ConvTranspose3d)) and not name.endswith("block.reduce")
        if reduced or (leaf and not name.startswith("heads") and ".block.pointwise." not in name):
            level = int(name.split(".")[1])
            begins_with_1x1 = decoder is not None or (with_ranks and level < 3 and ranks[level][0][0] > 0)
            early = begins_with_1x1 and options["merge"] == "concat"
            larger = options["upsample"] == "linear" and name.endswith(".up") and not early
            times = math.prod(config.strides[level + 1]) if larger else 1
            module.register_forward_hook(lambda *call, times=times: written.append(times * call[2].numel()))
            if early and name.endswith(".block.0.conv.conv"):  # nor do they by the 1x1 before a kernel
                module.register_forward_pre_hook(lambda *call: written.append(call[1][0].numel()))
    net(image)
    assert map_elements(config, shape=(4, 8, 8)) == sum(written)
