"""Draws of deformations: their ranges, their independence, the turns they stand for."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from seg.config import SpatialConfig
from seg.data.augmentation.spatial import draw_deformations, rotation_matrices


def test_turns_are_about_x_then_y_then_z():
    angles = torch.tensor([[0.3, -1.1, 2.0], [0.0, 0.0, 0.0]])
    expected = Rotation.from_euler("xyz", angles.numpy()).as_matrix()
    np.testing.assert_allclose(rotation_matrices(angles).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("axes", [(), (2,), (0, 1), (0, 1, 2)])
def test_only_named_axes_are_zoomed(axes):
    config = SpatialConfig(scale=(0.5, 0.8), anisotropic_scale=0.1, scale_axes=axes)
    drawn = draw_deformations(50, torch.Size((8, 8, 8)), config, torch.Generator().manual_seed(0))
    for axis in range(3):
        one = drawn.zooms[:, axis] == 1
        assert not one.any() if axis in axes else one.all()
    same_stream = draw_deformations(
        50,
        torch.Size((8, 8, 8)),
        SpatialConfig(scale=(0.5, 0.8), anisotropic_scale=0.1),
        torch.Generator().manual_seed(0),
    )
    assert torch.equal(drawn.zooms[:, list(axes)], same_stream.zooms[:, list(axes)])


def test_draws_keep_their_ranges():
    config = SpatialConfig(
        probability=0.25,
        rotation_deg=(10.0, 0.0, 90.0),
        scale=(0.5, 2.0),
        anisotropic_scale=0.2,
        shift=(0.0, 3.0, 1.0),
        elastic_voxels=2.0,
        elastic_grid=4,
    )
    drawn = draw_deformations(2000, torch.Size((9, 8, 3)), config, torch.Generator().manual_seed(0))
    assert drawn.active.float().mean() == pytest.approx(0.25, abs=0.04)
    assert torch.rad2deg(drawn.angles).abs().amax(0) == pytest.approx([10, 0, 90], rel=0.01)
    assert drawn.shifts.abs().amax(0) == pytest.approx([0, 3, 1], rel=0.01)
    ratio = drawn.zooms / drawn.zooms.prod(1, keepdim=True) ** (1 / 3)
    assert ratio.max() < 1.2 / 0.8
    assert drawn.zooms.min() > 0.5 * 0.8
    assert drawn.zooms.max() < 2 * 1.2
    # Halving is as likely as doubling.
    assert drawn.zooms.log2().mean() == pytest.approx(0, abs=0.05)
    assert drawn.control.shape == (2000, 3, 4, 3, 2)
    assert drawn.control.std() == pytest.approx(2.0, rel=0.02)


def test_one_range_leaves_the_draws_of_the_others():
    size = torch.Size((8, 8, 8))
    wide = SpatialConfig(scale=(0.5, 2.0), elastic_voxels=3.0, rotation_deg=(0.0, 0.0, 0.0), mirror_axes=(0, 1, 2))
    one = draw_deformations(9, size, SpatialConfig(mirror_axes=(0, 1, 2)), torch.Generator().manual_seed(5))
    two = draw_deformations(9, size, wide, torch.Generator().manual_seed(5))
    assert torch.equal(one.active, two.active)
    assert torch.equal(one.mirrored, two.mirrored)
    assert not torch.equal(one.zooms, two.zooms)


@pytest.mark.parametrize("axes", [(), (2,), (0, 1), (0, 1, 2)])
def test_only_named_axes_are_displaced(axes):
    size = torch.Size((9, 8, 3))
    everywhere = SpatialConfig(elastic_voxels=2.0, mirror_axes=(0, 1, 2))
    config = replace(everywhere, elastic_axes=axes)
    drawn, same_stream = (
        draw_deformations(50, size, one, torch.Generator().manual_seed(0)) for one in (config, everywhere)
    )
    for axis in range(3):
        expected = same_stream.control[:, axis] if axis in axes else torch.zeros(50, 2, 2, 2)
        assert torch.equal(drawn.control[:, axis], expected)
    assert torch.equal(drawn.mirrored, same_stream.mirrored)


def test_control_points_lie_no_further_apart_than_the_grid():
    for length, grid in itertools.product(range(1, 60), (2, 5, 12)):
        config = SpatialConfig(elastic_grid=grid, elastic_voxels=1.0)
        drawn = draw_deformations(1, torch.Size((length, 1, 1)), config, torch.Generator().manual_seed(0))
        assert (length - 1) / (drawn.control.shape[2] - 1) <= grid
