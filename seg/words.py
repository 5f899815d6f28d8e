"""Numbers and texts as people read them; a figure that was not measured says so."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Sequence

NOT_MEASURED = "not measured"
MINUS = "\N{MINUS SIGN}"
# No parser takes an underscore within a word for emphasis.
_SPECIAL = re.compile(r"[&<>\\`*{}\[\]|#~!$\"']|(?<![^\W_])_|_(?![^\W_])")
_LINK = re.compile(r"(?i)\b(https?|ftp|javascript|data|mailto|www)(?=[:.])")


def fixed(value: float | None, digits: int, *, sign: bool = False, absent: str = NOT_MEASURED) -> str:
    """Formats a number with fixed decimals; ``absent`` stands for None and NaN."""
    if value is None or math.isnan(value):
        return absent
    if math.isinf(value):
        return "∞"
    # Adding 0.0 turns a negative zero, which rounding makes of small values, into a plain one.
    rounded = round(value, digits) + 0.0
    text = f"{rounded:+.{digits}f}" if sign and rounded else f"{rounded:.{digits}f}"
    return text.replace("-", MINUS)


def significant(value: float | None, digits: int = 3, *, absent: str = NOT_MEASURED) -> str:
    """Formats a number with significant figures and thousands apart; ``absent`` stands for None and NaN."""
    if value is None or math.isnan(value):
        return absent
    if value == 0 or math.isinf(value):
        return "0" if value == 0 else "∞"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}".replace(",", "\N{NARROW NO-BREAK SPACE}").replace("-", MINUS)


def interval(low: float, high: float, digits: int, *, sign: bool = False) -> str:
    """Formats an interval.

    With ``sign``, an end that is not 0 but rounds to it keeps its sign, which tells whether the interval holds 0.
    """
    ends = []
    for end in (low, high):
        text = fixed(end, digits, sign=sign)
        ends.append(f"{MINUS if end < 0 else '+'}{text}" if sign and end and text[0] == "0" else text)
    return " to ".join(ends) if sign else "\N{EN DASH}".join(ends)


def counted(number: int, noun: str, several: str = "") -> str:
    """Formats a number with its noun; ``several`` is a plural that does not end in s."""
    return f"{number} {noun}" if number == 1 else f"{number} {several or f'{noun}s'}"


def some(items: Sequence[object], most: int = 5, form: str = "") -> str:
    """Lists items with commas between; of more than ``most``, the first of them and the number of the others."""
    listed = ", ".join(format(item, form) for item in items[:most])
    return f"{listed} and {len(items) - most} more" if len(items) > most else listed


def aligned(rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> str:
    """Formats the rows of a table as lines; cells of the columns in ``right`` end where their column ends."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def dimensions(sizes: Iterable[object], form: str = "") -> str:
    """Formats sizes along axes: ``40 x 56 x 40``."""
    return " x ".join(format(size, form) for size in sizes)


def in_time(seconds: float | None) -> str:
    """Formats a duration: ``40 s``, ``12 min``, ``3 h 05 min``."""
    if seconds is None:
        return NOT_MEASURED
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"


def escape_markdown(text: object) -> str:
    """Formats a text so that no Markdown parser takes a part of it for structure, a link or HTML.

    Character references do that in CommonMark and in Python-Markdown alike, where a backslash before ``<`` does not.
    """
    line = _SPECIAL.sub(lambda found: f"&#{ord(found[0])};", " ".join(str(text).split()))
    return _LINK.sub(r"\1&#8203;", line)
