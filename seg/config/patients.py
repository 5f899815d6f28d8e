"""Whose a case is: the pattern that finds a patient in a case id."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from seg.errors import ConfigError, DataError, Problem

FIELD = "data.patient_pattern"
MOST_CHARACTERS = 256
MOST_REPEATS = 4  # open-ended repeats; the time of a search grows with the power of their number


def pattern_problems(pattern: str, *, name: str = FIELD) -> Iterator[Problem]:
    """Yields what keeps a regular expression from finding patients; ``name`` is what the user calls it.

    A pattern that could search for hours is refused too: a repeat within an open-ended repeat, or many of them.
    """
    if len(pattern) > MOST_CHARACTERS:
        yield Problem(name, "pattern", f"must have at most {MOST_CHARACTERS} characters", str(len(pattern)))
        return
    try:
        groups = re.compile(pattern).groups
        repeats = list(_open_repeats(re._parser.parse(pattern), 0))  # type: ignore[attr-defined]
    except (re.error, RecursionError, OverflowError) as error:
        yield Problem(name, "pattern", "must be a regular expression", f"{pattern!r} ({error})", "correct it")
        return
    if groups == 0:
        rule, remedy = "must have a group (...) around the patient", r"write for example '(patient\d+)_'"
        yield Problem(name, "pattern", rule, repr(pattern), remedy)
    elif any(depth > 0 for depth in repeats) or len(repeats) > MOST_REPEATS:
        rule = f"must have no repeat within another and at most {MOST_REPEATS} of * and +"
        yield Problem(name, "pattern", rule, repr(pattern), "others can take hours to search")


def _open_repeats(parsed: Any, depth: int) -> Iterator[int]:
    """Yields for each open-ended repeat of a parsed expression how many such repeats stand around it."""
    if isinstance(parsed, tuple) and len(parsed) == 2 and str(parsed[0]) in ("MAX_REPEAT", "MIN_REPEAT"):
        _, most, inner = parsed[1]
        is_open = most > 16
        if is_open:
            yield depth
        yield from _open_repeats(inner, depth + is_open)
    elif not isinstance(parsed, int | str | None):
        for part in parsed:
            yield from _open_repeats(part, depth)


def find_patients(case_ids: Iterable[str], pattern: str, *, name: str = FIELD) -> dict[str, str]:
    """Gives the patient of each case, in the order given.

    Args:
        case_ids: Ids of the cases.
        pattern: Regular expression searched in each id, whose first group is the patient.
        name: What the user calls it.

    Raises:
        ConfigError: The pattern is no regular expression with a group.
        DataError: Ids hold no patient; all of them are named.
    """
    if wrong := list(pattern_problems(pattern, name=name)):
        raise ConfigError(wrong)
    matches = {case_id: re.search(pattern, case_id) for case_id in case_ids}
    found = {case_id: match[1] for case_id, match in matches.items() if match is not None and match[1]}
    rule = f"must have an id that holds a patient as {name} {pattern!r} finds it"
    problems = [
        Problem(f"case {case_id}", "patient", rule, remedy="correct the pattern or the id")
        for case_id in matches
        if case_id not in found
    ]
    if problems:
        raise DataError(problems)
    return found
