"""Reading the files of a study directory, which may come from anywhere.

What is wrong with a file is a problem with its path, and links are refused.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from seg.errors import Problem, RunError

VERSION = 1
"""Version of every file of a study directory; a newer one is refused."""


NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
"""What a variant, a trial or a kind of device may be called: these names become parts of paths."""


class ContentError(ValueError):
    """A fault of a file that is no fault of its syntax, with the kind of its problem."""

    def __init__(self, kind: str, rule: str, value: str) -> None:
        super().__init__(value)
        self.kind, self.rule = kind, rule


@contextmanager
def naming_file(path: Path, remedy: str = "restore the file, or remove it and run the study again") -> Iterator[None]:
    """Turns a fault that is met while a file is read into a RunError with a problem of that file."""
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _as_run_error(path, remedy, error) from error
    except (csv.Error, yaml.YAMLError) as error:
        raise _as_run_error(path, remedy, error) from error


def _as_run_error(path: Path, remedy: str, error: Exception) -> RunError:
    kind, rule, value = "damaged", "must be a whole file of results", f"{type(error).__name__}: {error}"
    if isinstance(error, ContentError):
        kind, rule, value = error.kind, error.rule, str(error)
    elif isinstance(error, OSError):
        kind, rule, value = "unreadable", "must be a file that can be read", str(error.strerror)
    elif isinstance(error, ValidationError):
        value = ", ".join(f"{'.'.join(map(str, one['loc']))} ({one['msg']})" for one in error.errors())
    return RunError(Problem(str(path), kind, rule, " ".join(value.split()), remedy))


def refuse_link(path: Path, folder: Path) -> None:
    """Refuses a file that leads out of the study directory, which may come from anywhere."""
    parts = [path, *path.parents]
    for part in parts[: parts.index(folder)]:
        if part.is_symlink():
            raise ContentError("link", "must be a file of the study itself", "a symbolic link")


def check_schema_version(content: Any) -> None:
    """Refuses a file of a newer version."""
    version = content["schema_version"]
    if not isinstance(version, int):
        raise TypeError(f"schema_version {version!r}")
    if version > VERSION:
        raise ContentError("version", f"must have a schema_version of at most {VERSION}; update seg", str(version))


def read_json(path: Path, folder: Path) -> dict[str, Any]:
    """Reads a JSON file; an absent file is empty."""
    if not path.exists() and not path.is_symlink():
        return {}
    refuse_link(path, folder)
    content: dict[str, Any] = json.loads(path.read_bytes())
    check_schema_version(content)
    return content


def read_text(path: Path, folder: Path) -> str:
    """Reads a text file; an absent file is empty."""
    if not path.exists() and not path.is_symlink():
        return ""
    refuse_link(path, folder)
    return path.read_text(encoding="utf-8", errors="replace")


def read_table(path: Path, folder: Path) -> list[dict[str, str]]:
    """Reads the rows of a CSV file as texts; an absent file has none."""
    text = read_text(path, folder)
    rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    if not rows:
        return []
    columns, *rest = rows
    if len(set(columns)) < len(columns):
        raise ValueError("two columns of one name")
    for number, row in enumerate(rest, start=2):
        if len(row) != len(columns):
            raise ValueError(f"{len(row)} cells in line {number}, but {len(columns)} columns")
    return [dict(zip(columns, map(unescaped, row), strict=True)) for row in rest]


def escaped(text: str) -> str:
    """Puts an apostrophe before a text that a spreadsheet would take for a formula; :func:`unescaped` takes it away."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "'", "\t", "\r")) else text


def unescaped(text: str) -> str:
    """Returns the text that :func:`escaped` was given."""
    return text[1:] if text[:1] == "'" and text[1:2] in tuple("=+-@'\t\r") else text
