from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy import ndimage

from seg.config import PostprocessingConfig
from seg.errors import ConfigError
from seg.inference import cleaning
from seg.inference.cleaning import CleaningRule, clean_labels, cleaning_rules

NAMES = ("background", "liver", "tumour")
VOXEL_ML = 0.01


def blocks():
    """Class 1: 64, 8 and 1 voxels apart; class 2: 27 voxels and, touching by a corner, 1."""
    labels = np.zeros((20, 12, 10), np.uint8)
    labels[1:5, 1:5, 1:5] = 1
    labels[8:10, 1:3, 1:3] = 1
    labels[15, 1, 1] = 1
    labels[8:11, 6:9, 5:8] = 2
    labels[11, 9, 8] = 2
    return labels


def test_without_rules_nothing_is_removed():
    labels = blocks()
    assert clean_labels(labels, cleaning_rules(PostprocessingConfig(), NAMES), VOXEL_ML) == {}
    np.testing.assert_array_equal(labels, blocks())


def test_the_largest_component_of_a_class_is_kept():
    labels, expected = blocks(), blocks()
    expected[6:, :5][expected[6:, :5] == 1] = 0
    rules = cleaning_rules(PostprocessingConfig(largest_component=("liver",)), NAMES)
    assert rules == {1: CleaningRule(True, 0.0)}
    assert clean_labels(labels, rules, VOXEL_ML) == {1: pytest.approx(0.09)}
    np.testing.assert_array_equal(labels, expected)


def test_components_below_a_volume_are_removed_and_corners_connect():
    labels, expected = blocks(), blocks()
    expected[15, 1, 1] = 0
    rules = cleaning_rules(PostprocessingConfig(min_volume_ml=(0.08, 0.28)), NAMES)
    assert clean_labels(labels, rules, VOXEL_ML) == {1: pytest.approx(0.01), 2: 0.0}
    np.testing.assert_array_equal(labels, expected)


def test_one_volume_is_for_all_classes():
    labels = blocks()
    removed = clean_labels(labels, cleaning_rules(PostprocessingConfig(min_volume_ml=(0.3,)), NAMES), VOXEL_ML)
    assert removed == {1: pytest.approx(0.09), 2: pytest.approx(0.28)}
    assert set(np.unique(labels)) == {0, 1}


def test_both_rules_leave_nothing_of_a_class_that_is_small_altogether():
    labels = blocks()
    config = PostprocessingConfig(largest_component=("tumour",), min_volume_ml=(0.0, 1.0))
    assert clean_labels(labels, cleaning_rules(config, NAMES), VOXEL_ML) == {2: pytest.approx(0.28)}
    assert not (labels == 2).any()


def test_a_class_that_is_absent_has_nothing_to_remove():
    labels = np.zeros((3, 3, 3), np.uint16, order="F")
    config = PostprocessingConfig(largest_component=("liver", "tumour"))
    assert clean_labels(labels, cleaning_rules(config, NAMES), VOXEL_ML) == {1: 0.0, 2: 0.0}


def test_rules_that_do_not_fit_the_data_set_are_named_together():
    config = PostprocessingConfig(largest_component=("liver", "background", "spleen"), min_volume_ml=(1.0, 2.0, 3.0))
    with pytest.raises(ConfigError) as caught:
        cleaning_rules(config, NAMES)
    rule = "postprocessing.largest_component must name foreground classes of the data set, liver, tumour, got"
    assert caught.value.sentences == (
        f"{rule} 'background'.",
        f"{rule} 'spleen'.",
        "postprocessing.min_volume_ml must have one number, or one for each foreground class of the data set "
        "(liver, tumour), got 3.",
    )


def cleaned_whole(labels, index, rule, voxel_ml):
    """What must be left of a class, from components of the whole volume."""
    components, count = ndimage.label(labels == index, structure=np.ones((3, 3, 3)))
    sizes = [int(np.sum(components == number)) for number in range(1, count + 1)]
    # The first of the largest in the order in which scipy numbers them: along Z first and along X last.
    kept = {number for number, size in enumerate(sizes, start=1) if size * voxel_ml >= rule.min_volume_ml - 1e-9}
    if rule.largest:
        kept &= {sizes.index(max(sizes)) + 1}
    return np.where((labels == index) & ~np.isin(components, list(kept)), 0, labels)


@pytest.mark.parametrize("slab_voxels", [1, 300, 1000, 10**6])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("share", [0.03, 0.12, 0.3])  # stray voxels with many ties, branches, one large component
def test_slabs_clean_as_the_whole_volume(monkeypatch, slab_voxels, order, share):
    monkeypatch.setattr(cleaning, "SLAB_VOXELS", slab_voxels)
    rng = np.random.default_rng(int(100 * share))
    labels = np.asarray(rng.choice(3, (17, 12, 11), p=[1 - 2 * share, share, share]), np.uint8, order=order)
    labels[:2] = labels[:, :1] = 0  # the classes' box is not the volume
    rules = {1: CleaningRule(True, 0.0), 2: CleaningRule(False, 0.05)}
    expected = cleaned_whole(cleaned_whole(labels, 1, rules[1], 0.01), 2, rules[2], 0.01)
    counts = {index: np.sum(labels == index) - np.sum(expected == index) for index in rules}
    removed = clean_labels(labels, rules, VOXEL_ML)
    np.testing.assert_array_equal(labels, expected)
    assert removed == {index: pytest.approx(0.01 * count) for index, count in counts.items()}
    assert min(counts.values()) > 0 or share == 0.3


def test_memory_is_that_of_a_slab(monkeypatch):
    monkeypatch.setattr(cleaning, "SLAB_VOXELS", 1 << 16)
    labels = np.zeros((128, 128, 128), np.uint8, order="F")
    labels[1:, 2:] = 1
    labels[60:64] = 0
    rules = cleaning_rules(PostprocessingConfig(largest_component=("liver",)), NAMES)
    clean_labels(labels[:2], rules, VOXEL_ML)  # what is imported and made once is no part of it
    tracemalloc.start()
    clean_labels(labels, rules, VOXEL_ML)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < labels.size  # of the whole class at once, 12 bytes a voxel
    assert np.count_nonzero(labels) == 64 * 126 * 128
