from __future__ import annotations

import numpy as np
import pytest

from seg.config import PostprocessingConfig
from seg.errors import ConfigError
from seg.prediction.cleaning import CleaningRule, clean_labels, cleaning_rules

NAMES = ("background", "liver", "tumour")
AFFINE = np.diag([2.0, -2.5, 2.0, 1.0])  # a voxel is 0.01 ml


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
    assert clean_labels(labels, cleaning_rules(PostprocessingConfig(), NAMES), AFFINE) == {}
    np.testing.assert_array_equal(labels, blocks())


def test_the_largest_component_of_a_class_is_kept():
    labels, expected = blocks(), blocks()
    expected[6:, :5][expected[6:, :5] == 1] = 0
    rules = cleaning_rules(PostprocessingConfig(largest_component=("liver",)), NAMES)
    assert rules == {1: CleaningRule(True, 0.0)}
    assert clean_labels(labels, rules, AFFINE) == {1: pytest.approx(0.09)}
    np.testing.assert_array_equal(labels, expected)


def test_components_below_a_volume_are_removed_and_corners_connect():
    labels, expected = blocks(), blocks()
    expected[15, 1, 1] = 0
    rules = cleaning_rules(PostprocessingConfig(min_volume_ml=(0.08, 0.28)), NAMES)
    assert clean_labels(labels, rules, AFFINE) == {1: pytest.approx(0.01), 2: 0.0}
    np.testing.assert_array_equal(labels, expected)


def test_one_volume_is_for_all_classes():
    labels = blocks()
    removed = clean_labels(labels, cleaning_rules(PostprocessingConfig(min_volume_ml=(0.3,)), NAMES), AFFINE)
    assert removed == {1: pytest.approx(0.09), 2: pytest.approx(0.28)}
    assert set(np.unique(labels)) == {0, 1}


def test_both_rules_leave_nothing_of_a_class_that_is_small_altogether():
    labels = blocks()
    config = PostprocessingConfig(largest_component=("tumour",), min_volume_ml=(0.0, 1.0))
    assert clean_labels(labels, cleaning_rules(config, NAMES), AFFINE) == {2: pytest.approx(0.28)}
    assert not (labels == 2).any()


def test_a_class_that_is_absent_has_nothing_to_remove():
    labels = np.zeros((3, 3, 3), np.uint16, order="F")
    config = PostprocessingConfig(largest_component=("liver", "tumour"))
    assert clean_labels(labels, cleaning_rules(config, NAMES), AFFINE) == {1: 0.0, 2: 0.0}


def test_rules_that_do_not_fit_the_data_set_are_named_together():
    config = PostprocessingConfig(largest_component=("liver", "background", "spleen"), min_volume_ml=(1.0, 2.0, 3.0))
    with pytest.raises(ConfigError) as caught:
        cleaning_rules(config, NAMES)
    rule = "postprocessing.largest_component must name foreground classes of the data set, liver, tumour, got"
    assert caught.value.problems == (
        f"{rule} 'background'.",
        f"{rule} 'spleen'.",
        "postprocessing.min_volume_ml must have one number, or one for each foreground class of the data set "
        "(liver, tumour), got 3.",
    )
