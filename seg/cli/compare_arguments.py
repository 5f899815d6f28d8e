"""The command line of ``scripts/compare.py``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seg.cli.parser import Parser
from seg.config import load_config
from seg.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class RunPairs:
    """What ``scripts/compare.py`` is asked to do.

    Attributes:
        baseline: Run directories of the baseline, one per seed.
        variant: Run directories of the variant, in the same order of seeds.
        margin: Loss of Dice that still counts as not inferior.
    """

    baseline: tuple[Path, ...]
    variant: tuple[Path, ...]
    margin: float


def parse_compare(argv: Sequence[str] | None = None) -> RunPairs:
    """Reads the command line of ``scripts/compare.py``.

    Args:
        argv: Arguments; None takes the process's own.

    Raises:
        ConfigError: Arguments cannot be used; all problems together.
    """
    parser = Parser(
        "compare.py --baseline RUN [RUN ...] --variant RUN [RUN ...] [--margin NUMBER]",
        "Compare finished runs of two variants, seed by seed: paired differences of Dice with intervals, and a "
        "verdict.",
    )
    parser.add_argument(
        "--baseline",
        type=Path,
        nargs="+",
        metavar="RUN",
        default=(),
        help="run directories of the baseline, one per seed",
    )
    parser.add_argument(
        "--variant",
        type=Path,
        nargs="+",
        metavar="RUN",
        default=(),
        help="run directories of the variant, in the same order of seeds",
    )
    parser.add_argument(
        "--margin",
        type=float,
        default=0.005,
        metavar="NUMBER",
        help="loss of Dice that still counts as not inferior (default: %(default)s)",
    )
    options, found = parser.parse(argv)
    found += [
        f"--{name} must name run directories, got none; see --help."
        for name in ("baseline", "variant")
        if not getattr(options, name)
    ]
    if not found:
        found += _unpaired(options.baseline, options.variant)
    if found:
        raise ConfigError(found)
    return RunPairs(baseline=tuple(options.baseline), variant=tuple(options.variant), margin=options.margin)


def _unpaired(baseline: Sequence[Path], variant: Sequence[Path]) -> list[str]:
    """Says which runs are no pair by the seeds in their configurations, if they have one, and which come twice."""
    if len(baseline) != len(variant):
        return ["give as many runs of the variant as of the baseline, in the same order of seeds."]
    problems = []
    for number, paths in enumerate(zip(baseline, variant, strict=True), 1):
        files = [path / "config.yaml" for path in paths]
        known = [load_config([file]).seed for file in files if file.is_file()]
        if len(set(known)) > 1:
            problems.append(
                f"pair {number} must have one seed, got {known[0]} in {paths[0]} and {known[1]} in {paths[1]}; give "
                "runs in the same order of seeds."
            )
    everything = [path.resolve() for path in (*baseline, *variant)]
    for path in dict.fromkeys(path for path in everything if everything.count(path) > 1):
        problems.append(f"runs must each be given once, got {path} again; leave one out.")
    return problems
