"""The part of a scale that a figure shows, so that one variant that failed does not flatten all others."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

FAR = 4.0
"""Times the median reach of the variants' intervals from 0, beyond which a scale is cut."""
EDGE = 0.04


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Limits of a scale of differences.

    Attributes:
        low: Lower limit.
        high: Upper limit.
        beyond: Variants whose difference lies outside; they are drawn at the edge.
    """

    low: float
    high: float
    beyond: tuple[str, ...]

    def place(self, value: float) -> float:
        """Returns where a difference is drawn: itself, or just inside the edge."""
        inset = EDGE * (self.high - self.low)
        return min(max(value, self.low + inset), self.high - inset)


def choose_scale(spreads: Mapping[str, tuple[float, float, float]], shown: Sequence[float]) -> Scale | None:
    """Chooses limits that hold most variants' intervals; None where all fit on one scale.

    Args:
        spreads: Difference and its interval by variant.
        shown: Values that the scale holds in any case, such as the margin.
    """
    reaches = [max(abs(value) for value in spread) for spread in spreads.values()]
    if not reaches:
        return None
    limit = max(FAR * statistics.median(reaches), *map(abs, shown), 1e-12)
    if max(reaches) <= limit:
        return None
    values = [*shown, *(value for spread in spreads.values() for value in spread if abs(value) <= limit)]
    room = 0.12 * (max(values) - min(values))
    low, high = min(values) - room, max(values) + room
    beyond = tuple(name for name, (middle, _, _) in spreads.items() if not low <= middle <= high)
    return Scale(low=low, high=high, beyond=beyond)


def beyond_words(scales: Sequence[Scale | None]) -> str:
    """Says which variants are drawn at an edge; empty where none is."""
    names = dict.fromkeys(name for scale in scales if scale is not None for name in scale.beyond)
    cut = any(scale is not None for scale in scales)
    said = " Intervals that leave a scale are cut at its edge." if cut else ""
    return said + (f" Off the scale, drawn at its edge: {', '.join(names)}." if names else "")
