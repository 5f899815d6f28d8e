"""The command line of the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from seg.cli.report_arguments import ReportArguments, parse_report
from seg.errors import ConfigError


def test_a_study_is_reported_where_it_lies(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    assert parse_report(["--ablation_dir", str(tmp_path)]) == ReportArguments(ablation_dir=tmp_path)
    assert parse_report(["--ablation_dir", str(tmp_path), "--runs", str(runs)]).runs == runs


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
    ],
)
def test_what_cannot_be_used_is_named(argv: list[str], problems: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_report(argv)
    assert list(caught.value.problems) == problems
