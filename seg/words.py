"""Numbers as a reader meets them; what was not measured says so."""

from __future__ import annotations

import math

NOT_MEASURED = "not measured"
MINUS = "\N{MINUS SIGN}"


def fixed(value: float | None, digits: int, *, sign: bool = False, absent: str = NOT_MEASURED) -> str:
    """Writes a number with fixed decimals; ``absent`` stands for one that does not exist."""
    if value is None or math.isnan(value):
        return absent
    if math.isinf(value):
        return "∞"
    # Adding 0.0 turns a negative zero, which rounding makes of small values, into a plain one.
    rounded = round(value, digits) + 0.0
    text = f"{rounded:+.{digits}f}" if sign and rounded else f"{rounded:.{digits}f}"
    return text.replace("-", MINUS)


def counted(number: int, noun: str, several: str = "") -> str:
    """Writes a number with its noun, whose plural has an s unless it is given."""
    return f"{number} {noun}" if number == 1 else f"{number} {several or f'{noun}s'}"


def in_time(seconds: float | None) -> str:
    """Writes a duration: ``40 s``, ``12 min``, ``3 h 05 min``."""
    if seconds is None:
        return NOT_MEASURED
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"
