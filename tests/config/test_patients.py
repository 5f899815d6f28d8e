"""Patients found in case ids."""

from __future__ import annotations

import pytest

from seg.config.patients import find_patients, pattern_problems
from seg.errors import ConfigError, DataError


def test_the_first_group_is_the_patient() -> None:
    assert list(pattern_problems(r"(p\d)_(\d)")) == []
    assert find_patients(["p1_1", "p1_2", "x_p2_1"], r"(p\d)_(\d)") == {"p1_1": "p1", "p1_2": "p1", "x_p2_1": "p2"}


def test_every_id_without_a_patient_is_named() -> None:
    with pytest.raises(DataError) as caught:
        find_patients(["p1", "q", ""], "^(p?)", name="patient_pattern")
    assert [problem.path for problem in caught.value.problems] == ["case q", "case "]


@pytest.mark.parametrize("pattern", [r"^(.+)_[lr]$", r"(patient\d+)_.*", r"(?:a|b)(\d{1,9})", r"([a-z]+\d+_\w+)_.+"])
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
