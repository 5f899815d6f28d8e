"""Geometry against NumPy's turns and flips, SciPy's interpolation and closed forms."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.interpolate import RegularGridInterpolator

from seg.config import SpatialConfig
from seg.data.augmentation import spatial
from seg.data.augmentation.spatial import deform
from tests.data.builders import drawn_by

STILL = SpatialConfig(probability=0.0)


@pytest.fixture
def deform_by(monkeypatch):
    """Gives the function that deforms a patch by chosen draws."""

    def apply(image, label, chosen):
        monkeypatch.setattr(spatial, "draw_deformations", lambda *_: chosen)
        return deform(image, label, STILL, torch.Generator())

    return apply


def patch(*size, batch=1, channels=2):
    source = torch.Generator().manual_seed(0)
    image = torch.randn(batch, channels, *size, generator=source)
    return image, torch.randint(0, 4, (batch, 1, *size), generator=source)


def voxels(size):
    """Indices of all voxels, (3, X, Y, Z)."""
    return np.indices(size).astype(np.float64)


def test_nothing_drawn_changes_nothing(deform_by):
    image, label = patch(6, 7, 5, batch=3)
    same, same_label = deform(image, label, STILL, torch.Generator().manual_seed(1))
    assert torch.equal(same, image)
    assert torch.equal(same_label, label)
    assert same.data_ptr() != image.data_ptr()
    assert same_label.data_ptr() != label.data_ptr()
    near, near_label = deform_by(image[:1], label[:1], drawn_by())
    torch.testing.assert_close(near, image[:1], rtol=0, atol=1e-5)
    assert torch.equal(near_label, label[:1])


@pytest.mark.parametrize("quarters", [1, 2, 3])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_quarter_turns_are_those_of_numpy(deform_by, axis, quarters):
    image, label = patch(5, 5, 5)
    angles = tuple(90.0 * quarters if index == axis else 0.0 for index in range(3))
    turned, turned_label = deform_by(image, label, drawn_by(angles=angles))
    # A right-handed turn takes the next axis to the one after it: Y to Z, Z to X, X to Y.
    plane = (2 + (axis + 1) % 3, 2 + (axis + 2) % 3)
    np.testing.assert_allclose(turned.numpy(), np.rot90(image.numpy(), quarters, plane), atol=1e-5)
    np.testing.assert_array_equal(turned_label.numpy(), np.rot90(label.numpy(), quarters, plane))


def test_whole_shifts_move_voxels_and_leave_border_and_background_behind(deform_by):
    image, label = patch(6, 7, 5)
    moved, moved_label = deform_by(image, label, drawn_by(shifts=(2.0, -1.0, 0.0)))
    torch.testing.assert_close(moved[:, :, 2:, :-1], image[:, :, :-2, 1:], rtol=0, atol=1e-5)
    assert torch.equal(moved_label[:, :, 2:, :-1], label[:, :, :-2, 1:])
    torch.testing.assert_close(moved[:, :, :2, :-1], image[:, :, :1, 1:].expand(-1, -1, 2, -1, -1), rtol=0, atol=1e-5)
    assert not moved_label[:, :, :2].any()
    assert not moved_label[:, :, :, -1:].any()


@pytest.mark.parametrize("zooms", [(2.0, 2.0, 2.0), (1.25, 1.0, 1.6), (2.0, 3.0, 1.0)])
def test_zooms_stretch_a_ramp_about_the_centre(deform_by, zooms):
    size = (8, 9, 6)
    slope, centre = np.array([1.0, 10.0, 100.0]), (np.array(size) - 1) / 2
    place = voxels(size)
    ramp = torch.from_numpy(np.tensordot(slope, place, 1)).float()[None, None]
    seen = (place - centre[:, None, None, None]) / np.array(zooms)[:, None, None, None] + centre[:, None, None, None]
    zoomed, _ = deform_by(ramp, torch.zeros(1, 1, *size, dtype=torch.long), drawn_by(zooms=zooms))
    np.testing.assert_allclose(zoomed[0, 0].numpy(), np.tensordot(slope, seen, 1), rtol=0, atol=1e-3)


def test_displacements_are_interpolated_between_control_points(deform_by):
    size, points = (9, 8, 7), (3, 2, 4)
    image, label = patch(*size, channels=1)
    control = torch.randn(1, 3, *points, generator=torch.Generator().manual_seed(3))
    deformed, _ = deform_by(image, label, drawn_by(control=control))
    places = voxels(size)
    axes = [np.linspace(0, length - 1, count) for length, count in zip(size, points, strict=True)]
    for axis in range(3):
        between = RegularGridInterpolator(axes, control[0, axis].numpy())
        places[axis] += between(np.moveaxis(voxels(size), 0, -1))
    expected = ndimage.map_coordinates(image[0, 0].double().numpy(), places, order=1, mode="nearest")
    np.testing.assert_allclose(deformed[0, 0].numpy(), expected, rtol=0, atol=1e-4)


def test_labels_move_with_their_image():
    label = torch.zeros(6, 1, 16, 16, 16, dtype=torch.long)
    label[:, :, 6:11, 5:10, 6:10] = 1
    config = SpatialConfig(probability=1.0, shift=(1.0, 1.0, 1.0), elastic_voxels=1.0, mirror_axes=(0, 1, 2))
    image, moved = deform(label.float(), label, config, torch.Generator().manual_seed(2))
    assert not torch.equal(moved, label)
    # Where all eight neighbours agree, so does the nearest of them; within half a voxel of a border neither is wrong.
    certain = (image < 1e-4) | (image > 1 - 1e-4)
    assert torch.equal(image.round()[certain].long(), moved[certain])
    assert certain.float().mean() > 0.8
    assert (image - moved).abs().max() < 0.876  # of eight corners, the nearest one weighs at least (1/2)^3


def test_labels_stay_labels():
    image, label = patch(8, 8, 8, batch=4)
    label[label == 2] = 5
    config = SpatialConfig(probability=1.0, rotation_deg=(90.0, 90.0, 90.0), elastic_voxels=2.0)
    _, moved = deform(image, label, config, torch.Generator().manual_seed(0))
    assert moved.dtype == torch.int64
    assert set(moved.unique().tolist()) <= {0, 1, 3, 5}


@pytest.mark.parametrize("allowed", [(), (0,), (1, 2), (0, 1, 2)])
def test_mirrors_lie_across_allowed_axes_alone(allowed):
    image, label = patch(4, 5, 3, batch=64)
    config = SpatialConfig(probability=0.0, mirror_axes=allowed)
    mirrored, mirrored_label = deform(image, label, config, torch.Generator().manual_seed(0))
    subsets = [axes for count in range(4) for axes in itertools.combinations(allowed, count)]
    counts = dict.fromkeys(subsets, 0)
    for index in range(len(image)):
        drawn = [
            axes
            for axes in subsets
            if torch.equal(mirrored[index], image[index].flip([1 + axis for axis in axes]))
            and torch.equal(mirrored_label[index], label[index].flip([1 + axis for axis in axes]))
        ]
        assert len(drawn) == 1
        counts[drawn[0]] += 1
    # 64 patches over at most 8 outcomes: fewer than 1 or more than 20 of 8 expected is one chance in ten thousand.
    assert all(0 < count <= 64 * 2.5 / len(subsets) for count in counts.values())


def test_thick_slices_stay_in_their_plane():
    """Each slice of this volume is constant, so what moves within slices alone cannot be seen."""
    image, label = patch(12, 12, 6)
    image[:] = torch.arange(6.0)
    config = SpatialConfig(probability=1.0, rotation_deg=(0.0, 0.0, 30.0), scale=(0.5, 0.6), scale_axes=(0, 1))
    deformed, _ = deform(image, label, config, torch.Generator().manual_seed(0))
    torch.testing.assert_close(deformed, image)
    everywhere = SpatialConfig(probability=1.0, rotation_deg=(0.0, 0.0, 30.0), scale=(0.5, 0.6))
    assert not torch.allclose(deform(image, label, everywhere, torch.Generator().manual_seed(0))[0], image, atol=0.1)


@pytest.mark.filterwarnings("error")
def test_an_axis_of_one_voxel_keeps_it():
    image, label = patch(1, 8, 8)
    config = SpatialConfig(probability=1.0, rotation_deg=(30.0, 0.0, 0.0), scale=(0.7, 1.4), elastic_voxels=1.0)
    deformed, _ = deform(image, label, config, torch.Generator().manual_seed(0))
    assert deformed.shape == image.shape
    assert torch.isfinite(deformed).all()
    assert deformed.amin() >= image.amin()
    assert deformed.amax() <= image.amax()


def test_a_patch_does_not_depend_on_its_neighbours():
    image, label = patch(8, 8, 8, batch=3)
    config = SpatialConfig(probability=0.7, elastic_voxels=1.0, mirror_axes=(0,))
    whole, labels = deform(image, label, config, torch.Generator().manual_seed(4))
    image[0], label[0] = 7.0, 1
    other, other_labels = deform(image, label, config, torch.Generator().manual_seed(4))
    assert torch.equal(whole[1:], other[1:])
    assert torch.equal(labels[1:], other_labels[1:])
