"""An argument parser whose complaints are the project's own."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from seg.config.loading import unknown
from seg.errors import ConfigError, Problem


class Parser(argparse.ArgumentParser):
    """A parser that raises where argparse would print and exit, and suggests what was meant.

    Args:
        usage: One line of usage; argparse's own would name a hundred options.
        description: What the script does.
    """

    def __init__(self, usage: str, description: str) -> None:
        super().__init__(usage=usage, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raises a ConfigError with the message."""
        raise ConfigError(f"{message}; see --help.")

    def parse(
        self, argv: Sequence[str] | None, *, fields: Sequence[str] = ()
    ) -> tuple[argparse.Namespace, list[Problem | str]]:
        """Reads arguments.

        Args:
            argv: Arguments; None takes the process's own.
            fields: Names of options whose values lie in ``overrides``.

        Returns:
            The options, and a sentence for each argument that is none of them.
        """
        options, rest = self.parse_known_args(argv)
        known = [f"--{name}" for name in (*vars(options), *fields) if name != "overrides"]
        problems: list[Problem | str] = []
        value_follows = False
        for argument in rest:
            if argument.startswith("--"):
                problems.append(_unknown(argument.partition("=")[0], known))
                value_follows = "=" not in argument
            elif value_follows:
                value_follows = False
            else:
                problems.append(f"unexpected argument {argument!r}; options have the form --name VALUE.")
        return options, problems


def _unknown(option: str, known: Sequence[str]) -> Problem | str:
    inside = [name for name in known if name.startswith(f"{option}.")]
    if inside:
        return f"{option} is a group, whose fields are set one by one, as in {inside[0]} VALUE; see --help."
    return unknown(option, "option", known)
