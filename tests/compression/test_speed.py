"""What feature maps cost beside multiply-accumulates, found from times that are known."""

import pytest
import torch

from seg.compression.speed import MOST_OF_ELEMENTS, time_of_elements
from seg.config import NetworkConfig
from seg.networks import map_elements, network_from_config
from tests.costs import checked_complexity

SHAPE = (16, 16, 16)


@pytest.mark.parametrize("vector", [1, 8])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(
    ("share", "found"),
    [(0.0, 0.0), (0.3, 0.3), (-0.5, 0.0), (1.0, MOST_OF_ELEMENTS)],
    ids=["none", "some", "less", "all"],
)
def test_the_cost_is_found_from_times_that_it_explains(share, found, residual, vector):
    config = NetworkConfig(
        channels=(6, 8, 12),
        strides=((1, 1, 1), (2, 2, 2), (1, 2, 2)),
        kernel_sizes=((3, 3, 3), (1, 3, 3), (3, 3, 3)),
        residual=residual,
    )
    torch.manual_seed(0)
    net = network_from_config(config, 2, 3).eval()
    macs = checked_complexity(2, 3, config, shape=SHAPE).vector_macs(vector)
    elements = map_elements(config, shape=SHAPE)

    def ratio(other):
        by_macs = checked_complexity(2, 3, other.config, shape=SHAPE).vector_macs(vector) / macs
        return (1 - share) * by_macs + share * map_elements(other.config, shape=SHAPE) / elements

    assert time_of_elements(net, SHAPE, ratio, vector) == pytest.approx(found / (1 - found) * macs / elements)
