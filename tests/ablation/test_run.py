"""A study runs what is left, goes on after failures, and refuses what is not its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from seg.ablation import run as module
from seg.ablation import speed
from seg.ablation.publish import publish
from seg.ablation.run import run_study
from seg.ablation.store import read_trial
from seg.ablation.trials import Fingerprint, fingerprint, run_trial
from seg.config import BottleneckConfig, ExperimentConfig
from seg.config.study import BackendConfig, StudyConfig
from seg.errors import RunError
from seg.files import locked
from tests.ablation.trials import FakeStudy, FakeTrial, Variant

CONCLUDE = module._conclude
IDS = ["baseline.fold_0.seed_0", "skip_1-2.fold_0.seed_0", "baseline.fold_0.seed_1", "skip_1-2.fold_0.seed_1"]


@pytest.fixture(autouse=True)
def concluded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes the steps around the trials in place of taking them."""
    steps: list[str] = []
    monkeypatch.setattr(module, "write_study_file", lambda study, folder: steps.append("plan"))
    monkeypatch.setattr(module, "_conclude", lambda study, places, **_: steps.append("report"))
    return steps


@pytest.fixture(scope="module")
def make_study(experiment: ExperimentConfig) -> Callable[..., Any]:
    def make(seeds: tuple[int, ...] = (0,), steps: int = 2, **values: Any) -> FakeStudy:
        base = replace(experiment, training=replace(experiment.training, steps=steps))
        narrow = replace(base, network=replace(base.network, skip_bottleneck=BottleneckConfig(ratio=0.5)))
        variants = ((Variant(), base), (Variant(name="skip_1-2"), narrow))
        trials = [FakeTrial(replace(config, seed=seed), variant) for seed in seeds for variant, config in variants]
        return FakeStudy(config=StudyConfig(name="boxes", base="boxes.yaml", **values), trials=tuple(trials))

    return make


@pytest.fixture(scope="module")
def finished(make_study: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "write_study_file", lambda study, folder: None)
        patch.setattr(module, "_conclude", lambda study, places, **_: None)
        run_study(make_study(), folder)
    return folder


@pytest.fixture
def done_before(finished: Path, tmp_path: Path) -> Path:
    """A study directory with two finished trials."""
    return Path(shutil.copytree(finished, tmp_path / "done_before"))


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What the table says of each event."""
    return [line[10:].partition("  |  ")[0] for line in capsys.readouterr().out.splitlines() if "  |  " in line]


def test_a_study_runs_its_trials_in_their_order(
    make_study: Callable[..., Any], tmp_path: Path, concluded: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_study(make_study(), tmp_path) == 0
    words = [line.split("  ")[:2] for line in said(capsys)]
    assert words[1:] == [[trial, state] for trial in IDS[:2] for state in ("running", "finished")]
    assert sorted(path.name for path in (tmp_path / "trials").iterdir()) == sorted(IDS[:2])
    assert concluded == ["plan", "report"]


def test_a_study_that_grows_runs_what_is_new(
    make_study: Callable[..., Any], done_before: Path, concluded: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_study(make_study(), done_before) == 0
    assert said(capsys) == []
    assert concluded == ["plan", "report"]
    shutil.rmtree(done_before / "runs" / "skip_1-2")  # its records are enough
    assert run_study(make_study(seeds=(0, 1)), done_before) == 0
    words = [line.split("  ")[:2] for line in said(capsys)]
    assert words[0] == ["2 of 4 trials are done already"]
    assert words[1:] == [[trial, state] for trial in IDS[2:] for state in ("running", "finished")]


def test_speed_alone_is_measured_without_a_trial(
    make_study: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    measured: list[Path] = []
    monkeypatch.setattr(module, "_conclude", CONCLUDE)
    monkeypatch.setattr(speed, "measure_study", lambda study, folder, runs: measured.append(folder))
    assert run_study(make_study(), tmp_path, speed_only=True) == 0
    assert measured == [tmp_path]
    assert not (tmp_path / "trials").exists()
    assert "no trial is finished: there is nothing to report but speed.json" in caplog.text


def test_runs_may_lie_elsewhere(make_study: Callable[..., Any], done_before: Path, tmp_path: Path) -> None:
    heavy = (done_before / "runs").rename(tmp_path / "heavy")
    shutil.rmtree(done_before / "trials")
    seconds = (heavy / "baseline/fold_0_seed_0/checkpoints/weights.pt").stat().st_mtime_ns
    assert run_study(make_study(), done_before, runs_dir=heavy) == 0
    assert (heavy / "baseline/fold_0_seed_0/checkpoints/weights.pt").stat().st_mtime_ns == seconds
    assert [path.name for path in done_before.iterdir()] == ["trials"]


def test_a_failing_trial_is_tried_again_recorded_and_named(
    make_study: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    concluded: list[str],
) -> None:
    def fail(trial: Any, places: Any, *, attempt: int = 1) -> Path:
        if trial.variant.name == "baseline":
            raise RuntimeError(f"attempt {attempt} failed")
        return run_trial(trial, places, attempt=attempt)

    monkeypatch.setattr(module, "run_trial", fail)
    study = make_study(launch=BackendConfig(retries=2))
    assert run_study(study, tmp_path) == 1
    log = tmp_path / "runs" / "baseline" / "fold_0_seed_0.log"
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"failed: {IDS[0]}: RuntimeError: attempt 3 failed (log: {log})"
    )
    folder = tmp_path / "trials" / IDS[0]
    content = json.loads((folder / "trial.json").read_text())
    assert (content["status"], content["attempts"], content["seconds"]) == ("failed", 3, None)
    assert content["error"] == "RuntimeError: attempt 3 failed"
    assert (folder / "failure.txt").read_text().startswith("Traceback (most recent call last):\n")
    finished = read_trial(tmp_path, IDS[1])
    assert finished is not None
    assert finished.record.status == "finished"
    assert concluded == ["plan", "report"]
    monkeypatch.setattr(module, "run_trial", run_trial)
    assert run_study(study, tmp_path) == 0
    again = read_trial(tmp_path, IDS[0])
    assert again is not None
    assert (again.record.status, again.record.attempts, (folder / "failure.txt").exists()) == ("finished", 1, False)


def test_another_configuration_is_refused_before_anything_runs(
    make_study: Callable[..., Any], done_before: Path, concluded: list[str]
) -> None:
    shutil.rmtree(done_before / "trials" / IDS[1])  # its run is left
    with pytest.raises(RunError) as error:
        run_study(make_study(steps=4), done_before)
    assert [(problem.path, problem.kind, problem.value) for problem in error.value.problems] == [
        (f"{done_before}/trials/{IDS[0]}", "config", "other training.steps"),
        (f"{done_before}/runs/skip_1-2/fold_0_seed_0", "config", "other training.steps"),
    ]
    assert concluded == []


def test_trials_of_another_version_are_trained_anew(
    make_study: Callable[..., Any], done_before: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def newer(config: ExperimentConfig) -> Fingerprint:
        return replace(fingerprint(config), training_version=2)

    ran: list[str] = []
    monkeypatch.setattr(module, "run_trial", lambda trial, places, attempt: ran.append(trial.id))
    run_study(make_study(), done_before)
    assert ran == []
    monkeypatch.setattr(module, "fingerprint", newer)
    run_study(make_study(), done_before)
    assert ran == IDS[:2]


def test_a_published_study_is_continued(
    make_study: Callable[..., Any], done_before: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    variants = [{"name": "baseline"}, {"name": "skip_1-2"}]
    plan = {"schema_version": 1, "name": "boxes", "command": "", "baseline": "baseline", "margin": 0.01}
    plan |= {"folds": [0], "seeds": [0], "variants": variants, "trials": IDS[:2], "data": {}}
    (done_before / "study.json").write_text(json.dumps(plan))
    publish(done_before)
    shutil.rmtree(done_before / "runs")
    assert run_study(make_study(seeds=(0, 1)), done_before) == 0
    words = [line.split("  ")[:2] for line in said(capsys)]
    assert words[0] == ["2 of 4 trials are done already"]
    assert words[1:] == [[trial, state] for trial in IDS[2:] for state in ("running", "finished")]


def test_two_processes_never_run_one_study(make_study: Callable[..., Any], tmp_path: Path) -> None:
    with locked(tmp_path / ".lock"), pytest.raises(RunError) as error:
        run_study(make_study(), tmp_path)
    assert str(error.value) == f"{tmp_path}: only one process may run a study; wait for the other one."
    assert not (tmp_path / ".lock").exists()
