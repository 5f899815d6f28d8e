"""Closed forms of what a narrow representation keeps of a wide one, from covariances alone."""

from __future__ import annotations

import math

import numpy as np

from seg.ablation.preservation.moments import Array, Summary

TOLERANCE = 1e-12
"""Eigenvalues of a correlation matrix below this share of the largest count as zero: there is no ridge.

A direction of a millionth of the largest standard deviation is about what single precision rounds away.
"""
CONSTANT = 1e-16
"""Channels whose variance is at most this share of the largest one count as constant, by the same reason."""
AMPLIFIED, SUPPRESSED = 1.5, 0.5
"""Times the mean contribution, above or below which a channel counts as amplified or suppressed."""


def spectrum(covariance: Array) -> Array:
    """Returns the eigenvalues of a covariance (C, C), descending, those that rounding made negative as 0."""
    values: Array = np.clip(np.linalg.eigvalsh(covariance)[::-1], 0.0, None, dtype=np.float64)
    return values


def pseudo_inverse(covariance: Array) -> Array:
    """Inverts a covariance (C, C) on the directions that vary, whatever the scales of its channels."""
    variances = np.diag(covariance)
    varying = variances > CONSTANT * variances.max()
    scale = np.where(varying, 1 / np.sqrt(np.where(varying, variances, 1.0)), 0.0)
    values, vectors = np.linalg.eigh(covariance * np.outer(scale, scale))
    kept = values > TOLERANCE * values[-1]
    inverse: Array = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T * np.outer(scale, scale)
    return inverse


def reconstruction_r2(wide: Array, cross: Array, narrow: Array) -> float:
    """Returns R2 of the wide features given the narrow ones: the variance that an affine fit explains, over the total.

    It changes under no invertible affine map of the narrow features, and with K narrow channels it is at most
    ``r2_by_width(spectrum(wide))[K - 1]``, whatever function made them.

    Args:
        wide: Covariance (C, C) of the wide features.
        cross: Covariance (C, K) between wide and narrow ones.
        narrow: Covariance (K, K) of the narrow ones.

    Returns:
        A share in [0, 1]; NaN where the wide features do not vary.
    """
    total = float(np.trace(wide))
    if total <= 0:
        return math.nan
    # tr(S_xy S_yy^+ S_yx), without the C x C product
    explained = float(np.sum((cross @ pseudo_inverse(narrow)) * cross))
    return min(max(explained / total, 0.0), 1.0)


def r2_by_width(eigenvalues: Array) -> Array:
    """Returns the share of variance that the first 1, 2, ..., C principal components hold; NaN where nothing varies.

    No representation of K channels, linear or not, from which the features are rebuilt by an affine map explains more
    than the K-th entry.

    References:
        C. Eckart, G. Young, "The approximation of one matrix by another of lower rank", 1936,
        doi:10.1007/BF02288367.
    """
    total = eigenvalues.sum()
    shares: Array = np.cumsum(eigenvalues) / total if total > 0 else np.full(len(eigenvalues), math.nan)
    return np.minimum(shares, 1.0)


def effective_rank(eigenvalues: Array) -> float:
    """Returns the exponential of the entropy of the normalised eigenvalues, in [1, C]; NaN where nothing varies.

    References:
        O. Roy, M. Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007. Their singular
        values are taken of the covariance, not of the matrix of the features.
    """
    total = eigenvalues.sum()
    if total <= 0:
        return math.nan
    shares = eigenvalues[eigenvalues > 0] / total
    return float(np.exp(-np.sum(shares * np.log(shares))))


def participation_ratio(eigenvalues: Array) -> float:
    """Returns the squared sum over the sum of squares of the eigenvalues, in [1, C]; NaN where nothing varies."""
    squares = float(np.square(eigenvalues).sum())
    return float(eigenvalues.sum()) ** 2 / squares if squares > 0 else math.nan


def contributions(weight: Array, covariance: Array) -> Array:
    """Says how much each wide channel contributes to the outputs of a 1x1, relative to the mean channel.

    A channel's contribution is the norm of its column of standardised weights, w_kc std(x_c) / std(w_k x): scaling a
    wide channel against its weights or a narrow channel as a whole changes nothing, for what follows can undo both.

    Args:
        weight: Weight (K, C) of the 1x1.
        covariance: Covariance (C, C) of its input.

    Returns:
        Contributions over their mean, shape (C,); NaN where no output varies.
    """
    deviations = np.sqrt(np.diag(covariance))
    variances = np.einsum("kc,cd,kd->k", weight, covariance, weight)
    varying = variances > 0
    columns = np.square(weight[varying] * deviations) / variances[varying, None]
    norms: Array = np.sqrt(columns.sum(0))
    mean = norms.mean()
    return norms / mean if mean > 0 else np.full(len(deviations), math.nan)


def amplified_and_suppressed(weight: Array, covariance: Array) -> tuple[float, float]:
    """Returns the share of wide channels that contribute above 1.5 and below 0.5 times the mean; see above."""
    relative = contributions(weight, covariance)
    if np.isnan(relative).any():
        return math.nan, math.nan
    return float(np.mean(relative > AMPLIFIED)), float(np.mean(relative < SUPPRESSED))


PARTS = ("wide", "narrow")


def unbiased_cka(summary: Summary) -> float:
    """Returns the similarity of two linear Gram matrices over voxels, without comparing a voxel with itself.

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
    """Estimates HSIC_1 of two parts without bias, divided by the count of voxels as in every term of a CKA."""
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
