"""Linear CKA between wide and narrow features, unbiased, from streamed moments."""

from __future__ import annotations

import math

import numpy as np

from seg.ablation.preservation.moments import Array, Summary

PARTS = ("wide", "narrow")


def unbiased_cka(summary: Summary) -> float:
    """Similarity of the two linear Gram matrices over voxels, in which a voxel is never compared with itself.

    For centred features X, Y of n voxels the Gram matrices K = XX', L = YY' without their diagonals give
    tr(KL) = |X'Y|^2 - d and 1'KL1 = d with d = sum |x_i|^2 |y_i|^2, and 1'K1 = -sum |x_i|^2; d is a second moment of
    the squared norms. So the estimate of Song et al. over all pairs of voxels needs no pair at all. Shifts, rotations
    and one common scale of either side change nothing; other linear maps do, which is why the figure is never read
    alone.

    Args:
        summary: Moments with narrow features.

    Returns:
        At most about 1, slightly negative where nothing is shared; NaN for fewer than four voxels or where a side's
        own estimate is not positive.

    References:
        L. Song et al., "Feature Selection via Dependence Maximization", 2012, JMLR 13 (HSIC_1). S. Kornblith et al.,
        "Similarity of Neural Network Representations Revisited", 2019, arXiv:1905.00414. T. Nguyen, M. Raghu,
        S. Kornblith, "Do Wide and Deep Networks Learn the Same Things?", 2020, arXiv:2010.15327 (unbiased CKA).
    """
    if summary.count < 4:
        return math.nan
    own = _hsic(summary, "wide", "wide"), _hsic(summary, "narrow", "narrow")
    if min(own) <= 0:
        return math.nan
    return _hsic(summary, "wide", "narrow") / math.sqrt(own[0] * own[1])


def _hsic(summary: Summary, first: str, second: str) -> float:
    """HSIC_1 over the count of voxels: scaled alike in every term of a CKA."""
    n = summary.count
    one, other = (float(np.trace(summary.covariance_of(part, part))) for part in (first, second))
    # All sums are means here: |X'Y|^2 = n^2 shared, d = n diagonal, 1'K1 1'L1 = n^2 one other.
    shared = float(np.square(summary.covariance_of(first, second)).sum())
    weights = _squared_norm(summary, first), _squared_norm(summary, second)
    diagonal = float(weights[0] @ summary.covariance @ weights[1]) + one * other
    return (n * shared - diagonal + n * one * other / ((n - 1) * (n - 2)) - 2 * diagonal / (n - 2)) / (n - 3)


def _squared_norm(summary: Summary, part: str) -> Array:
    """Weights w with w'u + constant = squared distance of a voxel's features from their mean, u its whole vector."""
    weights: Array = np.zeros(summary.layout.size)
    weights[summary.layout.part(part)] = -2 * summary.mean_of(part)
    weights[summary.layout.part("squares").start + PARTS.index(part)] = 1.0
    return weights
