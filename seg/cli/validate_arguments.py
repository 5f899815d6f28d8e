"""The command line of ``scripts/validate_statistics.py``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from seg.cli.parser import Parser
from seg.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ValidateArguments:
    """What ``scripts/validate_statistics.py`` is asked to do.

    Attributes:
        repeats: Simulated studies of each design, >= 1.
        seed: Seed of the simulation.
        part: What to check.
    """

    repeats: int
    seed: int
    part: Literal["intervals", "verdicts", "all"]


def parse_validate(argv: Sequence[str] | None = None) -> ValidateArguments:
    """Reads the command line of ``scripts/validate_statistics.py``.

    Args:
        argv: Arguments; None takes the process's own.

    Raises:
        ConfigError: Arguments cannot be used; all problems together.
    """
    parser = Parser(
        "validate_statistics.py [--repeats N] [--seed N] [--part intervals|verdicts|all]",
        "Check the study's intervals and verdicts on simulated studies of known truth; prints Markdown tables.",
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=4000,
        metavar="N",
        help="simulated studies of each design; slow methods see fewer (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the simulation (default: 0)")
    parser.add_argument(
        "--part", choices=("intervals", "verdicts", "all"), default="all", help="what to check (default: all)"
    )
    options, found = parser.parse(argv)
    if options.repeats < 1:
        found.append(f"--repeats must be >= 1, got {options.repeats}.")
    if found:
        raise ConfigError(found)
    return ValidateArguments(repeats=options.repeats, seed=options.seed, part=options.part)
