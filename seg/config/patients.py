"""Whose a case is: the pattern that finds a patient in a case id."""

from __future__ import annotations

import re
from collections.abc import Iterable

from seg.errors import ConfigError, DataError

FIELD = "data.patient_pattern"


def pattern_problem(pattern: str, *, name: str = FIELD) -> str | None:
    """Says why a pattern cannot find patients.

    Args:
        pattern: Regular expression whose first group is the patient.
        name: What the user calls it.

    Returns:
        A sentence, or null where the pattern is sound.
    """
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        return f"{name} must be a regular expression, got {pattern!r}: {error}; correct it."
    if groups == 0:
        return (
            f"{name} must have a group (...) around the patient, got {pattern!r}; "
            r"write for example '(patient\d+)_'."
        )
    return None


def find_patients(case_ids: Iterable[str], pattern: str, *, name: str = FIELD) -> dict[str, str]:
    """Gives the patient of each case.

    Args:
        case_ids: Ids of the cases.
        pattern: Regular expression searched in each id, whose first group is the patient.
        name: What the user calls it.

    Returns:
        Patients by case id, in the order given.

    Raises:
        ConfigError: The pattern is no regular expression with a group.
        DataError: Ids hold no patient; all of them are named.
    """
    if (problem := pattern_problem(pattern, name=name)) is not None:
        raise ConfigError(problem)
    matches = {case_id: re.search(pattern, case_id) for case_id in case_ids}
    found = {case_id: match[1] for case_id, match in matches.items() if match is not None and match[1]}
    problems = [
        f"case {case_id}: the id must hold a patient as {name} {pattern!r} finds it; correct the pattern or the id."
        for case_id in matches
        if case_id not in found
    ]
    if problems:
        raise DataError(problems)
    return found
