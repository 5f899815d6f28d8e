"""Patients found in case ids."""

from __future__ import annotations

import pytest

from seg.config.patients import find_patients, pattern_problem
from seg.errors import ConfigError, DataError


def test_the_first_group_is_the_patient() -> None:
    assert pattern_problem(r"(p\d)_(\d)") is None
    assert find_patients(["p1_1", "p1_2", "x_p2_1"], r"(p\d)_(\d)") == {"p1_1": "p1", "p1_2": "p1", "x_p2_1": "p2"}


def test_every_id_without_a_patient_is_named() -> None:
    with pytest.raises(DataError) as caught:
        find_patients(["p1", "q", ""], "^(p?)", name="patient_pattern")
    assert caught.value.sentences == (
        "case q: the id must hold a patient as patient_pattern '^(p?)' finds it; correct the pattern or the id.",
        "case : the id must hold a patient as patient_pattern '^(p?)' finds it; correct the pattern or the id.",
    )


def test_a_pattern_without_a_group_is_refused() -> None:
    message = r"^data\.patient_pattern must have a group \(\.\.\.\) around the patient, got 'p'; write for example "
    with pytest.raises(ConfigError, match=message):
        find_patients([], "p")
