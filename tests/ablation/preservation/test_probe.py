"""The linear probe against Bayes' rule, a direct computation, and Dice by hand."""

import numpy as np
import pytest
import torch

from seg.ablation.preservation.probe import DiceCount, fit_probe, mean_dice

CPU = torch.device("cpu")


def gaussian_classes(n=6000, seed=0):
    """Three classes of unequal size with one covariance; their means, covariance and shares."""
    rng = np.random.default_rng(seed)
    shares, means = np.array([0.8, 0.15, 0.05]), np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 3.0]])
    root = np.array([[1.0, 0.0], [0.8, 0.6]])
    labels = rng.choice(3, size=n, p=shares)
    return means[labels] + rng.normal(size=(n, 2)) @ root.T, labels, (means, root @ root.T, shares)


def lda_in_memory(x, labels, classes):
    """Textbook linear discriminant analysis on everything at once: maximal log posterior."""
    within = sum(np.cov(x[labels == k], rowvar=False, ddof=0) * np.mean(labels == k) for k in range(classes))
    scores = []
    for k in range(classes):
        away = x - x[labels == k].mean(0)
        scores.append(np.log(np.mean(labels == k)) - 0.5 * np.einsum("nc,cd,nd->n", away, np.linalg.inv(within), away))
    return np.argmax(scores, axis=0)


def predict(summary, part, features):
    return fit_probe(summary, part, CPU).predict(torch.from_numpy(features)).numpy()


def test_is_the_textbook_on_everything_in_memory(summarise):
    x, labels, _ = gaussian_classes()
    found = predict(summarise(x, None, labels, classes=3, chunk=500), "wide", x)
    np.testing.assert_array_equal(found, lda_in_memory(x, labels, 3))


def test_comes_near_bayes_rule_on_new_voxels(summarise):
    x, labels, _ = gaussian_classes(20_000)
    new, truth, (means, covariance, shares) = gaussian_classes(20_000, seed=1)
    away = new[:, None] - means
    best = np.argmax(np.log(shares) - 0.5 * np.einsum("nkc,cd,nkd->nk", away, np.linalg.inv(covariance), away), axis=1)
    found = predict(summarise(x, None, labels, classes=3, chunk=5000), "wide", new)
    assert np.mean(found == truth) == pytest.approx(np.mean(best == truth), abs=0.002)


def test_changes_under_no_invertible_affine_map(summarise):
    x, labels, _ = gaussian_classes()
    turned = x @ np.array([[50.0, 1.0], [2.0, -0.1]]) + 7
    summary = summarise(x, turned, labels, classes=3, chunk=500)
    np.testing.assert_array_equal(predict(summary, "narrow", turned), predict(summary, "wide", x))


def test_constant_and_repeated_channels_do_no_harm(summarise):
    x, labels, _ = gaussian_classes()
    more = np.column_stack([x, np.full(len(x), 3.0), x[:, 0], np.zeros(len(x))])
    summary = summarise(x, more, labels, classes=3, chunk=500)
    np.testing.assert_array_equal(predict(summary, "narrow", more), predict(summary, "wide", x))


def test_a_class_without_a_voxel_is_never_given(summarise):
    x, labels, _ = gaussian_classes(500)
    labels = np.where(labels == 1, 2, labels)
    found = predict(summarise(x, None, labels, classes=4), "wide", x)
    assert set(found) == {0, 2}


def count(predicted, labels, classes=4):
    counted = DiceCount(classes, CPU)
    # In two chunks, as voxels come.
    for part in (slice(0, 3), slice(3, None)):
        counted.add(torch.tensor(predicted[part]), torch.tensor(labels[part]))
    return counted


def test_dice_by_hand():
    counted = count([0, 1, 1, 1, 2, 2], [0, 1, 1, 0, 0, 0])
    np.testing.assert_allclose(counted.dice(), [4 / 5, 0.0, np.nan])


def test_cases_are_averaged_and_empty_ones_left_out():
    first = count([1, 1, 0, 0], [1, 0, 0, 0])  # 2/3, class 2 on neither side
    second = count([0, 2, 2, 0], [1, 2, 2, 0])  # class 1 missed
    assert mean_dice([first, second]) == [pytest.approx(1 / 3), pytest.approx(1.0), None]
