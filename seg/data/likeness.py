"""Whether neighbouring cases look like two of one patient, whom nobody named: both would otherwise lie on two sides.

Neighbours in the order of their names are compared with cases half the data set apart, which are of other patients. On
120 frames of ACDC, two of one patient correlate by 0.94 to 0.99 and others by at most 0.51; heads that were registered
to each other correlate by 0.9, so that correlation alone says nothing. Cases cut out of one scan, such as two
hippocampi, keep a percentile that is no whole number to its last digit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

POINTS = 16
"""Voxels along each axis at which two scans are compared."""
PERCENTILE = 99
STRONG = 0.9
"""Least correlation of two scans of one patient."""
NEARER = 0.5
"""How far from 1 their correlation may be, as a share of what it is between different patients."""
CHANCE = 0.1
"""Share of pairs of different patients with equal percentiles from which on equality says nothing."""


@dataclass(frozen=True, eq=False)
class Look:
    """What is kept of a scan.

    Attributes:
        percentile: The 99th of its voxels.
        voxels: Some of them, evenly spaced, of shape (4096,).
    """

    percentile: float
    voxels: npt.NDArray[np.float64]

    def correlation(self, other: Look) -> float:
        """Returns the correlation of two scans; 0 where one does not vary."""
        one, two = (look.voxels - look.voxels.mean() for look in (self, other))
        scale = float(np.sqrt((one @ one) * (two @ two)))
        return float(one @ two) / scale if scale > 0 else 0.0

    def equals(self, other: Look) -> bool:
        """Tells whether two percentiles are equal and no whole numbers, of which many are equal by chance."""
        return self.percentile == other.percentile != round(self.percentile)


def look_of(channel: npt.NDArray[Any]) -> Look:
    """Returns what is kept of a channel (X, Y, Z) of finite voxels."""
    places = [np.linspace(0, size - 1, POINTS).round().astype(np.intp) for size in channel.shape]
    return Look(float(np.percentile(channel, PERCENTILE)), channel[np.ix_(*places)].astype(np.float64).ravel())


def alike(looks: Mapping[str, Look]) -> list[tuple[str, str]]:
    """Returns the pairs of neighbouring cases that look like one patient, by the names of the cases."""
    names = sorted(looks)
    apart = len(names) // 2
    distant = [(looks[one], looks[two]) for one, two in zip(names, names[apart:], strict=False)] if apart > 1 else []
    usual = float(np.quantile([one.correlation(two) for one, two in distant], 1 - CHANCE)) if distant else 0.0
    least = max(STRONG, 1 - NEARER * (1 - usual))
    telling = sum(one.equals(two) for one, two in distant) <= CHANCE * len(distant)
    return [
        (one, two)
        for one, two in pairwise(names)
        if looks[one].correlation(looks[two]) > least or (telling and looks[one].equals(looks[two]))
    ]
