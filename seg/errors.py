"""Problems that a user can act on, the errors that carry them, and values as messages show them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unicodedata import category


@dataclass(frozen=True)
class Problem:
    """Describes one thing that is wrong: code reads the fields, people read ``str(problem)``.

    Attributes:
        path: What is wrong: a dotted field, an option, a file, or a case as in ``case hippocampus_010``. Where it is
            empty, the rule is the whole sentence.
        kind: Which rule is broken, as a short identifier such as ``range``, ``type``, ``unknown`` or ``missing``.
        rule: What must hold, or what is the matter: ``must be in (0, 4]``.
        value: What was found in place of that; empty where the rule says it all.
        remedy: What the user can do; empty where the rule says it all.
        file: The file that says so, where the path is a field in it.
    """

    path: str
    kind: str
    rule: str
    value: str = ""
    remedy: str = ""
    file: str = ""

    def __str__(self) -> str:
        if not self.path:
            return escaped(self.rule, keep="\n")
        got = f", got {self.value}" if self.value else ""
        remedy = f"; {self.remedy}" if self.remedy else ""
        where = f"{self.file}: " if self.file else ""
        text = escaped(f"{where}{self.path} {self.rule}{got}{remedy}")
        return text if text.endswith((".", "?")) else f"{text}."


def escaped(text: str, *, keep: str = "") -> str:
    """Writes the control characters of a text, which would break or colour a line, as in a literal; those kept stay."""
    return "".join(
        letter.encode("unicode_escape").decode() if category(letter) in ("Cc", "Cs") and letter not in keep else letter
        for letter in text
    )


def prefixed(subject: str, problems: Iterable[Problem]) -> list[Problem]:
    """Returns problems with what they are about in front, as in ``case hippocampus_010``."""
    return [
        replace(one, path=f"{subject}: {one.path}") if one.path else replace(one, rule=f"{subject}: {one.rule}")
        for one in problems
    ]


class SegError(Exception):
    """Base of every error caused by input, not by a fault in the program.

    Commands print the problems without a traceback and exit with code 2.

    Args:
        problems: One problem, or several found in the same pass.

    Attributes:
        problems: The problems, in the order found.
    """

    def __init__(self, problems: Problem | Sequence[Problem]) -> None:
        if isinstance(problems, str):  # as torch makes an error of one in a loader's process
            problems = Problem("", "other", problems)
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(self.sentences))

    @property
    def sentences(self) -> tuple[str, ...]:
        """The problems as people read them."""
        return tuple(str(problem) for problem in self.problems)


class ConfigError(SegError):
    """The configuration breaks a rule."""


class DataError(SegError):
    """A data set or one of its files cannot be used."""


class RunError(SegError):
    """A run directory, checkpoint or result file cannot be used."""


@contextmanager
def about(subject: str) -> Iterator[None]:
    """Names what the problems of errors within the block are about; see :func:`prefixed`."""
    try:
        yield
    except SegError as error:
        raise type(error)(prefixed(subject, error.problems)) from error


def shown(value: object, most: int = 80) -> str:
    """Formats a value for a message as YAML and JSON have it (null, true, [1, 2]), cut where it is long."""
    try:
        text = json.dumps(value) if value is None or isinstance(value, bool) else repr(_as_lists(value))
    except (ValueError, RecursionError):  # a number of thousands of digits, lists in lists in lists
        return f"a {type(value).__name__} too large to show"
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _as_lists(value: Any) -> Any:
    return [_as_lists(item) for item in value] if isinstance(value, tuple | list) else value
