"""What is read at a bottleneck is what enters it and what it hands over."""

from dataclasses import replace

import pytest
import torch

from seg.ablation.preservation.features import find_places, recording
from seg.config import BottleneckConfig, NetworkConfig
from seg.networks import UNet
from seg.networks.bottleneck import DecoderBottleneck

PLAN = NetworkConfig(channels=(4, 6, 8), strides=((1,) * 3, (2, 2, 1), (2,) * 3), kernel_sizes=((3,) * 3,) * 3)
LINEAR = BottleneckConfig(ratio=0.5, activation="relu")
NORMED = BottleneckConfig(ratio=0.5, activation="leaky_relu", norm=True)


def build(skip=None, decoder=None, **options):
    torch.manual_seed(0)
    net = UNet(1, 3, replace(PLAN, skip_bottleneck=skip, decoder_bottleneck=decoder, **options))
    return net.double().eval().requires_grad_(False)


def read(net, x):
    found = {}
    places = find_places(net)
    with (
        torch.inference_mode(),
        recording(net, places, lambda place, wide, narrow: found.update({place.name: (place, wide, narrow)})),
    ):
        out = net(x)
    return out, found


@pytest.mark.parametrize("merge", ["concat", "add"])
@pytest.mark.parametrize("upsample", ["transposed", "linear"])
@pytest.mark.parametrize("skip", [LINEAR, BottleneckConfig(ratio=2.0, activation="sigmoid"), None])
@pytest.mark.parametrize("decoder", [LINEAR, NORMED, None])
def test_the_block_maps_what_enters_to_what_is_out_over(merge, upsample, skip, decoder):
    net = build(skip, decoder, merge=merge, upsample=upsample)
    x = torch.randn(1, 1, 8, 8, 4, dtype=torch.float64)
    out, found = read(net, x)
    assert sorted(found) == ["decoder_0", "decoder_1", "skip_0", "skip_1"]
    for place, wide, narrow in found.values():
        assert wide.shape[1] == place.wide
        assert tuple(n * s for n, s in zip(wide.shape[2:], place.stride, strict=True)) == (8, 8, 4)
        if place.block is None:
            assert narrow is None
            assert (place.out, place.narrow, place.reduce) == (0, 0, None)
        else:
            assert narrow.shape[1] == place.out
            torch.testing.assert_close(place.block(wide), narrow, rtol=1e-9, atol=1e-12)
    # The merged input of the uppermost stage gives the network's own logits.
    stage = net.decoder[0].block
    wide = found["decoder_0"][1]
    torch.testing.assert_close(net.heads[0](stage(wide)), out, rtol=1e-9, atol=1e-12)
    assert isinstance(stage, DecoderBottleneck) == (decoder is not None)


def test_widths_of_the_places():
    places = find_places(build(BottleneckConfig(ratio=0.5), BottleneckConfig(ratio=(0.25, 1.0))))
    assert [(place.channels, place.wide, place.narrow, place.out) for place in places] == [
        (4, 4, 2, 2),
        (6, 6, 3, 3),
        (4, 6, 1, 1),
        (6, 9, 6, 6),
    ]
    wide = find_places(build(BottleneckConfig(ratio=2.0)))[0]
    assert (wide.wide, wide.narrow, wide.out) == (4, 4, 4)
    added = find_places(build(BottleneckConfig(ratio=0.5), merge="add"))[0]
    assert (added.wide, added.narrow, added.out) == (4, 2, 4)  # projected back, but through two channels


def test_reading_changes_nothing_and_leaves_no_hook():
    net = build(LINEAR, NORMED)
    x = torch.randn(1, 1, 8, 8, 4, dtype=torch.float64)
    out, _ = read(net, x)
    calls = []
    with pytest.raises(RuntimeError), recording(net, find_places(net), lambda *args: calls.append(args)):
        raise RuntimeError
    with torch.inference_mode():
        assert torch.equal(net(x), out)
    assert calls == []
