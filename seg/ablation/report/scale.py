"""The part of a scale that a figure shows, so that one variant that failed does not flatten all others."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

FAR = 4.0
"""Times the median reach of the variants' intervals from 0, beyond which a scale is cut."""
EDGE = 0.04


Spread = tuple[float, float, float]
"""A difference with the ends of its interval."""

FEWEST_TICKS, MOST_TICKS = 4, 7
STEPS = ((1,), (1, 2, 5), (1, 2, 3, 5, 7))
"""Multiples of powers of ten that a logarithmic scale may show, from few to many."""


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


def possible(spread: Spread, base: float | None) -> Spread:
    """Cuts the interval of a difference to what can be: a Dice lies between 0 and 1.

    A t interval over few runs of which one failed reaches further.

    Args:
        spread: Difference and its interval.
        base: Dice of the baseline; None where it is not known, then the interval is cut to -1 to 1.
    """
    least, most = (-1.0, 1.0) if base is None else (-base, 1.0 - base)
    middle, low, high = spread
    return middle, min(middle, max(low, least)), max(middle, min(high, most))


def within(limits: tuple[float, float], base: float | None) -> tuple[float, float]:
    """Cuts the limits of a scale of differences to what can be."""
    least, most = (-1.0, 1.0) if base is None else (-base, 1.0 - base)
    return max(limits[0], least), min(limits[1], most)


def log_ticks(low: float, high: float) -> list[float]:
    """Gives round values between two positive limits for a logarithmic scale: four to seven where that goes."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    choices = [[step * 10.0**power for power in powers for step in steps] for steps in STEPS]
    # Limits that lie close together hold few of these: even steps then.
    for power in reversed(range(math.floor(math.log10(high)) - 3, math.ceil(math.log10(high)) + 1)):
        for step in (5 * 10.0**power, 2 * 10.0**power, 10.0**power):
            choices.append([step * count for count in range(math.ceil(low / step), math.floor(high / step) + 1)])
    shown = [[tick for tick in choice if low <= tick <= high] for choice in choices]
    for fewest in range(FEWEST_TICKS, 0, -1):
        for ticks in shown:
            if fewest <= len(ticks) <= MOST_TICKS:
                return ticks
    return []


def choose_scale(spreads: Mapping[str, Spread], shown: Sequence[float], *, far: float = FAR) -> Scale | None:
    """Chooses limits that hold most variants' intervals; None where all fit on one scale.

    Args:
        spreads: Difference and its interval by variant.
        shown: Values that the scale holds in any case, such as the margin.
        far: Times the median reach from which a difference lies off the scale.
    """
    reaches = [max(abs(value) for value in spread) for spread in spreads.values()]
    if not reaches:
        return None
    limit = max(far * statistics.median(reaches), *map(abs, shown), 1e-12)
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
