"""The command line of ``python -m seg.ablation.preservation``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seg.cli.parser import Parser
from seg.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class PreservationArguments:
    """What ``python -m seg.ablation.preservation`` is asked to do.

    Attributes:
        record: ``preservation.json`` of a trial of the baseline.
        output: YAML file to write.
        threshold: Share of the features' variance to keep.
    """

    record: Path
    output: Path
    threshold: float


def parse_preservation(threshold: float, argv: Sequence[str] | None = None) -> PreservationArguments:
    """Reads the command line of ``python -m seg.ablation.preservation``.

    Args:
        threshold: Share of variance where none is given.
        argv: Arguments; None takes the process's own.

    Raises:
        ConfigError: Arguments cannot be used; all problems together.
    """
    parser = Parser(
        "python -m seg.ablation.preservation --record FILE --output FILE [--threshold SHARE]",
        "Predict safe widths from a baseline's preservation.json and write them as a point of a study.",
    )
    parser.add_argument("--record", type=Path, metavar="FILE", help="preservation.json of a trial of the baseline")
    parser.add_argument("--output", type=Path, metavar="FILE", help="YAML file to write, a list of one point")
    parser.add_argument(
        "--threshold",
        type=float,
        default=threshold,
        metavar="SHARE",
        help="share of the features' variance to keep, in (0, 1] (default: %(default)s)",
    )
    options, found = parser.parse(argv)
    found += [
        f"--{name} must name a file, got none; see --help."
        for name in ("record", "output")
        if getattr(options, name) is None
    ]
    if found:
        raise ConfigError(found)
    return PreservationArguments(record=options.record, output=options.output, threshold=options.threshold)
