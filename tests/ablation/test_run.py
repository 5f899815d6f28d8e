"""A study runs what is left, goes on after failures, and refuses what is not its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from seg.ablation import run as module
from seg.ablation import speed, trials
from seg.ablation.plan import StudyPlan, write_study_file
from seg.ablation.preview import preview_study
from seg.ablation.publish import publish
from seg.ablation.run import run_study
from seg.ablation.store import StoredTrial, read_trial
from seg.ablation.study import Study, Trial
from seg.ablation.trials import StudyPaths
from seg.config import dump_config
from seg.config.study import BackendConfig, SpeedConfig
from seg.errors import RunError
from seg.files import locked
from seg.runs import Origin, open_run

CONCLUDE = module._conclude
IDS = ["baseline.fold_0.seed_0", "skip_1-2.fold_0.seed_0", "baseline.fold_0.seed_1", "skip_1-2.fold_0.seed_1"]
Make = Callable[..., Study]


@pytest.fixture(autouse=True)
def steps(monkeypatch: pytest.MonkeyPatch, store: Callable[..., None]) -> list[str]:
    """Notes the steps of a study; a trial stores results without training."""
    found: list[str] = []

    def run(trial: Trial, paths: StudyPaths, *, attempt: int) -> None:
        found.append(trial.id)
        store(paths.study_dir, trial, attempts=attempt, seconds=90.0)

    monkeypatch.setattr(module, "run_trial", run)

    def plan(study: Study, folder: Path, stored: Mapping[str, StoredTrial]) -> StudyPlan:
        found.append("plan")
        return write_study_file(study, folder, stored)

    monkeypatch.setattr(module, "write_study_file", plan)
    monkeypatch.setattr(module, "_conclude", lambda study, paths, **_: found.append("report"))
    monkeypatch.setattr(
        module, "expected_times", lambda study, _: ({trial.id: (120.0, "GMAC") for trial in study.trials}, 60.0, "")
    )
    return found


def test_a_study_runs_its_trials_in_their_order_and_those_that_are_new_later(
    make_study: Make, tmp_path: Path, steps: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    def events() -> list[tuple[str, ...]]:
        lines = [line[10:].partition("  |  ") for line in capsys.readouterr().out.splitlines()]
        return [(*line.split("  "), summary.rpartition("  ")[2]) for line, _, summary in lines]

    assert run_study(make_study(), tmp_path) == 0
    assert steps == ["plan", *IDS[:2], "plan", "report"]
    assert events() == [
        (ANY, "left 5 min"),
        (IDS[0], "running", "left 5 min"),
        (IDS[0], "finished", "Dice 0.6000", "90 s", "left 2 min"),
        (IDS[1], "running", "left 2 min"),
        (IDS[1], "finished", "Dice 0.6000", "90 s", "left 60 s"),
    ]
    assert run_study(make_study(), tmp_path) == 0
    assert events() == []
    publish(tmp_path)
    assert run_study(make_study(seeds=(0, 1)), tmp_path) == 0
    assert steps == ["plan", *IDS[:2], "plan", "report", "plan", "report", "plan", *IDS[2:], "plan", "report"]
    assert events()[0] == (ANY, "left 4 min")


def test_a_case_that_was_left_out_is_named_and_ends_in_exit_code_1(
    make_study: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_trial: Any = module.run_trial

    def run(trial: Trial, paths: StudyPaths, *, attempt: int) -> None:
        run_trial(trial, paths, attempt=attempt)
        environment = {"schema_version": 1, "data": {f"case_{number}": "digest" for number in (0, 1, 2, 4, 5)}}
        (paths.study_dir / "trials" / trial.id / "environment.json").write_text(json.dumps(environment))

    monkeypatch.setattr(module, "run_trial", run)
    for _ in range(2):  # also where nothing is left to run
        assert run_study(make_study(), tmp_path) == 1
        assert capsys.readouterr().err.endswith(": case_3\n")


def test_changes_of_the_plan_after_the_first_result_are_logged(
    make_study: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for margin, said in ((0.005, 0), (0.01, 1), (0.01, 2)):
        run_study(make_study(margin=margin), tmp_path)
        assert [record.args[1] for record in caplog.records] == ["margin from 0.005 to 0.01"] * said


@pytest.mark.parametrize(("enabled", "speed_only", "count"), [(True, False, 1), (False, False, 0), (False, True, 1)])
def test_speed_is_measured_after_the_trials_unless_it_is_turned_off(
    make_study: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enabled: bool, speed_only: bool, count: int
) -> None:
    measured: list[Path] = []
    monkeypatch.setattr(module, "_conclude", CONCLUDE)
    monkeypatch.setattr(speed, "measure_study", lambda study, folder, runs: measured.append(folder))
    monkeypatch.setattr("seg.ablation.report.write_report", lambda *_, **__: "")
    run_study(make_study(speed=SpeedConfig(enabled=enabled)), tmp_path, speed_only=speed_only)
    assert measured == [tmp_path] * count


def test_speed_alone_is_measured_without_a_trial(
    make_study: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    measured: list[Path] = []
    monkeypatch.setattr(module, "_conclude", CONCLUDE)
    monkeypatch.setattr(speed, "measure_study", lambda study, folder, runs: measured.append(folder))
    assert run_study(make_study(), tmp_path, speed_only=True) == 0
    assert measured == [tmp_path]
    assert not (tmp_path / "trials").exists()
    assert [(record.levelname, "speed.json" in record.getMessage()) for record in caplog.records] == [("WARNING", True)]


def test_a_failing_trial_is_tried_again_recorded_and_named(
    make_study: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    steps: list[str],
) -> None:
    run_trial: Any = module.run_trial

    def fail(trial: Trial, paths: StudyPaths, *, attempt: int) -> None:
        if trial.variant.name == "baseline":
            raise RuntimeError(f"attempt {attempt} failed")
        run_trial(trial, paths, attempt=attempt)

    monkeypatch.setattr(module, "run_trial", fail)
    study = make_study(launch=BackendConfig(retries=2))
    assert run_study(study, tmp_path) == 1
    log = tmp_path / "runs" / "baseline" / "fold_0_seed_0.log"
    told = capsys.readouterr().err.splitlines()[-1]
    assert all(part in told for part in (IDS[0], "RuntimeError: attempt 3 failed", str(log)))
    folder = tmp_path / "trials" / IDS[0]
    content = json.loads((folder / "trial.json").read_text())
    assert (content["status"], content["attempts"], content["seconds"]) == ("failed", 3, None)
    assert content["error"] == "RuntimeError: attempt 3 failed"
    assert (folder / "failure.txt").read_text().startswith("Traceback (most recent call last):\n")
    assert steps == ["plan", IDS[1], "plan", "report"]
    monkeypatch.setattr(module, "run_trial", run_trial)
    assert run_study(study, tmp_path) == 0
    again = read_trial(tmp_path, IDS[0])
    assert again is not None
    assert (again.record.status, again.record.attempts) == ("finished", 1)


@pytest.mark.parametrize("start", [run_study, preview_study])
@pytest.mark.parametrize("left", ["results", "run"])
def test_another_study_is_refused_before_anything_runs(
    make_study: Make, store: Callable[..., None], tmp_path: Path, steps: list[str], start: Any, left: str
) -> None:
    study, other = make_study(), make_study(steps=4, seeds=(0, 1))
    for trial in study.trials:
        store(tmp_path / "study", trial)
    path = tmp_path / "study/trials" / IDS[0]
    if left == "run":
        shutil.rmtree(path)
        path = tmp_path / "heavy/baseline/fold_0_seed_0"
        open_run(study.trials[0].config, path, Origin(computed_with={}, data={}))
        (path / "config.yaml").write_text(dump_config(study.trials[0].config))
    with pytest.raises(RunError) as error:
        start(other, tmp_path / "study", runs_dir=tmp_path / "heavy")
    first, more = error.value.problems
    assert (first.path, first.kind, first.value) == (str(path), "config", "other training.steps")
    assert more.rule.startswith("And 1 more")
    assert steps == []


def test_trials_of_another_version_are_trained_anew(
    make_study: Make, store: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: list[str]
) -> None:
    for trial in make_study().trials:
        store(tmp_path, trial)
    run_study(make_study(), tmp_path)
    assert steps == ["plan", "report"]
    monkeypatch.setattr(trials, "TRAINING_VERSION", trials.TRAINING_VERSION + 1)
    run_study(make_study(), tmp_path)
    assert steps[2:] == ["plan", *IDS[:2], "plan", "report"]


@pytest.mark.parametrize("use", [run_study, preview_study])
@pytest.mark.parametrize(
    "names", [("config.yaml", "checkpoints", "train.lock"), ("notes.txt",), ("trials", "cases.csv")]
)
def test_a_folder_of_something_else_is_refused_before_anything_is_written(
    make_study: Make, tmp_path: Path, use: Callable[..., object], names: tuple[str, ...]
) -> None:
    for name in names:
        (tmp_path / name).mkdir() if name in ("checkpoints", "trials") else (tmp_path / name).touch()
    with pytest.raises(RunError) as caught:
        use(make_study(), tmp_path)
    (problem,) = caught.value.problems
    assert (problem.path, problem.kind) == (str(tmp_path), "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_two_processes_never_run_one_study(make_study: Make, tmp_path: Path) -> None:
    with locked(tmp_path / ".lock"), pytest.raises(RunError) as error:
        run_study(make_study(), tmp_path)
    assert [(problem.path, problem.kind) for problem in error.value.problems] == [(str(tmp_path), "locked")]
    assert not (tmp_path / ".lock").exists()
