"""The command line of ``scripts/report.py``."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seg.cli.parser import Parser
from seg.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ReportArguments:
    """The report of one study.

    Attributes:
        ablation_dir: Study directory, where the report is written too.
        runs: Folder of the run directories, for pictures of cases; None is runs/ in the study directory.
    """

    ablation_dir: Path
    runs: Path | None = None


@dataclass(frozen=True, kw_only=True)
class CompareArguments:
    """One table and figure of several studies.

    Attributes:
        studies: Study directories to put side by side.
        output: Markdown file of the comparison.
    """

    studies: tuple[Path, ...]
    output: Path


def parse_report(argv: Sequence[str] | None = None) -> ReportArguments | CompareArguments:
    """Reads the command line of ``scripts/report.py``.

    Args:
        argv: Arguments; None takes the process's own.

    Raises:
        ConfigError: Arguments cannot be used; all problems together.
    """
    parser = Parser(
        "report.py --ablation_dir DIR [--runs DIR] | --compare DIR DIR [DIR ...] --output FILE",
        "Write the report of an ablation study from its records: report.html, report.md with figures/, results.csv and "
        "results.json, beside the records; or one table and figure of several studies. Nothing is trained or measured.",
    )
    parser.add_argument("--ablation_dir", type=Path, metavar="DIR", help="study directory: study.json and trials/")
    parser.add_argument(
        "--runs",
        type=Path,
        metavar="DIR",
        help="folder of the run directories, for pictures of the worst cases (default: runs/ in the study directory); "
        "without one the pictures of an earlier report are kept",
    )
    parser.add_argument(
        "--compare", type=Path, nargs="+", metavar="DIR", default=(), help="study directories to put side by side"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="Markdown file of the comparison")
    options, found = parser.parse(argv)
    if options.compare:
        found += _comparison_problems(options)
    elif options.output is not None:
        found.append("--output must come with --compare, whose file it is; leave it out.")
    elif options.ablation_dir is None:
        found.append("--ablation_dir must be given: the directory of a study; see --help.")
    elif not options.ablation_dir.is_dir():
        found.append(f"--ablation_dir must be a directory, got {options.ablation_dir}; check the path.")
    if options.runs is not None and not options.runs.is_dir():
        found.append(f"--runs must be a directory, got {options.runs}; check the path, or leave it out.")
    if found:
        raise ConfigError(found)
    if options.compare:
        return CompareArguments(studies=tuple(options.compare), output=options.output)
    return ReportArguments(ablation_dir=options.ablation_dir, runs=options.runs)


def _comparison_problems(options: Namespace) -> list[str]:
    found = [
        f"--compare must name directories of studies, got {path}; check the path."
        for path in options.compare
        if not path.is_dir()
    ]
    if len(options.compare) < 2:
        found.append("--compare must name two studies at least, got one; add another.")
    if options.output is None:
        found.append("--output must be given with --compare: a Markdown file; see --help.")
    if options.ablation_dir is not None or options.runs is not None:
        found.append("--ablation_dir and --runs must not come with --compare; leave them out.")
    return found
