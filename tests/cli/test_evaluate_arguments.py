from __future__ import annotations

from pathlib import Path

import pytest

from seg.cli import FolderArguments, RunArguments, parse_evaluate
from seg.errors import ConfigError


def problems_of(*argv: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse_evaluate(argv)
    return caught.value.sentences


def test_a_run_directory() -> None:
    assert parse_evaluate(["--run_dir", "runs/x"]) == RunArguments(run_dir=Path("runs/x"))
    assert parse_evaluate(["--run_dir", "runs/x", "--output", "o", "--data.root", "d"]) == RunArguments(
        run_dir=Path("runs/x"), output=Path("o"), data_root=Path("d")
    )


def test_two_folders() -> None:
    argv = ["--predictions", "p", "--labels", "l", "--images", "i", "--nsd_tolerance_mm", "2.5"]
    expected = FolderArguments(
        predictions=Path("p"), labels=Path("l"), images=Path("i"), output=Path("p"), nsd_tolerance_mm=2.5
    )
    assert parse_evaluate(argv) == expected
    assert parse_evaluate([*argv, "--output", "o"]).output == Path("o")


def test_what_two_folders_mean() -> None:
    argv = ["--predictions", "p", "--labels", "l", "--class_names", "liver, tumour", "--ignore_label", "3"]
    arguments = parse_evaluate([*argv, "--patient_pattern", r"(p\d+)_", "--workers", "2"])
    assert isinstance(arguments, FolderArguments)
    assert arguments.class_names == ("background", "liver", "tumour")
    assert (arguments.ignore_label, arguments.patient_pattern, arguments.workers) == (3, r"(p\d+)_", 2)
    negative = parse_evaluate([*argv[:-1], "-1"])
    assert isinstance(negative, FolderArguments)
    assert negative.ignore_label == -1


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["--workers", "0"], "--workers must be >= 1, got 0."),
        (
            ["--class_names", "liver,,tumour"],
            "--class_names must be names separated by commas, got 'liver,,tumour' with an empty one.",
        ),
        (["--class_names", "a,b,a"], "--class_names must name each class once, got a more than once."),
        (
            ["--class_names", "background,a"],
            "--class_names must begin with class 1, got background, which is class 0 and needs no name; drop it.",
        ),
        (
            ["--class_names", "a,b", "--ignore_label", "2"],
            "--ignore_label must be no class, got 2, which is b; leave the class out of --class_names or correct the "
            "label.",
        ),
        (["--ignore_label", "x"], "argument --ignore_label: invalid int value: 'x'; see --help."),
    ],
)
def test_meaningless_options_of_two_folders_are_refused(argv: list[str], problem: str) -> None:
    assert problems_of("--predictions", "p", "--labels", "l", *argv) == (problem,)


def test_a_run_says_for_itself_what_its_labels_mean() -> None:
    argv = ["--class_names", "a", "--ignore_label", "2", "--patient_pattern", "(.)", "--workers", "2", "--leave_out"]
    assert problems_of("--run_dir", "r", *argv) == (
        "--class_names must not come with --run_dir, whose data set says them; leave it out.",
        "--ignore_label must not come with --run_dir, whose data set says it; leave it out.",
        "--patient_pattern must not come with --run_dir, whose configuration says it (data.patient_pattern); "
        "leave it out.",
        "--workers must not come with --run_dir, whose cases are scored as they are predicted; leave it out.",
        "--leave_out must not come with --run_dir, whose cases are all predicted and scored; leave it out.",
    )


@pytest.mark.parametrize("argv", [[], ["--predictions", "p"], ["--labels", "l", "--output", "o"]])
def test_half_of_it_is_not_enough(argv: list[str]) -> None:
    assert problems_of(*argv) == ("either --run_dir or both --predictions and --labels must be given; see --help.",)


def test_both_ways_at_once_are_refused() -> None:
    assert problems_of(
        "--run_dir", "r", "--predictions", "p", "--images", "i", "--nsd_tolerance_mm", "0", "--lables", "l"
    ) == (
        "--lables is no option; did you mean --labels?",
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
