"""Closed forms of what a narrow representation keeps of a wide one, from covariances alone."""

from __future__ import annotations

import math

import numpy as np

from seg.ablation.preservation.moments import Array

TOLERANCE = 1e-12
"""Eigenvalues of a correlation matrix below this share of the largest count as zero: there is no ridge.

A direction of a millionth of the largest standard deviation is about what single precision rounds away.
"""

CONSTANT = 1e-16
"""Channels whose variance is at most this share of the largest one count as constant, by the same reason."""

AMPLIFIED = 1.5
SUPPRESSED = 0.5
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
    """Share of the wide features' total variance that the best affine map from the narrow ones explains.

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
    """Share of variance that the first 1, 2, ..., C principal components hold; NaN where nothing varies.

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
    """Exponential of the entropy of the normalised eigenvalues, in [1, C]; NaN where nothing varies.

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
    """Squared sum over sum of squares of the eigenvalues, in [1, C]; NaN where nothing varies."""
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
