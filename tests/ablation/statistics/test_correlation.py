"""Correlation: scipy's values, replicated samples, clusters, too few points."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from seg.ablation.statistics import correlate
from seg.ablation.statistics.correlation import _ranks, weighted_pearson


def test_correlations_are_those_of_scipy_and_gaps_are_left_out() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=30)
    y = x + rng.normal(size=30)
    found = correlate([*x, np.nan, 1.0], [*y, 1.0, np.inf])
    assert found is not None
    assert found.spearman == pytest.approx(stats.spearmanr(x, y).statistic)
    assert found.pearson == pytest.approx(stats.pearsonr(x, y).statistic)
    assert (found.num_points, found.num_clusters) == (30, 30)
    # Fisher's interval, of another kind, lies near.
    expected = stats.pearsonr(x, y).confidence_interval()
    assert found.pearson_ci95 == pytest.approx((expected.low, expected.high), abs=0.1)


def test_a_weighted_correlation_is_that_of_replicated_points() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 6, 12).astype(float), rng.normal(size=12)
    weights = rng.multinomial(12, np.full(12, 1 / 12), size=5)
    spearman = weighted_pearson(_ranks(x, weights), _ranks(y, weights), weights)
    for row, rank, value in zip(weights, spearman, weighted_pearson(x, y, weights), strict=True):
        many = np.repeat(x, row), np.repeat(y, row)
        assert rank == pytest.approx(stats.spearmanr(*many).statistic)
        assert value == pytest.approx(stats.pearsonr(*many).statistic)


def test_points_of_one_cluster_widen_the_interval() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=8)
    y = x + rng.normal(size=8)
    many = {"x": np.repeat(x, 10), "y": np.repeat(y, 10)}
    alone = correlate(many["x"].tolist(), many["y"].tolist())
    together = correlate(many["x"].tolist(), many["y"].tolist(), clusters=np.repeat(np.arange(8), 10).tolist())
    single = correlate(x.tolist(), y.tolist())
    assert alone is not None
    assert together is not None
    assert single is not None
    assert alone.pearson_ci95 is not None
    assert together.pearson_ci95 == pytest.approx(single.pearson_ci95)
    assert together.spearman_ci95 == pytest.approx(single.spearman_ci95)
    assert np.ptp(together.pearson_ci95 or ()) > 2 * np.ptp(alone.pearson_ci95)


def test_too_little_gives_none() -> None:
    assert correlate([1, 2, 3], [1, 2, 3]) is None
    assert correlate([1, 1, 1, 1, 1], [1, 2, 3, 4, 5]) is None
    found = correlate([1, 2, 3, 4, 5], [1, 2, 3, 4, 6], clusters=list("aabbc"))
    assert found is not None
    assert (found.num_clusters, found.pearson_ci95, found.spearman_ci95) == (3, None, None)


def test_a_partial_correlation_is_that_of_what_ranks_leave() -> None:
    rng = np.random.default_rng(3)
    z = rng.normal(size=40)
    x, y = z + rng.normal(size=40), z + 0.3 * rng.normal(size=40)
    found = correlate(x.tolist(), y.tolist(), given=z.tolist())
    assert found is not None
    ranks = [stats.rankdata(figure) for figure in (x, y, z)]
    left = [ranks[i] - np.polyval(np.polyfit(ranks[2], ranks[i], 1), ranks[2]) for i in (0, 1)]
    assert found.partial == pytest.approx(stats.pearsonr(*left).statistic)
    assert found.partial_ci95 is not None
    assert found.partial_ci95[0] < found.partial < found.partial_ci95[1]
    # What is behind both takes most of their correlation away.
    assert abs(found.partial) < 0.5 * found.spearman


def test_nothing_is_left_of_what_follows_from_the_third_figure() -> None:
    rng = np.random.default_rng(4)
    z = rng.normal(size=12)
    found = correlate(np.exp(z).tolist(), rng.normal(size=12).tolist(), given=z.tolist())
    assert found is not None
    assert (found.partial, found.partial_ci95) == (None, None)
    assert correlate([1, 2, 3, 4], [1, 2, 4, 3]).partial is None  # type: ignore[union-attr]
