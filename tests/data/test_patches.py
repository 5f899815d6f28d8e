from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from seg.config import PatchConfig
from seg.data.patches import MAX_VOXELS_PER_CLASS, PositionSampler, TrainingPatches, foreground_voxels

IGNORE = 3


class Cases(list):
    """Prepared cases in a list."""


def make_case(shape, marks=(), case_id="a"):
    """A case whose image tells each voxel's place: channel 0 holds its number from 1, channel 1 the negative."""
    numbers = torch.arange(1, int(np.prod(shape)) + 1, dtype=torch.float32).view(1, *shape)
    label = torch.zeros(1, *shape, dtype=torch.uint8)
    for value, region in marks:
        label[(0, *region)] = value
    image = torch.cat((numbers, -numbers))
    return {"image": image, "label": label, "foreground": foreground_voxels(label, 3), "case_id": case_id}


def make_patches(cases, size=(4, 4, 4), fraction=0.0, seed=0, padding_label=0, margin=(0, 0, 0)):
    config = PatchConfig(size=size, batch=2, foreground_fraction=fraction)
    return TrainingPatches(Cases(cases), config, seed, padding_label, margin)


def corner_of(patch, shape):
    """Corner of a patch in its volume, from the number of the first voxel that is not padding."""
    inside = np.argwhere(patch["image"][0].numpy() > 0)[0]
    number = int(patch["image"][(0, *inside)]) - 1
    return np.array(np.unravel_index(number, shape)) - inside


def expected_crop(volume, corner, size, fill):
    width = [(0, 0), *((s, s) for s in size)]
    padded = np.pad(volume.numpy(), width, constant_values=fill)
    region = tuple(slice(c + s, c + 2 * s) for c, s in zip(corner, size, strict=True))
    return padded[(slice(None), *region)]


@pytest.fixture
def seven():
    return [make_case((9, 8, 7), [(1, np.s_[2:4, 3:5, 1:3])], case_id=f"case{i}") for i in range(7)]


def test_every_pass_over_the_cases_is_a_permutation(seven):
    patches = make_patches(seven)
    passes = [[patches[7 * epoch + i]["case_id"] for i in range(7)] for epoch in range(6)]
    assert all(sorted(names) == [f"case{i}" for i in range(7)] for names in passes)
    assert len({tuple(names) for names in passes}) == 6
    assert passes[0] != [make_patches(seven, seed=1)[i]["case_id"] for i in range(7)]


def test_patches_do_not_depend_on_the_order_in_which_they_are_asked_for(seven):
    forward = [make_patches(seven, fraction=0.5)[i] for i in range(20)]
    patches = make_patches(seven, fraction=0.5)
    backward = {i: patches[i] for i in np.random.default_rng(0).permutation(20).tolist()}
    for i, patch in enumerate(forward):
        assert patch["case_id"] == backward[i]["case_id"]
        assert patch["position"] == backward[i]["position"] == i
        assert torch.equal(patch["image"], backward[i]["image"])
        assert torch.equal(patch["label"], backward[i]["label"])


def test_patches_do_not_depend_on_the_number_of_workers(seven):
    def batches(workers):
        patches = make_patches(seven, fraction=0.5)
        return list(DataLoader(patches, batch_size=3, sampler=PositionSampler(12), num_workers=workers))

    for alone, shared in zip(batches(0), batches(2), strict=True):
        assert torch.equal(alone["image"], shared["image"])
        assert torch.equal(alone["position"], shared["position"])
        assert alone["case_id"] == shared["case_id"]


@pytest.mark.parametrize("shape", [(9, 8, 7), (4, 4, 4), (3, 9, 2), (2, 2, 2), (4, 5, 3)])
@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_a_patch_is_a_slice_of_the_padded_volume(shape, fraction):
    case = make_case(shape, [(1, np.s_[1, 1, 1]), (2, np.s_[0, :, -1]), (IGNORE, np.s_[-1, -1, 0])])
    patches = make_patches([case], fraction=fraction, padding_label=IGNORE)
    size = patches.config.size
    corners = set()
    for position in range(60):
        patch = patches[position]
        corner = corner_of(patch, shape)
        corners.add(tuple(corner.tolist()))
        np.testing.assert_array_equal(patch["image"], expected_crop(case["image"], corner, size, 0))
        np.testing.assert_array_equal(patch["label"], expected_crop(case["label"], corner, size, IGNORE))
        assert patch["label"].dtype == torch.uint8
        assert patch["image"].dtype == torch.float32
    for axis, (extent, length) in enumerate(zip(shape, size, strict=True)):
        places = {corner[axis] for corner in corners}
        low, high = sorted((0, extent - length))
        assert places <= set(range(low, high + 1))  # Short axes lie in the patch whole, long ones fill it.
        if fraction == 0:
            assert {low, high} <= places


@pytest.mark.parametrize("shape", [(9, 8, 7), (5, 9, 3), (2, 2, 2)])
@pytest.mark.parametrize("margin", [(1, 2, 3), (50, 0, 50)])
def test_a_source_is_its_patch_and_as_much_of_the_margin_as_the_volume_has(shape, margin):
    case = make_case(shape, [(1, np.s_[1, 1, 1])])
    bare, wide = (make_patches([case], fraction=0.5, padding_label=IGNORE, margin=m) for m in ((0, 0, 0), margin))
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


def test_corners_are_uniform_where_no_class_is_asked_for():
    patches = make_patches([make_case((6, 5, 4))])
    counts = Counter(tuple(corner_of(patches[i], (6, 5, 4)).tolist()) for i in range(1200))
    assert len(counts) == 3 * 2 * 1
    # 4.5 standard deviations of a binomial count of 1200 draws at 1/6.
    assert max(abs(count - 200) for count in counts.values()) < 4.5 * np.sqrt(1200 / 6 * 5 / 6)


@pytest.mark.parametrize("fraction", [0.0, 0.33, 1.0])
def test_the_share_of_patches_on_foreground_is_the_one_asked_for(fraction):
    case = make_case((24, 24, 24), [(1, np.s_[12, 11, 13])])
    patches = make_patches([case], fraction=fraction)
    count = 1500
    hits = sum(bool((patches[i]["label"] == 1).any()) for i in range(count)) / count
    by_chance = (4 / 21) ** 3
    expected = fraction + (1 - fraction) * by_chance
    assert abs(hits - expected) <= 4.5 * np.sqrt(expected * (1 - expected) / count)


def test_classes_are_drawn_uniformly_whatever_their_size():
    case = make_case((30, 12, 12), [(1, np.s_[2:12, :, :]), (2, np.s_[25, 6, 6])])
    patches = make_patches([case], fraction=1.0)
    count = 1000
    small = sum(bool((patches[i]["label"] == 2).any()) for i in range(count)) / count
    assert abs(small - 0.5) < 4.5 * 0.5 / np.sqrt(count)


def test_a_foreground_voxel_is_centred_unless_the_border_is_near():
    inside = make_patches([make_case((20, 20, 20), [(1, np.s_[9, 10, 11])])], fraction=1.0)[0]
    assert torch.argwhere(inside["label"][0] == 1).tolist() == [[2, 2, 2]]
    border = make_patches([make_case((20, 20, 20), [(1, np.s_[0, 19, 1])])], fraction=1.0)[0]
    assert torch.argwhere(border["label"][0] == 1).tolist() == [[0, 3, 1]]


def test_every_foreground_voxel_of_a_class_can_be_the_centre():
    shape = (20, 9, 9)
    patches = make_patches([make_case(shape, [(1, np.s_[5:15, 4, 4])])], fraction=1.0)
    assert {int(corner_of(patches[i], shape)[0]) + 2 for i in range(150)} == set(range(5, 15))


def test_a_case_without_foreground_gives_random_patches():
    patches = make_patches([make_case((6, 6, 6))], fraction=1.0)
    assert len({tuple(corner_of(patches[i], (6, 6, 6)).tolist()) for i in range(100)}) > 10


def test_foreground_voxels_lists_each_class_and_no_ignored_label():
    rng = np.random.default_rng(0)
    label = rng.choice([0, 1, 2, 4, 255], size=(1, 7, 6, 5)).astype(np.uint8)
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


def test_classes_are_thinned_apart_from_one_another():
    found = foreground_voxels(torch.ones(1, 20, 20, 20, dtype=torch.uint8), 2)[1]
    assert not torch.equal(foreground_voxels(torch.full((1, 20, 20, 20), 2, dtype=torch.uint8), 3)[2], found)


def test_epochs_of_positions_follow_one_another():
    sampler = PositionSampler(5)
    epochs = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        epochs += list(sampler)
    assert epochs == list(range(15))
    assert len(sampler) == 5
    sampler.set_epoch(1)
    assert list(sampler) == [5, 6, 7, 8, 9]
