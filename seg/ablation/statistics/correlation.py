"""Correlation over variants and stages: how well one figure predicts another."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from seg.evaluation.scores import Interval

FloatArray = npt.NDArray[np.float64]

SAMPLES = 2000
MIN_POINTS = 4
PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """Correlation of two figures.

    Attributes:
        spearman: Spearman's rank correlation.
        spearman_ci95: Its 95 % interval; None below four clusters, or where resamples hardly vary.
        pearson: Pearson's correlation.
        pearson_ci95: Its 95 % interval, as above.
        partial: Spearman's partial correlation given a third figure; None without one, or where either of the two
            follows from it.
        partial_ci95: Its 95 % interval, as above.
        num_points: Points behind it.
        num_clusters: Clusters that were resampled.
    """

    spearman: float
    spearman_ci95: Interval | None
    pearson: float
    pearson_ci95: Interval | None
    partial: float | None
    partial_ci95: Interval | None
    num_points: int
    num_clusters: int


def correlate(
    x: Sequence[float],
    y: Sequence[float],
    *,
    clusters: Sequence[Hashable] | None = None,
    given: Sequence[float] | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
) -> Correlation | None:
    """Correlates two figures, with percentile intervals from resampling clusters.

    Seeds and stages of one variant are not independent points, so the variant is what is resampled. The resampled
    correlations are own code: all resamples are taken at once as weights of points, where `scipy.stats.bootstrap`
    would call a correlation thousands of times.

    Args:
        x: One figure per point; points where either figure is NaN or infinite are left out.
        y: The other figure.
        clusters: What each point belongs to, such as its variant; None where points are independent.
        given: A third figure per point, finite, which may be behind both; None for none.
        samples: Resamples, >= 1.
        seed: Seed of the resampling.

    Returns:
        The correlations; None below four points or where a figure does not vary.

    References:
        A. C. Davison, D. V. Hinkley, Bootstrap Methods and their Application, 1997, section 3.8 (clustered data),
        doi:10.1017/CBO9780511802843.
        M. G. Kendall, Partial rank correlation, 1942, doi:10.1093/biomet/32.3-4.277 (of ranks, as of values).
    """
    labels = list(range(len(x))) if clusters is None else list(clusters)
    finite = np.isfinite(x) & np.isfinite(y)
    first, second = np.asarray(x, dtype=float)[finite], np.asarray(y, dtype=float)[finite]
    if len(first) < MIN_POINTS or not np.ptp(first) or not np.ptp(second):
        return None
    numbers = {label: number for number, label in enumerate(dict.fromkeys(np.array(labels, dtype=object)[finite]))}
    members = np.array([numbers[label] for label, kept in zip(labels, finite, strict=True) if kept])
    total = len(numbers)
    drawn = np.random.default_rng(seed).multinomial(total, np.full(total, 1 / total), size=samples)
    weights = drawn[:, members].astype(float)
    first_ranks, second_ranks = _ranks(first, weights), _ranks(second, weights)
    partial, partial_ci95 = None, None
    if given is not None:
        third, once = np.asarray(given, dtype=float)[finite], np.ones((1, len(first)))
        value = float(weighted_partial(_ranks(first, once), _ranks(second, once), _ranks(third, once), once)[0])
        if np.isfinite(value):
            resampled = weighted_partial(first_ranks, second_ranks, _ranks(third, weights), weights)
            partial, partial_ci95 = value, _interval(resampled, total)
    return Correlation(
        spearman=float(stats.spearmanr(first, second).statistic),
        spearman_ci95=_interval(weighted_pearson(first_ranks, second_ranks, weights), total),
        pearson=float(stats.pearsonr(first, second).statistic),
        pearson_ci95=_interval(weighted_pearson(first, second, weights), total),
        partial=partial,
        partial_ci95=partial_ci95,
        num_points=len(first),
        num_clusters=total,
    )


def weighted_pearson(x: FloatArray, y: FloatArray, weights: FloatArray) -> FloatArray:
    """Gives Pearson's correlation of points that each count as often as their weight says.

    Args:
        x: Figures of shape (points,) or (samples, points).
        y: The others, likewise.
        weights: How often each point counts, of shape (samples, points); a sample has a weight above 0.

    Returns:
        Correlations of shape (samples,); NaN where a figure does not vary.
    """
    total = weights.sum(axis=1, keepdims=True)
    dx = x - (weights * x).sum(axis=1, keepdims=True) / total
    dy = y - (weights * y).sum(axis=1, keepdims=True) / total
    xx, yy = (weights * dx * dx).sum(axis=1), (weights * dy * dy).sum(axis=1)
    # Rounding leaves a trace of variance where the drawn points are all equal.
    flat = (xx <= 1e-12 * (weights * x * x).sum(axis=1)) | (yy <= 1e-12 * (weights * y * y).sum(axis=1))
    correlation: FloatArray = np.full(len(weights), np.nan)
    np.divide((weights * dx * dy).sum(axis=1), np.sqrt(xx * yy), out=correlation, where=~flat)
    return correlation


def weighted_partial(x: FloatArray, y: FloatArray, z: FloatArray, weights: FloatArray) -> FloatArray:
    """Gives the correlation of `x` and `y` given `z`, as `weighted_pearson` does; NaN where one follows from `z`."""
    xy, xz, yz = (weighted_pearson(*pair, weights) for pair in ((x, y), (x, z), (y, z)))
    left = (1 - xz**2) * (1 - yz**2)
    # Rounding leaves a trace where one figure follows from the third.
    known = (1 - xz**2 > 1e-9) & (1 - yz**2 > 1e-9)
    partial: FloatArray = np.full(len(weights), np.nan)
    np.divide(xy - xz * yz, np.sqrt(np.where(known, left, 1.0)), out=partial, where=known)
    return partial


def _ranks(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Gives the mid-rank of each point among points that count as often as their weight says, (samples, points)."""
    below = (values[:, None] < values).astype(float)
    equal = (values[:, None] == values).astype(float)
    ranks: FloatArray = weights @ below + (weights @ equal + 1) / 2
    return ranks


def _interval(values: FloatArray, clusters: int) -> Interval | None:
    """Gives the percentile interval of resampled correlations."""
    kept = values[np.isfinite(values)]
    if clusters < MIN_POINTS or 2 * len(kept) < len(values):
        return None
    low, high = np.percentile(kept, PERCENTILES)
    return float(low), float(high)
