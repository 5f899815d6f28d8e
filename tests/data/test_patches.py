"""Patches of training: slices of padded volumes, drawn as functions of their position."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from seg.config import PatchConfig
from seg.data.patches import MAX_VOXELS_PER_CLASS, PositionSampler, TrainingPatches, foreground_voxels

IGNORE = 3


def make_case(shape, marks=(), case_id="a"):
    """A case whose image tells each voxel's place: channel 0 holds its number from 1, channel 1 the negative."""
    numbers = torch.arange(1, int(np.prod(shape)) + 1, dtype=torch.float32).view(1, *shape)
    label = torch.zeros(1, *shape, dtype=torch.uint8)
    for value, region in marks:
        label[(0, *region)] = value
    image = torch.cat((numbers, -numbers))
    return {"image": image, "label": label, "foreground": foreground_voxels(label, 3), "case_id": case_id}


def make_patches(*cases, fraction=0.0, seed=0, margin=(0, 0, 0)):
    config = PatchConfig(size=(4, 4, 4), batch=2, foreground_fraction=fraction)
    return TrainingPatches(cases, config, seed, IGNORE, margin)


def corner_of(patch, shape):
    """Corner of a patch in its volume, from the number of the first voxel that is not padding."""
    inside = np.argwhere(patch["image"][0].numpy() > 0)[0]
    number = int(patch["image"][(0, *inside)]) - 1
    return np.array(np.unravel_index(number, shape)) - inside


def corners_of(patches, count):
    shape = patches.cases[0]["image"].shape[1:]
    return [tuple(corner_of(patches[position], shape).tolist()) for position in range(count)]


def share_of(patches, value, count):
    return sum(bool((patches[position]["label"] == value).any()) for position in range(count)) / count


def expected_crop(volume, corner, size, fill):
    width = [(0, 0), *((s, s) for s in size)]
    padded = np.pad(volume.numpy(), width, constant_values=fill)
    region = tuple(slice(c + s, c + 2 * s) for c, s in zip(corner, size, strict=True))
    return padded[(slice(None), *region)]


@pytest.fixture
def seven():
    return [make_case((9, 8, 7), [(1, np.s_[2:4, 3:5, 1:3])], case_id=f"case{i}") for i in range(7)]


def test_every_pass_over_the_cases_is_a_permutation(seven):
    patches = make_patches(*seven)
    passes = [[patches[7 * epoch + i]["case_id"] for i in range(7)] for epoch in range(6)]
    assert all(sorted(names) == [f"case{i}" for i in range(7)] for names in passes)
    assert len({tuple(names) for names in passes}) == 6
    assert passes[0] != [make_patches(*seven, seed=1)[i]["case_id"] for i in range(7)]


@pytest.mark.parametrize("workers", [0, 2])
def test_patches_depend_neither_on_the_order_in_which_they_are_asked_for_nor_on_workers(seven, workers):
    forward = [make_patches(*seven, fraction=0.5)[i] for i in range(20)]
    order = np.random.default_rng(0).permutation(20).tolist()
    loaded = DataLoader(make_patches(*seven, fraction=0.5), batch_size=None, sampler=order, num_workers=workers)
    for position, patch in zip(order, loaded, strict=True):
        assert (patch["case_id"], patch["position"]) == (forward[position]["case_id"], position)
        assert torch.equal(patch["image"], forward[position]["image"])
        assert torch.equal(patch["label"], forward[position]["label"])


@pytest.mark.parametrize("shape", [(9, 8, 7), (4, 4, 4), (3, 9, 2), (2, 2, 2), (4, 5, 3)])
@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_a_patch_is_a_slice_of_the_padded_volume(shape, fraction):
    case = make_case(shape, [(1, np.s_[1, 1, 1]), (2, np.s_[0, :, -1]), (IGNORE, np.s_[-1, -1, 0])])
    patches = make_patches(case, fraction=fraction)
    corners = corners_of(patches, 60)
    for position, corner in enumerate(corners):
        patch = patches[position]
        np.testing.assert_array_equal(patch["image"], expected_crop(case["image"], corner, (4, 4, 4), 0))
        np.testing.assert_array_equal(patch["label"], expected_crop(case["label"], corner, (4, 4, 4), IGNORE))
        assert (patch["label"].dtype, patch["image"].dtype) == (torch.uint8, torch.float32)
    for axis, extent in enumerate(shape):
        places = {corner[axis] for corner in corners}
        low, high = sorted((0, extent - 4))
        assert places <= set(range(low, high + 1))  # Short axes lie in the patch whole, long ones fill it.
        if fraction == 0:
            assert {low, high} <= places


@pytest.mark.parametrize("shape", [(9, 8, 7), (5, 9, 3), (2, 2, 2)])
@pytest.mark.parametrize("margin", [(1, 2, 3), (50, 0, 50)])
def test_a_source_is_its_patch_and_as_much_of_the_margin_as_the_volume_has(shape, margin):
    case = make_case(shape, [(1, np.s_[1, 1, 1])])
    bare, wide = (make_patches(case, fraction=0.5, margin=m) for m in ((0, 0, 0), margin))
    for position in range(40):
        patch, source = bare[position], wide[position]
        inside = (..., *(slice(start, start + 4) for start in source["corner"]))
        assert torch.equal(source["image"][inside], patch["image"])
        assert torch.equal(source["label"][inside], patch["label"])
        corner, size = corner_of(patch, shape), source["image"].shape[1:]
        for axis, extent in enumerate(shape):
            before, after = source["corner"][axis], size[axis] - 4 - source["corner"][axis]
            assert before == min(margin[axis], max(0, corner[axis]))
            assert after == min(margin[axis], max(0, extent - 4 - corner[axis]))
        np.testing.assert_array_equal(source["image"], expected_crop(case["image"], corner - source["corner"], size, 0))


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_corners_are_uniform_where_no_class_is_asked_for_or_none_is_there(fraction):
    counts = Counter(corners_of(make_patches(make_case((6, 5, 4)), fraction=fraction), 1200))
    assert len(counts) == 3 * 2 * 1
    # 4.5 standard deviations of a binomial count of 1200 draws at 1/6.
    assert max(abs(count - 200) for count in counts.values()) < 4.5 * np.sqrt(1200 / 6 * 5 / 6)


@pytest.mark.parametrize("fraction", [0.0, 0.33, 1.0])
def test_the_share_of_patches_on_foreground_is_the_one_asked_for(fraction):
    patches, count = make_patches(make_case((24, 24, 24), [(1, np.s_[12, 11, 13])]), fraction=fraction), 1500
    expected = fraction + (1 - fraction) * (4 / 21) ** 3
    assert abs(share_of(patches, 1, count) - expected) <= 4.5 * np.sqrt(expected * (1 - expected) / count)


def test_classes_are_drawn_uniformly_whatever_their_size():
    case, count = make_case((30, 12, 12), [(1, np.s_[2:12, :, :]), (2, np.s_[25, 6, 6])]), 1000
    assert abs(share_of(make_patches(case, fraction=1.0), 2, count) - 0.5) < 4.5 * 0.5 / np.sqrt(count)


def test_every_foreground_voxel_can_be_the_centre_unless_the_border_is_near():
    line = make_patches(make_case((20, 9, 9), [(1, np.s_[5:15, 4, 4])]), fraction=1.0)
    assert set(corners_of(line, 150)) == {(x - 2, 2, 2) for x in range(5, 15)}
    border = make_patches(make_case((20, 20, 20), [(1, np.s_[0, 19, 1])]), fraction=1.0)[0]
    assert torch.argwhere(border["label"][0] == 1).tolist() == [[0, 3, 1]]


def test_foreground_voxels_lists_each_class_and_no_ignored_label():
    label = np.random.default_rng(0).choice([0, 1, 2, 4, 255], size=(1, 7, 6, 5)).astype(np.uint8)
    found = foreground_voxels(torch.from_numpy(label), 5)
    assert sorted(found) == [1, 2, 4]
    for value, voxels in found.items():
        np.testing.assert_array_equal(voxels, np.argwhere(label[0] == value))


@pytest.mark.parametrize("shape", [(20, 20, 20), (100, 80, 10), (16, 10, 50)])
def test_foreground_voxels_are_thinned_evenly_along_every_axis(shape):
    label = torch.ones(1, *shape, dtype=torch.uint8)
    voxels = foreground_voxels(label, 2)[1]
    assert len(voxels) == len(voxels.unique(dim=0)) == MAX_VOXELS_PER_CLASS
    for axis, extent in enumerate(shape):
        counts = torch.bincount(voxels[:, axis].long(), minlength=extent).float()
        mean = MAX_VOXELS_PER_CLASS / extent
        assert len(counts) == extent
        assert (counts - mean).abs().max() < 4.5 * mean**0.5
    torch.rand(3)  # a global generator has no part in it
    assert torch.equal(foreground_voxels(label, 2)[1], voxels)
    assert not torch.equal(foreground_voxels(label * 2, 3)[2], voxels)  # classes are thinned apart from one another


def test_epochs_of_positions_follow_one_another():
    sampler, epochs = PositionSampler(5), []
    for epoch in (0, 1, 2, 1):
        sampler.set_epoch(epoch)
        epochs += list(sampler)
    assert epochs == [*range(15), *range(5, 10)]
    assert len(sampler) == 5
