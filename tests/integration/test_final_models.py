"""Final models and packed runs: a command does its work with them, or says what they lack."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seg.cli import read_command
from seg.config import ExperimentConfig
from seg.runs import ENVIRONMENT_FILE
from seg.workflows.export import export
from seg.workflows.train import train
from tests.problems import refused

WORDS = {
    "compress": ("--output", "small"),
    "evaluate": (),
    "export": ("--format", "openvino", "--int8"),
    "widths": ("--output", "widths", "--no_timing", "--cases", "4"),
}


@pytest.fixture(scope="module")
def final(short: ExperimentConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trains a final model on all cases and packs it into ``final.zip`` beside it."""
    run_dir = tmp_path_factory.mktemp("trained") / "final"
    train(short, run_dir=run_dir, folds=(None,))
    export(run_dir, format="zip")
    return run_dir


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check_refused(script: Callable[..., Any], name: str, run_dir: Path, problem: tuple[str, str, str]) -> None:
    words = ("--run_dir", str(run_dir), *WORDS[name])
    with refused(problem):
        read_command(name, words).run()
    assert script(name, *words).code == 2
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("name", ["compress", "evaluate", "export"])
def test_a_final_model_has_no_cases_to_be_scored_on(final: Path, name: str, script: Callable[..., Any]) -> None:
    if name == "export":
        pytest.importorskip("nncf")
    check_refused(script, name, final, (str(final), "held_out", "a final model, trained on all"))


def test_a_final_model_is_exported_and_its_widths_are_predicted(final: Path, script: Callable[..., Any]) -> None:
    assert script("export", "--run_dir", final, "--format", "zip", "--output", "again.zip").code == 0
    assert script("widths", "--run_dir", final, *WORDS["widths"]).code == 0


@pytest.mark.parametrize("name", WORDS)
def test_a_packed_run_is_no_folder(final: Path, name: str, script: Callable[..., Any]) -> None:
    packed = final.with_suffix(".zip")
    check_refused(script, name, packed, ("--run_dir", "folder", f"the file {packed}"))


@pytest.mark.parametrize("name", ["compress", "widths"])
def test_an_unpacked_run_has_lost_the_record_of_its_cases(
    trained: Path, tmp_path_factory: pytest.TempPathFactory, name: str, script: Callable[..., Any]
) -> None:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(export(trained, format="zip", output=folder / "run.zip")) as archive:
        archive.extractall(folder / "run")
    check_refused(script, name, folder / "run", (str(folder / "run"), "split", f"no {ENVIRONMENT_FILE}"))
