from __future__ import annotations

import math

from seg.words import counted, fixed, in_time


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
