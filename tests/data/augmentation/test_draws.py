"""Draws of deformations: their ranges, their independence, the turns they stand for."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from seg.config import SpatialConfig
from seg.data.augmentation.spatial import draw_deformations, rotation_matrices

AXES = pytest.mark.parametrize("axes", [(), (2,), (0, 1), (0, 1, 2)])


def draw(batch, size, seed=0, **fields):
    return draw_deformations(batch, torch.Size(size), SpatialConfig(**fields), torch.Generator().manual_seed(seed))


def test_turns_are_about_x_then_y_then_z():
    angles = torch.tensor([[0.3, -1.1, 2.0], [0.0, 0.0, 0.0]])
    expected = Rotation.from_euler("xyz", angles.numpy()).as_matrix()
    np.testing.assert_allclose(rotation_matrices(angles).numpy(), expected, atol=1e-6)


@AXES
def test_only_named_axes_are_zoomed(axes):
    fields = {"scale": (0.5, 0.8), "anisotropic_scale": 0.1}
    drawn, everywhere = draw(50, (8, 8, 8), **fields, scale_axes=axes), draw(50, (8, 8, 8), **fields)
    for axis in range(3):
        expected = everywhere.zooms[:, axis] if axis in axes else torch.ones(50)
        assert torch.equal(drawn.zooms[:, axis], expected)


@AXES
def test_only_named_axes_are_displaced(axes):
    fields = {"elastic_voxels": 2.0, "mirror_axes": (0, 1, 2)}
    drawn, everywhere = draw(50, (9, 8, 3), **fields, elastic_axes=axes), draw(50, (9, 8, 3), **fields)
    for axis in range(3):
        expected = everywhere.control[:, axis] if axis in axes else torch.zeros(50, 2, 2, 2)
        assert torch.equal(drawn.control[:, axis], expected)
    assert torch.equal(drawn.mirrored, everywhere.mirrored)


def test_draws_keep_their_ranges():
    ranges = {"rotation_deg": (10.0, 0.0, 90.0), "shift": (0.0, 3.0, 1.0), "elastic_voxels": 2.0, "elastic_grid": 4}
    drawn = draw(2000, (9, 8, 3), probability=0.25, scale=(0.5, 2.0), anisotropic_scale=0.2, **ranges)
    assert drawn.active.float().mean() == pytest.approx(0.25, abs=0.04)
    assert torch.rad2deg(drawn.angles).abs().amax(0) == pytest.approx([10, 0, 90], rel=0.01)
    assert drawn.shifts.abs().amax(0) == pytest.approx([0, 3, 1], rel=0.01)
    ratio = drawn.zooms / drawn.zooms.prod(1, keepdim=True) ** (1 / 3)
    assert ratio.max() < 1.2 / 0.8
    assert 0.5 * 0.8 < drawn.zooms.min() < drawn.zooms.max() < 2 * 1.2
    # Halving is as likely as doubling.
    assert drawn.zooms.log2().mean() == pytest.approx(0, abs=0.05)
    assert drawn.control.shape == (2000, 3, 4, 3, 2)
    assert drawn.control.std() == pytest.approx(2.0, rel=0.02)


def test_one_range_leaves_the_draws_of_the_others():
    fields = {"scale": (0.5, 2.0), "elastic_voxels": 3.0, "rotation_deg": (0.0, 0.0, 0.0)}
    one, two = (draw(9, (8, 8, 8), seed=5, mirror_axes=(0, 1, 2), **more) for more in ({}, fields))
    assert torch.equal(one.active, two.active)
    assert torch.equal(one.mirrored, two.mirrored)
    assert not torch.equal(one.zooms, two.zooms)


def test_control_points_lie_no_further_apart_than_the_grid():
    for length, grid in itertools.product(range(1, 60), (2, 5, 12)):
        drawn = draw(1, (length, 1, 1), elastic_grid=grid, elastic_voxels=1.0)
        assert (length - 1) / (drawn.control.shape[2] - 1) <= grid
