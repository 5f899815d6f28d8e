"""Streamed moments against numpy on everything in memory."""

import numpy as np
import pytest
import torch

from seg.ablation.preservation.moments import FeatureWidths, Moments, Summary
from seg.errors import DataError, RunError


@pytest.mark.parametrize("chunk", [1, 7, 300, 1000])
def test_streaming_is_numpy(mixed, summarise, chunk):
    wide, narrow = mixed
    labels = np.arange(300) % 3
    summary = summarise(wide, narrow, labels, classes=3, chunk=chunk)
    whole = np.concatenate([wide, narrow], axis=1)
    covariance = np.cov(whole, rowvar=False, ddof=0)
    assert summary.count == 300
    np.testing.assert_allclose(summary.mean_of("wide"), wide.mean(0), rtol=1e-12)
    np.testing.assert_allclose(summary.covariance_of("wide", "wide"), covariance[:7, :7], rtol=1e-10)
    np.testing.assert_allclose(summary.covariance_of("wide", "narrow"), covariance[:7, 7:], rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(summary.covariance_of("narrow", "narrow"), covariance[7:, 7:], rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(summary.mean_of("labels"), [1 / 3] * 3)
    squares = np.stack([np.square(wide).sum(1), np.square(narrow).sum(1)])
    np.testing.assert_allclose(summary.covariance_of("squares", "squares"), np.cov(squares, ddof=0), rtol=1e-10)


def test_a_large_mean_costs_no_digits():
    rng = np.random.default_rng(1)
    small = rng.normal(size=(5000, 2))
    moments = Moments(2, torch.device("cpu"))
    for part in np.split(small + 1e7, 50):
        moments.add(torch.from_numpy(part))
    expected = np.cov(small, rowvar=False, ddof=0)
    # Sums of squares of 1e14 less squares of sums would be off by 1e-2 here.
    np.testing.assert_allclose(moments.scatter.numpy() / 5000, expected, atol=1e-8)


def test_merging_is_adding():
    rng = np.random.default_rng(2)
    rows = torch.from_numpy(rng.normal(size=(90, 4)))
    parts = [Moments(4, torch.device("cpu")) for _ in range(3)]
    parts[0].add(rows[:20])
    parts[0].add(rows[:0])
    parts[2].add(rows[20:])
    for part in parts[1:]:
        parts[0].merge(part)
    assert parts[0].count == 90
    np.testing.assert_allclose(parts[0].scatter.numpy() / 90, np.cov(rows.numpy(), rowvar=False, ddof=0), rtol=1e-12)


def test_half_precision_features_are_summed_in_double():
    layout = FeatureWidths(wide=1, narrow=0, classes=1)
    moments = Moments(layout.size, torch.device("cpu"))
    x = torch.tensor([[1.0], [1.0 + 2**-7]], dtype=torch.bfloat16)
    moments.add(layout.rows(x, None, torch.zeros(2, dtype=torch.int64)))
    assert Summary.of(layout, moments).covariance_of("wide", "wide").item() == 2**-16


def test_nothing_and_a_diverged_network_are_errors(summarise):
    with pytest.raises(DataError):
        summarise(np.empty((0, 1)))
    with pytest.raises(RunError):
        summarise(np.array([[1.0], [np.nan]]))
