"""JSON files that users write, checked by a schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from seg.errors import DataError, Problem

T = TypeVar("T")
NAMED_CHARACTERS = 120


def read_json(path: Path, kind: TypeAdapter[T]) -> T:
    """Reads a JSON file by a schema.

    Args:
        path: The file, in UTF-8.
        kind: The schema.

    Raises:
        DataError: The file cannot be read, is no JSON, or breaks the schema; all breaks are named together.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(problem(path, "unreadable", "must be readable", f"'{error.strerror}'", "check it")) from error
    except (ValueError, RecursionError) as error:
        remedy = "correct or export it again"
        raise DataError(problem(path, "syntax", "must be JSON text in UTF-8", f"'{error}'", remedy)) from error
    try:
        return kind.validate_python(content)
    except ValidationError as error:
        raise DataError([*_schema_problems(path, error)]) from error


def _schema_problems(path: Path, error: ValidationError) -> Iterator[Problem]:
    """Turns what pydantic found into problems, one for each place."""
    seen = set()
    for each in error.errors(include_url=False):
        # A union adds the name of its member behind the place.
        parts = [part for part in each["loc"] if not (isinstance(part, str) and part in ("str", "list[str]", "int"))]
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".")
        if place not in seen:
            seen.add(place)
            if each["type"] == "missing":
                yield problem(path, "missing", f"{place} must be given", "none", "add it")
                continue
            rule = each["msg"].replace("Input should be", "must be").replace("Extra inputs are", "is")
            yield problem(path, each["type"], f"{place} {rule}".strip(), shown(each["input"]), "correct it")


def shown(value: object) -> str:
    """Words a value for a problem, cut short."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, lists in lists in lists
        return f"a {type(value).__name__} too large to show"
    return text if len(text) <= NAMED_CHARACTERS else f"{text[:NAMED_CHARACTERS]}..."


def problem(path: Path | str, kind: str, rule: str, value: str = "", remedy: str = "") -> Problem:
    """Makes a problem of a file, or of a place in it."""
    return Problem(path=str(path), kind=kind, rule=rule, value=value, remedy=remedy)
