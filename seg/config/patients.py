"""Whose a case is: the pattern that finds a patient in a case id."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from math import prod
from typing import Any

from seg.errors import ConfigError, DataError, Problem

FIELD = "data.patient_pattern"
MOST_CHARACTERS = 256
MOST_REPEATS = 4  # open-ended repeats; the time of a search grows with the power of their number
OPEN = 64  # ways that an open-ended repeat counts for: about what one of several has in the name of a file
MOST_WAYS: int = 10 * OPEN**MOST_REPEATS  # to match at one place; all of them take minutes to search


def pattern_problems(pattern: str, *, name: str = FIELD) -> Iterator[Problem]:
    """Yields what keeps a regular expression from finding patients; ``name`` is what the user calls it.

    A pattern that could search for hours is refused too: repeats within repeats, or many of them; see :func:`ways`.
    """
    if len(pattern) > MOST_CHARACTERS:
        yield Problem(name, "pattern", f"must have at most {MOST_CHARACTERS} characters", str(len(pattern)))
        return
    try:
        groups = re.compile(pattern).groups
        found = ways(re._parser.parse(pattern))  # type: ignore[attr-defined]
    except (re.error, RecursionError, OverflowError) as error:
        yield Problem(name, "pattern", "must be a regular expression", f"{pattern!r} ({error})", "correct it")
        return
    if groups == 0:
        rule, remedy = "must have a group (...) around the patient", r"write for example '(patient\d+)_'"
        yield Problem(name, "pattern", rule, repr(pattern), remedy)
    elif found > MOST_WAYS:
        rule = f"must match in few ways: at most {MOST_REPEATS} of * and +, and none of a part that varies itself"
        yield Problem(name, "pattern", rule, repr(pattern), "others can take hours to search")


def ways(parsed: Any) -> int:
    """Bounds in how many ways a parsed expression can match at one place of a text, which a search tries in turn.

    Parts that follow one another multiply, repeats of a part too, and alternatives add up, unless they begin with
    different letters. Any other character counts as one that any part takes.

    Returns:
        The bound for texts shorter than `OPEN`; one above `MOST_WAYS` stands for all that are higher.
    """
    if isinstance(parsed, int | str | None):
        return 1
    kind = str(parsed[0]) if isinstance(parsed, tuple) and len(parsed) == 2 else ""
    found: int
    if kind.endswith("_REPEAT"):
        least, most, inner = parsed[1]
        found = min(most - least + 1, OPEN) * ways(inner) ** min(most, OPEN)
    elif kind == "BRANCH":
        alternatives = parsed[1][1]
        found = (max if _begin_apart(alternatives) else sum)(map(ways, alternatives))
    else:
        found = prod(map(ways, parsed))
    return min(found, MOST_WAYS + 1)


def _begin_apart(alternatives: Sequence[Any]) -> bool:
    """Tells whether the alternatives of a pattern, such as `ab|cd`, begin with different letters, ignoring case."""
    firsts: list[Any] = [one[0] for one in alternatives if len(one)]
    letters = {chr(value).casefold() for kind, value in firsts if str(kind) == "LITERAL"}
    return len(letters) == len(alternatives)


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
