"""The command line of ``scripts/fetch.py``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from seg.cli.parser import Parser
from seg.errors import ConfigError

PHANTOM = "phantom"


@dataclass(frozen=True, kw_only=True)
class FetchArguments:
    """What ``scripts/fetch.py`` is asked to do.

    Attributes:
        name: A public data set, or ``phantom``.
        root: Folder to put it in.
    """

    name: str
    root: Path


def parse_fetch(public: Iterable[str], argv: Sequence[str] | None = None) -> FetchArguments:
    """Reads the command line of ``scripts/fetch.py``.

    Args:
        public: Names of the data sets that can be downloaded.
        argv: Arguments; None takes the process's own.

    Raises:
        ConfigError: Arguments cannot be used; all problems together.
    """
    parser = Parser(
        "fetch.py NAME [--root DIR]",
        "Put a data set in place: download a public one, with checksum, or generate the embedded phantoms.",
    )
    parser.add_argument("name", choices=[*sorted(public), PHANTOM], help="data set; phantom is made here")
    parser.add_argument(
        "--root", type=Path, default=Path("data"), metavar="DIR", help="folder to put it in (default: data)"
    )
    options, found = parser.parse(argv)
    if found:
        raise ConfigError(found)
    return FetchArguments(name=options.name, root=options.root)
