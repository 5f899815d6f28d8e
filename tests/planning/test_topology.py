"""Strides and kernels against nnU-Net's own plans, and their properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg.planning.topology import plan_topology, round_up

ALL = (2, 2, 2)


@pytest.mark.parametrize(
    ("size", "spacing", "strides", "first_kernel"),
    [
        # The plans are those of the paper's supplement, with the axes turned to X, Y, Z: hippocampus, ACDC, BraTS.
        ((40, 56, 40), (1.0, 1.0, 1.0), (ALL,) * 3, (3, 3, 3)),
        ((224, 256, 20), (1.56, 1.56, 5.0), ((2, 2, 1), ALL, ALL, (2, 2, 1), (2, 2, 1)), (3, 3, 1)),
        ((128, 128, 128), (1.0, 1.0, 1.0), (ALL,) * 5, (3, 3, 3)),
        ((64, 64, 1), (1.0, 1.0, 1.0), ((2, 2, 1),) * 4, (3, 3, 1)),  # a flat axis has flat kernels
        ((6, 7, 5), (1.0, 1.0, 4.0), ((1, 2, 1),), (3, 3, 1)),  # too small to pool: two stages still
        ((40, 6, 6), (1.0, 1.0, 1.0), ((2, 1, 1),) * 2, (3, 3, 3)),  # a single axis is not halved below 12 voxels
        ((5, 64, 64), (1.0, 3.0, 3.0), ((1, 2, 2),) * 4, (3, 3, 3)),  # a short fine axis does not flatten the others
    ],
)
def test_topology_of_known_patches(size, spacing, strides, first_kernel):
    topology = plan_topology(size, spacing)
    assert topology.strides == ((1, 1, 1), *strides)
    assert topology.kernel_sizes[0] == first_kernel
    assert topology.kernel_sizes[-1] == tuple(3 if edge >= 3 else 1 for edge in size)


def test_limit_keeps_an_axis_from_being_pooled_away():
    assert plan_topology((160, 160, 16), (1.5, 1.5, 9.0)).divisors[2] == 4
    assert plan_topology((160, 160, 16), (1.5, 1.5, 9.0), (160, 160, 6)).divisors == (32, 32, 1)


@given(size=st.tuples(*[st.integers(1, 400)] * 3), spacing=st.tuples(*[st.floats(0.3, 12)] * 3))
def test_topology_properties(size, spacing):
    topology = plan_topology(size, spacing)
    patch = round_up(size, topology.divisors)
    assert 2 <= len(topology.strides) == len(topology.kernel_sizes) <= 6
    assert topology.strides[0] == (1, 1, 1)
    for axis in range(3):
        divisor = topology.divisors[axis]
        assert 0 <= patch[axis] - size[axis] < divisor
        assert patch[axis] % divisor == 0
        assert patch[axis] / divisor >= 4 or divisor == 1 or len(topology.strides) == 2
        kernels = [kernel[axis] for kernel in topology.kernel_sizes]
        assert kernels == sorted(kernels)
    for stride, kernel in zip(topology.strides[1:], topology.kernel_sizes, strict=False):
        for axis in range(3):
            # No voxels are dropped unseen: an axis is halved only where the kernels above it span it.
            assert stride[axis] == 1 or kernel[axis] == 3 or size[axis] < 3 or max(size) < 8
            assert stride[axis] == 1 or size[axis] >= 8 or max(size) < 8
