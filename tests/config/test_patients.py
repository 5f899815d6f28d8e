"""Patients found in case ids."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg.config.patients import MOST_WAYS, find_patients, pattern_problems, ways
from seg.errors import ConfigError, DataError


def test_the_first_group_is_the_patient() -> None:
    assert list(pattern_problems(r"(p\d)_(\d)")) == []
    assert find_patients(["p1_1", "p1_2", "x_p2_1"], r"(p\d)_(\d)") == {"p1_1": "p1", "p1_2": "p1", "x_p2_1": "p2"}


def test_every_id_without_a_patient_is_named() -> None:
    with pytest.raises(DataError) as caught:
        find_patients(["p1", "q", ""], "^(p?)", name="patient_pattern")
    assert [problem.path for problem in caught.value.problems] == ["case q", "case "]


DETECTED = r"(?i)^(.+?)[_-](?:frame|phase|time|timepoint|tp|visit|session|ses|scan)[_-]?\d+$"
APART = r"^((?:AB|CD)+)_"
NESTED = r"((?:\d{1,3}\.){1,4}\d{1,3})"


@pytest.mark.parametrize(
    "pattern", [r"^(.+)_[lr]$", r"(patient\d+)_.*", r"(?:a|b)(\d{1,9})", r"([a-z]+\d+_\w+)_.+", DETECTED, NESTED, APART]
)
def test_usual_patterns_are_sound(pattern: str) -> None:
    assert list(pattern_problems(pattern)) == []


@pytest.mark.parametrize(
    "pattern",
    [
        "p",
        "(",
        "(a+)+$",
        "((a|aa)*)*b",
        "(.*.*.*.*.*x)",
        "(?:(x{0,50}){20,90})",
        r"((((\w{0,16}){0,16}){0,16}){0,16})!",
        r"((\w{0,16}){0,16})!",
        "(a|aa)*b",
        "(?i)(a|Aa)*b",
        "(" + "a?" * 40 + ")!",
        r"(\w{0,16})" * 8,
        "(?=(a*a*a*a*a*))b",
        "(a?)(?(1)(a|aa)*|b)",
        "(" * 200,
        "(a)" + "b" * 300,
        "(a{1,99999999999})",
    ],
)
def test_patterns_without_a_group_or_without_an_end_are_refused(pattern: str) -> None:
    (problem,) = pattern_problems(pattern)
    assert problem is not None
    assert (problem.path, problem.kind) == ("data.patient_pattern", "pattern")
    with pytest.raises(ConfigError):
        find_patients(["a" * 200], pattern)


def ends(node: Any, text: str, start: int) -> Iterator[int]:
    """Matches a parsed expression by plain backtracking; yields where it ends, once for each way to get there."""
    if isinstance(node, tuple):
        kind, what = str(node[0]), node[1]
        if kind == "LITERAL":
            yield from [start + 1] if text[start : start + 1] == chr(what) else []
        elif kind == "SUBPATTERN":
            yield from ends(what[3], text, start)
        elif kind == "BRANCH":
            for one in what[1]:
                yield from ends(one, text, start)
        else:
            yield from repeated(*what, text, start)
        return
    places = [start]
    for part in node:
        places = [end for place in places for end in ends(part, text, place)]
    yield from places


def repeated(least: int, most: int, inner: Any, text: str, start: int) -> Iterator[int]:
    if least <= 0:
        yield start
    if most > 0:
        for end in ends(inner, text, start):
            if end > start or least > 0:  # a turn that takes nothing is not repeated for its own sake
                yield from repeated(least - 1, most - 1, inner, text, end)


COUNTS = st.sampled_from(["?", "*", "+", "{2}", "{0,2}", "{1,3}", "{2,}", "*?"])
PATTERNS = st.recursive(
    st.sampled_from(["a", "aa", "a?", "a*"]),
    lambda inner: st.one_of(
        st.builds("{}{}".format, inner, inner),
        st.builds("(?:{}|{})".format, inner, inner),
        st.builds("({}){}".format, inner, COUNTS),
    ),
    max_leaves=5,
)


@given(pattern=PATTERNS, length=st.integers(0, 5))
def test_no_search_tries_more_ways_than_are_counted(pattern: str, length: int) -> None:
    parsed = re._parser.parse(pattern)  # type: ignore[attr-defined]
    bound = ways(parsed)
    found = list(ends(parsed, "a" * length, 0))
    assert len(found) <= bound
    match = re.match(pattern, "a" * length)
    assert (match is not None and match.end() in found) is bool(found)  # both mean the same by the pattern
    assert bool(list(pattern_problems(f"({pattern})"))) is (bound > MOST_WAYS)
