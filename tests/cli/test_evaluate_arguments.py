from __future__ import annotations

from pathlib import Path

import pytest

from seg.cli import EvaluateArguments, parse_evaluate
from seg.errors import ConfigError


def problems_of(*argv: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse_evaluate(argv)
    return caught.value.problems


def test_a_run_directory() -> None:
    assert parse_evaluate(["--run_dir", "runs/x"]) == EvaluateArguments(
        run_dir=Path("runs/x"), predictions=None, labels=None, images=None, output=None, nsd_tolerance_mm=1.0
    )


def test_two_folders() -> None:
    argv = ["--predictions", "p", "--labels", "l", "--images", "i", "--nsd_tolerance_mm", "2.5"]
    expected = EvaluateArguments(
        run_dir=None, predictions=Path("p"), labels=Path("l"), images=Path("i"), output=Path("p"), nsd_tolerance_mm=2.5
    )
    assert parse_evaluate(argv) == expected
    assert parse_evaluate([*argv, "--output", "o"]).output == Path("o")


@pytest.mark.parametrize("argv", [[], ["--predictions", "p"], ["--labels", "l", "--output", "o"]])
def test_half_of_it_is_not_enough(argv: list[str]) -> None:
    assert problems_of(*argv) == ("either --run_dir or both --predictions and --labels must be given; see --help.",)


def test_both_ways_at_once_are_refused() -> None:
    assert problems_of(
        "--run_dir", "r", "--predictions", "p", "--images", "i", "--nsd_tolerance_mm", "0", "--lables", "l"
    ) == (
        "unknown option --lables; did you mean --labels?",
        "--run_dir must not come with --predictions and --labels; leave one or the other out.",
        "--images must not come with --run_dir, whose configuration says where they lie; leave it out.",
        "--nsd_tolerance_mm must not come with --run_dir, whose configuration says it "
        "(evaluation.nsd_tolerance_mm); leave it out, or score the run's folder of predictions.",
        "--nsd_tolerance_mm must be > 0, got 0.",
    )


def test_a_tolerance_is_a_number() -> None:
    assert problems_of("--nsd_tolerance_mm", "wide") == (
        "argument --nsd_tolerance_mm: invalid float value: 'wide'; see --help.",
    )
