"""Strides and kernels against nnU-Net's own plans, and their properties."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from seg.planning.topology import plan_topology, round_up

SIZES = st.tuples(*[st.integers(1, 400)] * 3)
SPACINGS = st.tuples(*[st.floats(0.3, 12)] * 3)


# The plans are those of the paper's supplement, with the axes turned to X, Y, Z.


def test_topology_of_nnunets_hippocampus():
    topology = plan_topology((40, 56, 40), (1.0, 1.0, 1.0))
    assert topology.strides == ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    assert topology.kernel_sizes == ((3, 3, 3),) * 4


def test_topology_of_nnunets_acdc():
    topology = plan_topology((224, 256, 20), (1.56, 1.56, 5.0))
    assert topology.strides == ((1, 1, 1), (2, 2, 1), (2, 2, 2), (2, 2, 2), (2, 2, 1), (2, 2, 1))
    assert topology.kernel_sizes == ((3, 3, 1), *((3, 3, 3),) * 5)


def test_topology_of_nnunets_brain_tumours():
    topology = plan_topology((128, 128, 128), (1.0, 1.0, 1.0))
    assert topology.strides == ((1, 1, 1), *((2, 2, 2),) * 5)


def test_limit_keeps_an_axis_from_being_pooled_away():
    free = plan_topology((160, 160, 16), (1.5, 1.5, 9.0))
    held = plan_topology((160, 160, 16), (1.5, 1.5, 9.0), (160, 160, 6))
    assert free.divisors[2] == 4
    assert held.divisors == (32, 32, 1)


def test_flat_axis_has_flat_kernels():
    topology = plan_topology((64, 64, 1), (1.0, 1.0, 1.0))
    assert {kernel[2] for kernel in topology.kernel_sizes} == {1}
    assert {stride[2] for stride in topology.strides} == {1}


def test_volumes_too_small_to_pool_still_make_two_stages():
    assert plan_topology((6, 7, 5), (1.0, 1.0, 4.0)).strides == ((1, 1, 1), (1, 2, 1))


def test_short_fine_axis_does_not_flatten_the_other_kernels():
    topology = plan_topology((5, 64, 64), (1.0, 3.0, 3.0))
    assert topology.strides[1] == (1, 2, 2)
    assert topology.kernel_sizes[0] == (3, 3, 3)


@given(size=SIZES, spacing=SPACINGS)
def test_topology_properties(size, spacing):
    topology = plan_topology(size, spacing)
    patch = round_up(size, topology.divisors)
    assert len(topology.strides) == len(topology.kernel_sizes) <= 6
    assert len(topology.strides) >= 2
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
