"""The command line of ``scripts/report.py``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seg.cli.parser import Parser
from seg.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ReportArguments:
    """What ``scripts/report.py`` is asked to do.

    Attributes:
        ablation_dir: Study directory, where the report is written too.
        runs: Folder of the run directories, for pictures of cases; None is runs/ in the study directory.
    """

    ablation_dir: Path
    runs: Path | None = None


def parse_report(argv: Sequence[str] | None = None) -> ReportArguments:
    """Reads the command line of ``scripts/report.py``.

    Args:
        argv: Arguments; None takes the process's own.

    Raises:
        ConfigError: Arguments cannot be used; all problems together.
    """
    parser = Parser(
        "report.py --ablation_dir DIR [--runs DIR]",
        "Write the report of an ablation study from its records: report.html, report.md with figures/, results.csv and "
        "results.json, beside the records. Nothing is trained or measured.",
    )
    parser.add_argument("--ablation_dir", type=Path, metavar="DIR", help="study directory: study.json and trials/")
    parser.add_argument(
        "--runs",
        type=Path,
        metavar="DIR",
        help="folder of the run directories, for pictures of the worst cases (default: runs/ in the study directory); "
        "without one the pictures of an earlier report are kept",
    )
    options, found = parser.parse(argv)
    if options.ablation_dir is None:
        found.append("--ablation_dir must be given: the directory of a study; see --help.")
    elif not options.ablation_dir.is_dir():
        found.append(f"--ablation_dir must be a directory, got {options.ablation_dir}; check the path.")
    if options.runs is not None and not options.runs.is_dir():
        found.append(f"--runs must be a directory, got {options.runs}; check the path, or leave it out.")
    if found:
        raise ConfigError(found)
    return ReportArguments(ablation_dir=options.ablation_dir, runs=options.runs)
