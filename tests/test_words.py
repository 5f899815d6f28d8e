from __future__ import annotations

import math

from seg.words import aligned, counted, fixed, in_time, interval, significant, some


def test_durations() -> None:
    assert [in_time(seconds) for seconds in (0.4, 99, 110, 5940, 6000, 11100)] == [
        "0 s",
        "99 s",
        "2 min",
        "99 min",
        "1 h 40 min",
        "3 h 05 min",
    ]
    assert in_time(None) == "not measured"


def test_numbers() -> None:
    assert [fixed(value, 2) for value in (1.234, -0.001, -1.5, math.inf)] == ["1.23", "0.00", "\N{MINUS SIGN}1.50", "∞"]
    assert [fixed(value, 1, sign=True) for value in (0.04, 0.06, -0.06)] == ["0.0", "+0.1", "\N{MINUS SIGN}0.1"]
    assert (fixed(None, 2), fixed(math.nan, 2, absent="none")) == ("not measured", "none")
    assert [counted(number, "case") for number in (0, 1, 2)] == ["0 cases", "1 case", "2 cases"]


def test_of_many_items_the_first_and_the_number_of_the_others() -> None:
    assert [some(list("abc"), most) for most in (2, 3)] == ["a, b and 1 more", "a, b, c"]
    assert some([0.5, 3.0], form="g") == "0.5, 3"


def test_columns_are_aligned() -> None:
    rows = [["name", "GMAC", "from"], ["a", "12.50", "x"], ["long", "7", ""]]
    assert aligned(rows, right=(1,)).splitlines() == ["name   GMAC  from", "a     12.50  x", "long      7"]


def test_significant_figures() -> None:
    found = [significant(value) for value in (1234.5, 0.012345, 12.345, 0.0, None)]
    assert found == ["1\N{NARROW NO-BREAK SPACE}234", "0.0123", "12.3", "0", "not measured"]


def test_an_end_of_an_interval_that_rounds_to_0_keeps_its_side() -> None:
    minus = "\N{MINUS SIGN}"
    assert interval(-0.0029, -0.00001, 4, sign=True) == f"{minus}0.0029 to {minus}0.0000"
    assert interval(0.00001, 0.003, 4, sign=True) == "+0.0000 to +0.0030"
    assert interval(0.0, 0.003, 4, sign=True) == "0.0000 to +0.0030"
    assert interval(0.981, 1.034, 2) == "0.98\N{EN DASH}1.03"
