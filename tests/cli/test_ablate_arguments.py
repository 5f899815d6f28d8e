from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from seg.cli import parse_ablate
from seg.cli.ablate_arguments import study_fields
from seg.errors import ConfigError


def problems_of(*argv: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse_ablate(argv)
    return caught.value.sentences


def test_a_study_alone() -> None:
    arguments = parse_ablate(["--config", "study.yaml"])
    assert arguments.study_path == Path("study.yaml")
    assert (arguments.ablation_dir, arguments.runs_dir, arguments.dry_run) == (None, None, False)
    assert (arguments.only, dict(arguments.overrides), arguments.speed_only) == ((), {}, False)
    assert parse_ablate(["--config", "study.yaml", "--speed_only"]).speed_only
    assert problems_of("--config", "study.yaml", "--speed_only", "--dry_run") == (
        "--dry_run must not come with --speed_only, which runs no trial either; leave one out.",
    )


def test_every_option_arrives() -> None:
    places = ["--ablation_dir", "out", "--runs", "heavy", "--dry_run"]
    only = ["--only", "narrow", "--only", "wide", "--only", "narrow"]
    fields = ["--data.root", "d", "--set", "training.steps=70", "--set=network.merge=add", "--launch.backend", "ray"]
    arguments = parse_ablate(["--config", "s.yaml", *places, *only, *fields, "--seeds", "[0,1]", "--folds=[2]"])
    assert (arguments.ablation_dir, arguments.runs_dir, arguments.dry_run) == (Path("out"), Path("heavy"), True)
    assert arguments.only == ("narrow", "wide")
    assert dict(arguments.overrides) == {
        "set.data.root": "d",
        "set.training.steps": "70",
        "set.network.merge": "add",
        "launch.backend": "ray",
        "seeds": "[0,1]",
        "folds": "[2]",
    }


def test_the_last_of_two_options_wins_and_is_applied_last() -> None:
    arguments = parse_ablate(["--config", "s", "--data.root", "a", "--seeds", "[1]", "--set", "data.root=b"])
    assert list(arguments.overrides.items()) == [("seeds", "[1]"), ("set.data.root", "b")]


def test_faults_are_reported_together() -> None:
    assert problems_of("--lauch.workers", "2", "--set", "x", "--set", "=3", "more") == (
        "--lauch.workers is no option; did you mean --launch.workers?",
        "unexpected argument 'more'; options have the form --name VALUE.",
        "--config must name the YAML file of a study, got none; an example is --config configs/ablation/phantom.yaml.",
        "--set must have the form PATH=VALUE, as in --set training.steps=700, got 'x'.",
        "--set must have the form PATH=VALUE, as in --set training.steps=700, got '=3'.",
    )


def test_help_explains_every_field_without_torch() -> None:
    code = (
        "import sys\nfrom seg.cli import parse_ablate\n"
        "try:\n    parse_ablate(['--help'])\nfinally:\n    assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    for path, field in study_fields().items():
        assert f"--{path}" in text
        assert field.description.removesuffix(".") in text
