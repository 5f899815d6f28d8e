"""The command line of the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from seg.cli.report_arguments import CompareArguments, ReportArguments, parse_report
from seg.errors import ConfigError


def test_a_study_is_reported_where_it_lies(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    assert parse_report(["--ablation_dir", str(tmp_path)]) == ReportArguments(ablation_dir=tmp_path)
    found = parse_report(["--ablation_dir", str(tmp_path), "--runs", str(runs)])
    assert found == ReportArguments(ablation_dir=tmp_path, runs=runs)


def test_studies_are_compared_into_a_file(tmp_path: Path) -> None:
    found = parse_report(["--compare", str(tmp_path), str(tmp_path), "--output", "all.md"])
    assert found == CompareArguments(studies=(tmp_path, tmp_path), output=Path("all.md"))


@pytest.mark.parametrize(
    ("argv", "problems"),
    [
        ([], ["--ablation_dir must be given: the directory of a study; see --help."]),
        (
            ["--ablation_dir", "nowhere", "--runs", "neither"],
            [
                "--ablation_dir must be a directory, got nowhere; check the path.",
                "--runs must be a directory, got neither; check the path, or leave it out.",
            ],
        ),
        (["--output", "x.md"], ["--output must come with --compare, whose file it is; leave it out."]),
        (
            ["--compare", "nowhere", "--ablation_dir", "."],
            [
                "--compare must name directories of studies, got nowhere; check the path.",
                "--compare must name two studies at least, got one; add another.",
                "--output must be given with --compare: a Markdown file; see --help.",
                "--ablation_dir and --runs must not come with --compare; leave them out.",
            ],
        ),
    ],
)
def test_what_cannot_be_used_is_named(argv: list[str], problems: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_report(argv)
    assert list(caught.value.sentences) == problems
