"""Intensity statistics over a data set of which one case at a time is in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from seg.errors import DataError

SAMPLES_PER_CASE = 10_000


@dataclass(frozen=True, kw_only=True)
class ChannelIntensity:
    """Intensities of one channel over the foreground voxels of all cases, in the image's own unit.

    Attributes:
        p00_5: 0.5th percentile.
        median: 50th percentile.
        p99_5: 99.5th percentile.
        mean: Mean.
        std: Standard deviation of the population, >= 0.
    """

    p00_5: float
    median: float
    p99_5: float
    mean: float
    std: float


@dataclass(frozen=True)
class IntensitySample:
    """What is kept of one channel of one case.

    Attributes:
        count: Voxels seen.
        mean: Their mean.
        squares: Sum of their squared deviations from the mean.
        ranked: All of them, sorted, or 10,000 evenly spaced order statistics, of shape (N,).
    """

    count: int
    mean: float
    squares: float
    ranked: npt.NDArray[np.float64]


def sample_intensities(voxels: npt.NDArray[Any]) -> IntensitySample:
    """Summarises voxels of one channel of one case; those that are NaN or infinite are left out.

    Args:
        voxels: Voxels of any shape, possibly none.

    Returns:
        Their moments, exact, and their order statistics, exact up to 10,000 voxels.
    """
    values = np.sort(voxels[np.isfinite(voxels)].astype(np.float64))
    if not values.size:
        return IntensitySample(0, 0.0, 0.0, values)
    mean = float(values.mean())
    squares = float(np.square(values - mean).sum())
    count = int(values.size)
    if count > SAMPLES_PER_CASE:
        # The middle of each of 10,000 equal shares of the sorted voxels: no random draw, so no seed.
        ranks = (np.arange(SAMPLES_PER_CASE) + 0.5) * count / SAMPLES_PER_CASE
        values = values[ranks.astype(np.int64)]
    return IntensitySample(count, mean, squares, values)


def pool_intensities(samples: Sequence[IntensitySample]) -> ChannelIntensity:
    """Joins the cases' summaries of one channel.

    Args:
        samples: One summary per case.

    Returns:
        Mean and standard deviation over all voxels, exact, and their percentiles.

    Raises:
        DataError: No sample holds a voxel.

    References:
        Chan, Golub, LeVeque. Algorithms for computing the sample variance. 1983. doi:10.1080/00031305.1983.10483115.
    """
    filled = [sample for sample in samples if sample.count]
    if not filled:
        raise DataError("data set has no foreground voxel in any label; planning needs at least one labelled voxel.")
    counts = np.array([sample.count for sample in filled], dtype=np.float64)
    means = np.array([sample.mean for sample in filled])
    mean = float(np.average(means, weights=counts))
    squares = sum(sample.squares for sample in filled) + float((counts * np.square(means - mean)).sum())
    values = np.concatenate([sample.ranked for sample in filled])
    weights = np.concatenate([np.full(sample.ranked.size, sample.count / sample.ranked.size) for sample in filled])
    low, median, high = weighted_percentiles(values, weights, (0.5, 50, 99.5))
    return ChannelIntensity(p00_5=low, median=median, p99_5=high, mean=mean, std=float(np.sqrt(squares / counts.sum())))


def weighted_percentiles(
    values: npt.NDArray[np.float64], weights: npt.NDArray[np.float64], percents: Sequence[float]
) -> tuple[float, ...]:
    """Percentiles of values that each stand for a number of voxels.

    A value lies at the middle of the voxels it stands for, and positions between are interpolated: Hazen's definition,
    where all weights are 1.

    Args:
        values: Values, of shape (N,), N >= 1, in any order.
        weights: Voxels each stands for, of shape (N,), > 0.
        percents: Percentiles wanted, in [0, 100].

    Returns:
        One value per percentile.

    References:
        Hyndman, Fan. Sample quantiles in statistical packages. 1996. doi:10.2307/2684934 (definition 5).
    """
    order = np.argsort(values, kind="stable")
    ranked, mass = values[order], weights[order]
    positions = np.cumsum(mass) - mass / 2
    wanted = np.asarray(percents) / 100 * mass.sum()
    return tuple(float(value) for value in np.interp(wanted, positions, ranked))
