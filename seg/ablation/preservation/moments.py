"""Second moments of features, streamed: memory grows with the channels and not with the voxels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from seg.errors import DataError, Problem, RunError

Array = npt.NDArray[np.float64]
CHUNK = 1 << 14
"""Rows that are turned into double precision at once."""


class Moments:
    """Count, mean and centred scatter of vectors, added to in chunks.

    Args:
        size: Length of the vectors.
        device: Where they lie; it must compute in double precision.

    Attributes:
        count: Vectors so far.
        mean: Their mean f64, shape (size,).
        scatter: Sum of outer products of their deviations from the mean f64, shape (size, size).

    References:
        T. Chan, G. Golub, R. LeVeque, "Algorithms for Computing the Sample Variance: Analysis and Recommendations",
        1983, doi:10.1080/00031305.1983.10483115: chunks are centred by themselves before they are merged, so a
        large mean costs no digits.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self.count = 0
        self.mean = torch.zeros(size, dtype=torch.float64, device=device)
        self.scatter = torch.zeros((size, size), dtype=torch.float64, device=device)

    def add(self, rows: Tensor) -> None:
        """Adds vectors f64 of shape (n, size); none is allowed."""
        if not len(rows):
            return
        mean = rows.mean(0)
        centred = rows - mean
        self._merge(len(rows), mean, centred.T @ centred)

    def merge(self, other: Moments) -> None:
        """Adds the vectors that another one has seen."""
        if other.count:
            self._merge(other.count, other.mean, other.scatter)

    def _merge(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        total = self.count + count
        step = mean - self.mean
        self.mean = self.mean + step * (count / total)
        self.scatter = self.scatter + scatter + torch.outer(step, step) * (self.count * count / total)
        self.count = total


@dataclass(frozen=True, kw_only=True)
class FeatureWidths:
    """Order of the entries of a voxel's vector: wide features, narrow ones, their squared norms, its class.

    The squared norms are there for the unbiased CKA, whose terms of fourth order are second moments of them.

    Attributes:
        wide: Wide channels.
        narrow: Channels handed over; 0 where there is no bottleneck.
        classes: Classes, background included.
    """

    wide: int
    narrow: int
    classes: int

    @property
    def size(self) -> int:
        """Length of a vector."""
        return self.wide + self.narrow + 2 + self.classes

    def part(self, name: str) -> slice:
        """Returns where ``wide``, ``narrow``, ``squares`` or ``labels`` lie."""
        lengths = {"wide": self.wide, "narrow": self.narrow, "squares": 2, "labels": self.classes}
        start = 0
        for known, length in lengths.items():
            if known == name:
                return slice(start, start + length)
            start += length
        raise KeyError(name)

    def rows(self, wide: Tensor, narrow: Tensor | None, labels: Tensor) -> Tensor:
        """Stacks features (n, wide) and (n, narrow) and labels i64 (n,) to vectors f64 (n, size)."""
        x = wide.double()
        y = x.new_zeros((len(x), 0)) if narrow is None else narrow.double()
        squares = torch.stack((x.square().sum(1), y.square().sum(1)), dim=1)
        return torch.cat((x, y, squares, F.one_hot(labels, self.classes).double()), dim=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Summary:
    """Mean and covariance of all voxels, once the stream of features has ended.

    Attributes:
        layout: Order of the entries.
        count: Voxels.
        mean: Mean, shape (size,).
        covariance: Scatter over count, shape (size, size).
    """

    layout: FeatureWidths
    count: int
    mean: Array
    covariance: Array

    @classmethod
    def of(cls, layout: FeatureWidths, *parts: Moments) -> Summary:
        """Merges moments of the same layout, which stay as they are.

        Raises:
            DataError: No voxel counted.
            RunError: Features were not finite.
        """
        total = Moments(layout.size, parts[0].mean.device)
        for part in parts:
            total.merge(part)
        if not total.count:
            rule = "must hold a voxel that counts at every stage"
            remedy = "measure cases larger than a stage's stride, with more than the ignore label"
            raise DataError(Problem("measured cases", "empty", rule, "none", remedy))
        if not bool(torch.isfinite(total.scatter).all()):
            remedy = "the network diverged, train it anew"
            raise RunError(Problem("features", "finite", "must be finite", "NaN or infinity", remedy))
        scatter: Array = total.scatter.cpu().numpy()
        mean: Array = total.mean.cpu().numpy()
        return cls(layout=layout, count=total.count, mean=mean, covariance=scatter / total.count)

    def mean_of(self, name: str) -> Array:
        """Returns the mean of a part."""
        return self.mean[self.layout.part(name)]

    def covariance_of(self, rows: str, columns: str) -> Array:
        """Returns the covariance between two parts."""
        return self.covariance[self.layout.part(rows), self.layout.part(columns)]
