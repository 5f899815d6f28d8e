"""The least time of a network: closed forms, and what torch counts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from seg.benchmark.roofline import Ceilings, Work, count_work, floor, measure_ceilings
from seg.benchmark.subjects import Runtime, Subject, with_peers

VOXELS = 4 * 6 * 8


def on_meta(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers).to("meta")


def test_a_convolution_reads_its_image_and_weights_and_writes_its_output() -> None:
    (work,) = count_work(on_meta(nn.Conv3d(3, 5, 3, padding=1, bias=False)), (2, 3, 4, 6, 8), 4)
    assert work.flops == 2 * 2 * VOXELS * 3 * 5 * 27
    assert work.bytes == 4 * (2 * VOXELS * (3 + 5) + 3 * 5 * 27)


def test_half_the_bytes_in_bf16_and_three_times_the_work_with_the_backward_pass() -> None:
    network = on_meta(nn.Conv3d(3, 5, 1, bias=False), nn.Conv3d(5, 3, 1, bias=False))
    single, half = (sum(w.bytes for w in count_work(network, (1, 3, 4, 6, 8), size)) for size in (4, 2))
    assert single == 2 * half
    forward = sum(w.flops for w in count_work(network, (1, 3, 4, 6, 8), 4))
    step = sum(w.flops for w in count_work(network, (1, 3, 4, 6, 8), 4, training=True))
    assert step == 3 * forward - forward // 2  # no gradient of the image, which costs as much as the first layer


def test_views_move_nothing_and_a_norm_reads_its_input_twice() -> None:
    assert count_work(on_meta(nn.Flatten()), (2, 3, 4, 6, 8), 4) == []
    work = count_work(on_meta(nn.InstanceNorm3d(3)), (1, 3, 4, 6, 8), 4)
    assert sum(w.flops for w in work) == 0
    assert sum(w.bytes for w in work) == pytest.approx(4 * 3 * 3 * VOXELS, rel=0.02)  # and a few numbers per channel


def test_a_floor_is_the_longer_of_arithmetic_and_bytes_operator_by_operator() -> None:
    ceilings = Ceilings(flops=10.0, bytes=2.0)
    bound = [Work(flops=100, bytes=2), Work(flops=10, bytes=8)]
    moved = Work(flops=0, bytes=6)
    found = floor([*bound, moved], ceilings)
    assert (found.unfused_s, found.fused_s) == (10 + 4 + 3, 10 + 4)


def test_the_work_of_a_network_and_its_peers_is_what_torch_counts(subject: Subject) -> None:
    network = replace(
        subject.config.network,
        channels=(4, 6, 8),
        strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)),
        kernel_sizes=((3, 3, 3),) * 3,
    )
    patches = replace(subject.config.patches, size=(32, 16, 16))
    deep = replace(subject, config=replace(subject.config, network=network, patches=patches))
    for one in (deep, *with_peers(deep)):
        built = one.on_meta()
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            built.eval()(torch.empty(1, one.ends[0], 32, 16, 16, device="meta"))
        assert sum(w.flops for w in count_work(built, (1, one.ends[0], 32, 16, 16), 4)) == counter.get_total_flops() > 0


def test_ceilings_are_measured() -> None:
    found = measure_ceilings(Runtime(device=torch.device("cpu"), precision="fp32"))
    assert found.flops > 1e9
    assert found.bytes > 1e8
