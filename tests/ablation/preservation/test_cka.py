"""Unbiased CKA from moments against Gram matrices in memory."""

import itertools
import math

import numpy as np
import pytest

from seg.ablation.preservation.measures import unbiased_cka


def hsic_of_pairs(x, y):
    """HSIC_1 of Song et al. (2012), equation 5, on Gram matrices of features as they are."""
    n = len(x)
    k, q = x @ x.T, y @ y.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(q, 0)
    first = np.trace(k @ q)
    second = k.sum() * q.sum() / ((n - 1) * (n - 2))
    third = 2 * (k @ q).sum() / (n - 2)
    return (first + second - third) / (n * (n - 3))


def hsic_of_quadruples(x, y):
    """The U-statistic itself: mean over ordered quadruples of different voxels."""
    k, q = x @ x.T, y @ y.T
    terms = [
        k[a, b] * q[a, b] + k[a, b] * q[c, d] - 2 * k[a, b] * q[a, c]
        for a, b, c, d in itertools.permutations(range(len(x)), 4)
    ]
    return np.mean(terms)


def cka_in_memory(x, y, hsic=hsic_of_pairs):
    return hsic(x, y) / math.sqrt(hsic(x, x) * hsic(y, y))


def test_is_the_formula_over_pairs(mixed, summarise):
    assert unbiased_cka(summarise(*mixed)) == pytest.approx(cka_in_memory(*mixed), rel=1e-9)


@pytest.mark.parametrize("n", [5, 8])
def test_is_the_u_statistic(summarise, n):
    rng = np.random.default_rng(n)
    x = rng.normal(size=(n, 3)) * [1, 2, 3]
    y = x[:, :2] + 0.1 * rng.normal(size=(n, 2))
    expected = cka_in_memory(x, y, hsic_of_quadruples)
    assert cka_in_memory(x, y) == pytest.approx(expected, rel=1e-9)
    assert unbiased_cka(summarise(x, y, chunk=2)) == pytest.approx(expected, rel=1e-9)


def test_shifts_rotations_and_scale_change_nothing_and_other_maps_do(mixed, summarise):
    wide, narrow = mixed
    rng = np.random.default_rng(7)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    before = unbiased_cka(summarise(wide, narrow))
    assert unbiased_cka(summarise(wide, 0.01 * narrow @ turn + 100)) == pytest.approx(before, rel=1e-6)
    assert unbiased_cka(summarise(wide, wide[:, ::-1] * -2)) == pytest.approx(1, rel=1e-9)
    assert abs(unbiased_cka(summarise(wide, narrow * [1, 10, 100])) - before) > 0.05


def test_unrelated_features_have_none_on_average_however_few_voxels(summarise):
    rng = np.random.default_rng(8)
    values, biased = [], []
    for _ in range(300):
        x, y = rng.normal(size=(12, 6)), rng.normal(size=(12, 6))
        values.append(unbiased_cka(summarise(x, y)))
        x, y = x - x.mean(0), y - y.mean(0)
        biased.append(np.square(x.T @ y).sum() / np.linalg.norm(x.T @ x) / np.linalg.norm(y.T @ y))
    present = np.array([value for value in values if not math.isnan(value)])
    assert abs(present.mean()) < 4 * present.std() / math.sqrt(len(present))
    assert np.mean(biased) > 0.3


def test_too_few_voxels_or_no_variation(summarise):
    rows = np.random.default_rng(9).normal(size=(30, 2))
    assert math.isnan(unbiased_cka(summarise(rows[:3], rows[3:6])))
    assert math.isnan(unbiased_cka(summarise(rows, np.ones((30, 2)))))
