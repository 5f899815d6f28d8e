"""What feature maps cost beside multiply-accumulates, and what narrower ones save, found from times that are known."""

from dataclasses import replace

import pytest
import torch

from seg.compression import narrowing
from seg.compression.narrowing import time_narrowing
from seg.compression.speed import MOST_OF_ELEMENTS, time_of_elements
from seg.config import NetworkConfig, WidthsConfig
from seg.networks import map_elements, network_from_config
from seg.networks.complexity import checked_complexity

SHAPE = (16, 16, 16)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(
    ("share", "found"),
    [(0.0, 0.0), (0.3, 0.3), (-0.5, 0.0), (1.0, MOST_OF_ELEMENTS)],
    ids=["none", "some", "less", "all"],
)
def test_the_cost_is_found_from_times_that_it_explains(share, found, residual):
    config = NetworkConfig(
        channels=(6, 8, 12),
        strides=((1, 1, 1), (2, 2, 2), (1, 2, 2)),
        kernel_sizes=((3, 3, 3), (1, 3, 3), (3, 3, 3)),
        residual=residual,
    )
    torch.manual_seed(0)
    net = network_from_config(config, 2, 3).eval()
    macs, elements = checked_complexity(2, 3, config, shape=SHAPE).macs, map_elements(config, shape=SHAPE)

    def ratio(other):
        by_macs = checked_complexity(2, 3, other.config, shape=SHAPE).macs / macs
        return (1 - share) * by_macs + share * map_elements(other.config, shape=SHAPE) / elements

    assert time_of_elements(net, SHAPE, ratio) == pytest.approx(found / (1 - found) * macs / elements)


def test_what_a_narrower_map_saves_is_of_rounds_in_turns(monkeypatch):
    full = NetworkConfig(channels=(6, 8), strides=((1, 1, 1), (2, 2, 2)), kernel_sizes=((3, 3, 3),) * 2)
    narrow = replace(full, widths=WidthsConfig(encoder=(3, 8)))

    def known(calls, timer, *, rounds, warmup):
        for call in calls.values():
            call()
        assert rounds > warmup > 0
        return {"full": (0.4, 0.2, 0.3), "narrow": (0.2, 0.1, 0.2)}

    monkeypatch.setattr(narrowing, "interleave", known)
    found = time_narrowing(1, 2, full, narrow, SHAPE)
    assert (found.full_ms, found.saved_ms, found.speedup) == pytest.approx((300, 100, 2))
    assert found.speedup_quartiles == pytest.approx((1.75, 2))
