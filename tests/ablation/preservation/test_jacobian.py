"""Position: exact for a 1x1 with a pointwise function, with a norm's statistics held, refuted for a full kernel."""

import pytest
import torch
from torch import nn

from seg.ablation.preservation.features import keeps_position
from seg.config import BottleneckConfig
from seg.networks import InstanceNorm3d
from seg.networks.bottleneck import DecoderBottleneck, SkipBottleneck


def skip(activation="none", ratio=0.5, norm=False):
    torch.manual_seed(0)
    return SkipBottleneck(4, BottleneckConfig(ratio=ratio, activation=activation, norm=norm), ratio, "concat")


@pytest.mark.parametrize("activation", ["none", "relu", "leaky_relu", "prelu", "sigmoid"])
@pytest.mark.parametrize("ratio", [0.5, 2.0])
def test_a_1x1_keeps_position(activation, ratio):
    assert keeps_position(skip(activation, ratio).requires_grad_(False), 4) is True


def test_agrees_with_changing_every_other_voxel():
    block = skip("leaky_relu")
    x = torch.randn(1, 4, 3, 3, 3)
    other = torch.randn(1, 4, 3, 3, 3)
    other[..., 1, 1, 1] = x[..., 1, 1, 1]
    with torch.no_grad():
        assert torch.equal(block(x)[..., 1, 1, 1], block(other)[..., 1, 1, 1])


@pytest.mark.parametrize("seed", range(3))
def test_a_shut_relu_hides_nothing(seed):
    torch.manual_seed(seed)
    assert keeps_position(nn.Sequential(nn.Conv3d(2, 1, 1), nn.ReLU()), 2) is True
    assert keeps_position(nn.Sequential(nn.Conv3d(2, 1, 3, padding=1), nn.ReLU()), 2) is False


def test_the_statistics_of_a_norm_are_held():
    assert keeps_position(skip("leaky_relu", norm=True), 4) is True
    held = nn.Sequential(nn.Conv3d(2, 2, 3, padding=1), InstanceNorm3d(2, negative_slope=0.01))
    assert keeps_position(held, 2) is False


def test_an_output_that_depends_on_nothing_keeps_nothing():
    norm = InstanceNorm3d(2)
    nn.init.zeros_(norm.weight)
    assert keeps_position(nn.Sequential(nn.Conv3d(2, 2, 1), norm), 2) is False
    assert isinstance(norm, InstanceNorm3d)
    block = skip()
    nn.init.zeros_(block.reduce.weight)
    assert keeps_position(block, 4) is False
    assert block.reduce.weight.dtype == torch.float32  # the block itself stays as it is


def test_the_reduction_of_a_decoder_keeps_position_and_the_whole_stage_does_not():
    block = DecoderBottleneck(4, (2, 2, 4), (3, 3, 3), BottleneckConfig(ratio=0.5))
    assert keeps_position(nn.Sequential(block.reduce, block.pointwise), 4) is True
    assert keeps_position(block.conv.conv, 2) is False


def test_a_far_neighbour_of_tiny_weight_is_seen():
    conv = nn.Conv3d(1, 1, 3, padding=1)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[0, 0, 1, 1, 1] = 1.0
        assert keeps_position(conv, 1) is True
        conv.weight[0, 0, 0, 2, 0] = 1e-30
    assert keeps_position(conv, 1) is False
