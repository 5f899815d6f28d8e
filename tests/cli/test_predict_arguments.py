from __future__ import annotations

from pathlib import Path

import pytest

from seg.cli import PredictArguments, parse_predict
from seg.errors import ConfigError

LEAST = ["--run_dir", "r", "--input", "i", "--output", "o"]


def test_the_least_that_is_needed() -> None:
    assert parse_predict(LEAST) == PredictArguments(run_dirs=(Path("r"),), input=Path("i"), output=Path("o"))


def test_everything() -> None:
    argv = [
        *LEAST,
        "--run_dir",
        "s",
        "--device",
        "cpu",
        "--precision",
        "fp32",
        "--tta",
        "--probabilities",
        "--skip_existing",
    ]
    assert parse_predict(argv) == PredictArguments(
        run_dirs=(Path("r"), Path("s")),
        input=Path("i"),
        output=Path("o"),
        device="cpu",
        precision="fp32",
        tta=True,
        probabilities=True,
        existing="skip",
    )
    assert parse_predict([*LEAST, "--overwrite"]).existing == "overwrite"


def problems_of(*argv: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse_predict(argv)
    return caught.value.sentences


def test_all_that_is_missing_is_said_together() -> None:
    assert problems_of("--tta", "--skip_existing", "--overwrite", "--imput", "x") == (
        "--imput is no option; did you mean --input?",
        "--run_dir must be given, got none; see --help.",
        "--input must be given, got none; see --help.",
        "--output must be given, got none; see --help.",
        "--skip_existing must not come with --overwrite; leave one of them out.",
    )


def test_kinds_of_arithmetic_are_named() -> None:
    (problem,) = problems_of(*LEAST, "--precision", "fp16")
    assert problem.startswith("argument --precision: invalid choice: 'fp16' (choose from")


def test_devices_are_named() -> None:
    (problem,) = problems_of(*LEAST, "--device", "tpu")
    assert problem.startswith("argument --device: invalid choice: 'tpu' (choose from")
