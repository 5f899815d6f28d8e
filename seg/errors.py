"""Errors that a user can act on."""

from __future__ import annotations

from collections.abc import Sequence


class SegError(Exception):
    """Base of every error caused by input, not by a fault in the program.

    Scripts print the message without a traceback and exit with code 2.

    Args:
        problems: One sentence, or several found in the same pass. Each says what is wrong, the rule, the value and
            the remedy.

    Attributes:
        problems: The sentences, in the order found.
    """

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class ConfigError(SegError):
    """The configuration breaks a rule."""


class DataError(SegError):
    """A data set or one of its files cannot be used."""


class RunError(SegError):
    """A run directory, checkpoint or result file cannot be used."""
