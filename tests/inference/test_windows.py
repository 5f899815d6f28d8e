from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data.utils import compute_importance_map, dense_patch_slices

from seg.inference.windows import Windows, blend_weights, whole_window, window_starts

EDGE = st.integers(1, 12)


@given(st.integers(1, 60), EDGE, st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.5, 0.75, 0.9]))
@settings(max_examples=100, deadline=None)
def test_windows_begin_where_monai_begins_them(size, window, overlap):
    padded = max(size, window)
    step = window if window == padded else max(int(window * (1 - overlap)), 1)
    expected = [place[0].start for place in dense_patch_slices((padded,), (window,), (step,))]
    shift = (padded - size) // 2
    assert window_starts(size, window, overlap) == [start - shift for start in expected]


@pytest.mark.parametrize("blend", ["gaussian", "constant"])
@pytest.mark.parametrize("size", [(40, 56, 40), (8, 1, 3), (64, 64, 64)])
def test_weights_are_those_of_monai(size, blend):
    expected = compute_importance_map(size, mode=blend, sigma_scale=0.125)
    torch.testing.assert_close(blend_weights(size, blend, torch.device("cpu")), expected)
    weights = blend_weights(size, blend)
    assert weights.dtype == np.float32
    torch.testing.assert_close(torch.from_numpy(weights), expected)


def test_weights_of_torch_have_the_bits_of_its_own_exponential():
    profiles = []
    for edge in (40, 56, 41):  # what published predictions were blended with
        place = torch.arange(edge) - (edge - 1) / 2
        profiles.append(torch.exp(place**2 / (-2 * (0.125 * edge) ** 2)))
    x, y, z = profiles
    weights = x[:, None, None] * y[:, None] * z
    expected = weights.clamp_min(max(float(weights.min()), 1e-3))
    assert torch.equal(blend_weights((40, 56, 41), "gaussian", torch.device("cpu")), expected)


def test_a_window_beyond_the_volume_is_filled_with_zeros():
    volume = torch.arange(1.0, 61).view(1, 3, 4, 5)
    windows = Windows.over((3, 4, 5), (6, 4, 4), 0.0)
    assert windows.starts == ([-1], [0], [0, 1])
    crop = windows.crop(volume, (-1, 0, 1))
    assert crop.shape == (1, 6, 4, 4)
    torch.testing.assert_close(crop[:, 1:4], volume[..., 1:])
    assert not crop[:, :1].any()
    assert not crop[:, 4:].any()
    assert windows.inside((-1, 0, 1)) == (slice(0, 3), slice(0, 4), slice(1, 5))
    assert windows.own((-1, 0, 1)) == (slice(1, 4), slice(0, 4), slice(0, 4))


@pytest.mark.parametrize("axes", itertools.permutations(range(3)))
def test_the_order_of_a_sweep_holds_every_window_once(axes):
    windows = Windows.over((21, 17, 12), (8, 8, 8), 0.5)
    starts = [start for _, start in windows.in_order(axes)]
    assert sorted(starts) == sorted(itertools.product(*windows.starts))
    # The last two starts along an axis are one step: 8 and 12 precede 13 of the first axis together.
    steps = [min(start[axes[0]], windows.starts[axes[0]][-2]) for start in starts]
    assert steps == sorted(steps)


def test_a_sweep_runs_along_the_axis_across_which_least_is_carried():
    assert Windows.over((50, 20, 30), (8, 8, 8), 0.5).sweep() == (0, 2, 1)
    assert Windows.over((8, 40, 40), (8, 4, 8), 0.5).sweep()[0] == 0  # one window: nothing is carried


@pytest.mark.parametrize(
    ("shape", "multiple", "window"),
    [
        ((35, 50, 35), (8, 8, 8), (40, 56, 40)),
        ((40, 56, 41), (8, 8, 4), (40, 56, 44)),
        ((3, 2, 4), (8, 4, 4), (16, 4, 4)),
    ],
)
def test_a_whole_volume_is_padded_to_the_stride_of_the_network(shape, multiple, window):
    assert whole_window(shape, multiple) == window
