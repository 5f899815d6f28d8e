"""Numbers as a reader meets them; what was not measured says so."""

from __future__ import annotations

import math
from collections.abc import Sequence

from seg.words import MINUS, NOT_MEASURED, counted, fixed

__all__ = [
    "EN_DASH",
    "MINUS",
    "NOTHING",
    "NOT_MEASURED",
    "billions",
    "counted",
    "figures",
    "fixed",
    "in_words",
    "interval",
    "listed",
    "millions",
    "probability",
    "times",
]
EN_DASH = "\N{EN DASH}"
NOTHING = EN_DASH
"""Stands where there is nothing to measure, such as the baseline's difference from itself."""


def figures(value: float | None, digits: int = 3) -> str:
    """Writes a number with so many significant figures, thousands apart."""
    if value is None or math.isnan(value):
        return NOT_MEASURED
    if value == 0 or math.isinf(value):
        return "0" if value == 0 else "∞"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}".replace(",", "\N{NARROW NO-BREAK SPACE}").replace("-", MINUS)


def interval(value: tuple[float, float] | None, digits: int, *, sign: bool = False) -> str:
    """Writes an interval; nothing where there is none.

    With ``sign``, an end that is not 0 but rounds to it keeps its sign: that tells whether the interval holds 0.
    """
    return "" if value is None else " to ".join(_end(end, digits, sign=sign) for end in value)


def _end(value: float, digits: int, *, sign: bool) -> str:
    text = fixed(value, digits, sign=sign)
    if sign and value and text[0] == "0":
        return f"{MINUS if value < 0 else '+'}{text}"
    return text


def probability(value: float | None) -> str:
    """Writes a p-value."""
    if value is None:
        return NOT_MEASURED
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def millions(count: float | None, digits: int = 2) -> str:
    """Writes a count in millions."""
    return NOT_MEASURED if count is None else fixed(count / 1e6, digits)


def billions(count: float | None, digits: int = 2) -> str:
    """Writes a count in thousands of millions."""
    return NOT_MEASURED if count is None else fixed(count / 1e9, digits)


def times(value: float | None) -> str:
    """Writes a ratio."""
    return NOT_MEASURED if value is None else f"{value:.2f}"


def in_words(number: int) -> str:
    """Writes a small number as a word."""
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    return words[number] if 0 <= number < len(words) else str(number)


def listed(names: Sequence[str]) -> str:
    """Joins names as a sentence does."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
