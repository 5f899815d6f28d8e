"""The mean of scores of which some do not exist."""

from __future__ import annotations

import math
from collections.abc import Iterable


def finite_mean(values: Iterable[float | None]) -> float | None:
    """Returns the mean of the values that are finite numbers; None without any."""
    present = [value for value in values if value is not None and math.isfinite(value)]
    return sum(present) / len(present) if present else None
