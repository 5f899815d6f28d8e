"""A trial ends in records; it is done once, resumed where it was killed, and made anew where its origin changed."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seg.ablation import trials as module
from seg.ablation.generalisation import measure_generalisation
from seg.ablation.publish import publish
from seg.ablation.store import RunRecord, TrialRecord, read_results, read_trial, read_trials
from seg.ablation.study import Study, Trial
from seg.ablation.trials import (
    StudyPaths,
    data_digest,
    decisive_digest,
    put_back,
    run_trial,
    store_failure,
    trials_left,
    why_unfinished,
)
from seg.config import BottleneckConfig, ExperimentConfig
from seg.data.splits import spread_over
from seg.errors import RunError
from seg.evaluation.scores import read_cases
from seg.workflows.train import train
from tests.problems import refused

OTHER = "0" * 64
ID = "baseline.fold_0.seed_0"
RUN = "runs/baseline/fold_0_seed_0"


def paths_in(folder: Path) -> StudyPaths:
    return StudyPaths(study_dir=folder, runs_dir=folder / "runs")


def record_of(folder: Path) -> TrialRecord:
    stored = read_trial(folder, ID)
    assert stored is not None
    return stored.record


def reasons(folder: Path, trial: Trial) -> list[str]:
    """Why the trial has to run."""
    return why_unfinished(read_trial(folder, ID), trial.config)


def changed(config: ExperimentConfig, section: str, **values: Any) -> ExperimentConfig:
    return replace(config, **{section: replace(getattr(config, section), **values)})


@pytest.fixture(scope="module")
def trial(make_study: Callable[..., Study]) -> Trial:
    return make_study().trials[0]


@pytest.fixture(scope="module")
def finished(trial: Trial, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study directory with one finished trial."""
    folder = tmp_path_factory.mktemp("study")
    plan = {"schema_version": 1, "name": "boxes", "command": "", "baseline": "baseline", "margin": 0.01, "data": {}}
    plan |= {"folds": [0], "seeds": [0], "variants": [{"name": "baseline"}], "trials": [ID]}
    (folder / "study.json").write_text(json.dumps(plan))
    run_trial(trial, paths_in(folder))
    return folder


@pytest.fixture
def study(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "study"))


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seg.workflows.train.train_fold", lambda *_, **__: pytest.fail("trained"))


def test_records_are_whole_and_hold_no_weights_and_no_folder_of_this_machine(
    finished: Path, trial: Trial, boxes: Path
) -> None:
    folder = finished / "trials" / ID
    assert {path.name for path in folder.iterdir()} == {
        *("trial.json", "config.yaml", "environment.json", "cases.csv"),
        *("evaluation.json", "metrics.csv", "generalisation.json", "preservation.json"),
    }
    assert [path.name for path in folder.parent.iterdir()] == [ID]
    content = json.loads((folder / "trial.json").read_text())
    assert content["status"] == "finished"
    assert (content["attempts"], content["error"], content["training_version"]) == (1, None, 1)
    assert content["fingerprint"] == {"config": decisive_digest(trial.config), "data": data_digest(trial.config)}
    assert all(0 < content[name] < 100 for name in ("seconds", "measuring_seconds"))
    assert 50 < content["peak_memory_mib"] < 10_000
    assert content["threads"] == torch.get_num_threads()
    text = (folder / "config.yaml").read_text()
    assert "root: boxes\n" in text
    assert str(boxes.parent) not in text


def test_results_are_those_of_the_files_of_a_run(finished: Path) -> None:
    found = read_results(finished)
    assert not found.problems
    scores = found.scores[found.scores["metric"] == "dice"]
    assert list(scores["value"]) == [score.scores.dice for score in read_cases(finished / "trials" / ID)]
    by_class = scores.groupby("class_index")["value"].mean()
    assert list(found.generalisation["val_dice"]) == pytest.approx(list(by_class))
    assert found.stored[ID].mean_dice == pytest.approx(by_class.mean())


def test_generalisation_scores_as_many_training_cases_as_held_out_ones(finished: Path, trial: Trial) -> None:
    """With the two sides exchanged, held-out scores of one way are training scores of the other."""
    folder = finished / "trials" / ID
    content = json.loads((folder / "generalisation.json").read_text())
    scores = read_cases(folder)
    expected = [np.mean([s.scores.dice for s in scores if s.class_index == index]) for index in (1, 2)]
    assert content["val_dice"] == pytest.approx(expected)
    assert content["val_mean_dice"] == pytest.approx(np.mean(expected))
    assert content["train_cases"] == len({score.case_id for score in scores}) == 3
    assert content["gap"] == pytest.approx(content["train_mean_dice"] - content["val_mean_dice"])
    dataset, split = module.read_fold(trial.config, finished / RUN)
    before = (finished / RUN / "generalisation.json").read_bytes()
    again = measure_generalisation(
        finished / RUN, dataset, replace(split, train=split.validation, validation=split.train)
    )
    (finished / RUN / "generalisation.json").write_bytes(before)
    assert again["train_dice"] == pytest.approx(content["val_dice"])


def test_a_trial_is_measured_on_the_sides_that_its_run_had(finished: Path, trial: Trial, tmp_path: Path) -> None:
    """With initial weights, folds may be drawn otherwise than the configuration alone says."""
    run_dir = Path(shutil.copytree(finished / RUN, tmp_path / "run"))
    record = json.loads((run_dir / "environment.json").read_text())
    record["split"]["train"].append(record["split"]["validation"].pop())
    (run_dir / "environment.json").write_text(json.dumps(record))
    _, split = module.read_fold(trial.config, run_dir)
    assert {"train": list(split.train), "validation": list(split.validation)} == record["split"]


def test_training_cases_are_taken_at_even_distances() -> None:
    names = [f"{index:02d}" for index in range(10)]
    assert spread_over(names, 3) == ["00", "03", "06"]
    assert spread_over(names, 12) == names


@pytest.mark.usefixtures("no_training")
def test_a_finished_trial_is_not_repeated_even_without_its_run(study: Path, trial: Trial) -> None:
    shutil.rmtree(study / "runs")
    before = record_of(study)
    run_trial(trial, paths_in(study))
    assert record_of(study) == before
    publish(study)
    assert not (study / "trials").exists()
    run_trial(trial, paths_in(study))
    assert reasons(study, trial) == []
    assert not (study / RUN).exists()


@pytest.mark.usefixtures("no_training")
def test_lost_results_are_made_again_without_training(study: Path, trial: Trial) -> None:
    before = record_of(study)
    shutil.rmtree(study / "trials")
    run_trial(trial, paths_in(study), attempt=2)
    assert record_of(study) == before.model_copy(update={"attempts": 2})


def test_a_run_made_by_hand_is_taken_over(trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(replace(trial.config, name="by_hand"), run_dir=tmp_path / RUN, folds=[0])
    monkeypatch.setattr("seg.workflows.train.train_fold", lambda *_, **__: pytest.fail("trained"))
    run_trial(trial, paths_in(tmp_path))
    record = record_of(tmp_path)
    assert record.config_digest == decisive_digest(trial.config)
    assert record.peak_memory_mib is None
    assert reasons(tmp_path, trial) == []


def test_a_trial_of_another_version_is_trained_anew(study: Path, trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, former = study / RUN / "checkpoints/weights.pt", study / f"{RUN}.former"
    before = weights.stat().st_mtime_ns
    monkeypatch.setattr(module, "TRAINING_VERSION", 2)
    assert reasons(study, trial) == ["version"]
    # Killed while it is trained anew, a trial has its former run and results still.
    with monkeypatch.context() as patch:
        patch.setattr(module, "_train", lambda *_: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception, match="killed"):
            run_trial(trial, paths_in(study))
    assert (former / "checkpoints/weights.pt").stat().st_mtime_ns == before
    assert store_failure(trial, paths_in(study), attempts=1, traceback="an error") == "an error"
    assert record_of(study).status == "finished"
    run_trial(trial, paths_in(study))
    assert not former.exists()
    assert record_of(study).training_version == 2
    assert weights.stat().st_mtime_ns > before
    assert reasons(study, trial) == []


@pytest.mark.usefixtures("no_training")
def test_measures_of_another_version_are_taken_anew_where_the_run_is_there(
    study: Path, trial: Trial, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    names = ("generalisation.json", "preservation.json")
    stored = [study / "trials" / ID / name for name in names]
    whole = [path.read_bytes() for path in stored]
    for path in (*stored, *(study / RUN / name for name in names)):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"train_cases": 99, "cases": 99}))

    def left() -> tuple[Trial, ...]:
        return trials_left([trial], paths_in(study), read_trials(study))

    monkeypatch.setattr(module, "MEASURES_VERSION", module.MEASURES_VERSION + 1)
    assert reasons(study, trial) == []
    assert left() == (trial,)
    run_trial(trial, paths_in(study))
    assert [path.read_bytes() for path in stored] == whole
    assert record_of(study).measures_version == module.MEASURES_VERSION
    assert left() == ()
    monkeypatch.setattr(module, "MEASURES_VERSION", module.MEASURES_VERSION + 1)
    shutil.rmtree(study / RUN)
    caplog.clear()
    assert left() == ()
    assert [ID in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("results", ["there", "lost"])
def test_a_run_that_was_put_aside_comes_back_where_it_counts_again(
    study: Path, trial: Trial, monkeypatch: pytest.MonkeyPatch, results: str
) -> None:
    weights, note = study / RUN / "checkpoints/weights.pt", study / f"{RUN}.json"
    before = weights.stat().st_mtime_ns, note.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(module, "TRAINING_VERSION", 2)
        for _ in range(2):
            with pytest.raises(pytest.fail.Exception):
                run_trial(trial, paths_in(study))
    assert not weights.exists()
    if results == "lost":
        shutil.rmtree(study / "trials")
        run_trial(trial, paths_in(study))
    else:
        put_back(trial, paths_in(study))
    assert (weights.stat().st_mtime_ns, note.read_bytes()) == before
    assert not list((study / RUN).parent.glob("*.former*"))
    assert reasons(study, trial) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_log_on_a_full_disk_keeps_silent(capsys: pytest.CaptureFixture[str]) -> None:
    record = logging.LogRecord("seg", logging.INFO, __file__, 1, "a line", None, None)
    with suppress(OSError), Path("/dev/full").open("w", buffering=1) as file:
        handler = module._LogHandler(file)
        handler.handle(record)
        assert capsys.readouterr().err == ""
    handler.handle(record)
    assert "ValueError" in capsys.readouterr().err


def test_trials_share_the_cache_of_their_study(trial: Trial, tmp_path: Path) -> None:
    on_disk = replace(trial, variant=replace(trial.variant, config=changed(trial.config, "data", cache="disk")))
    run_trial(on_disk, paths_in(tmp_path))
    assert len(list((tmp_path / "runs/.cache").glob("*.pt"))) == 6
    assert not list((tmp_path / RUN).rglob("*cache*"))


def test_another_version_of_resampling_touches_only_trials_that_resample(trial: Trial) -> None:
    made = RunRecord(training_version=module.TRAINING_VERSION, resampling_version=module.RESAMPLING_VERSION + 1)
    assert module.same_version(made, trial.config)
    assert not module.same_version(made, changed(trial.config, "data", spacing_mm=(1.0, 1.0, 1.0)))
    assert not module.same_version(made.model_copy(update={"training_version": 0}), trial.config)


@pytest.mark.parametrize("versions", [{}, {"training_version": 2, "resampling_version": 3}])
def test_what_older_code_noted_of_a_run_is_read(versions: dict[str, int]) -> None:
    """Without versions a run is of version 1, whatever its digest of the code."""
    fingerprint = {"config": "c", "data": "d", "code": OTHER} | versions
    record = RunRecord.model_validate({"fingerprint": fingerprint, "seconds": 5.0})
    assert (record.config_digest, record.data_digest, record.seconds) == ("c", "d", 5.0)
    found = {"training_version": record.training_version, "resampling_version": record.resampling_version}
    assert found == (versions or {"training_version": 1, "resampling_version": 1})


def test_another_configuration_is_refused_by_name(study: Path, trial: Trial, make_study: Callable[..., Study]) -> None:
    other = make_study(steps=4).trials[0]
    assert reasons(study, other) == ["training.steps"]
    with pytest.raises(RunError) as error:
        run_trial(other, paths_in(study))
    (problem,) = error.value.problems
    assert (problem.path, problem.kind, problem.value) == (str(study / RUN), "config", "other training.steps")


def test_other_data_are_refused_by_case(study: Path, trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = dict(module.case_digests(trial.config)) | {"case_3": OTHER}
    monkeypatch.setattr(module, "case_digests", lambda config: digests)
    (problem,) = module.run_dir_problems(trial.config, study / RUN)
    assert (problem.path, problem.kind, problem.value) == (str(study / RUN), "data", "other files of cases case_3")


@pytest.mark.parametrize(
    ("lost", "named"),
    [
        (("checkpoints/weights.pt", "metrics.csv"), ("checkpoints/weights.pt", "metrics.csv")),
        (("evaluation.json", "environment.json", "model.json"), ("environment.json",)),
        (("evaluation.json", "model.json", "checkpoints/weights.pt"), ()),  # it goes on
    ],
)
def test_files_that_a_run_directory_lacks_are_named_before_anything_runs(
    study: Path, trial: Trial, lost: tuple[str, ...], named: tuple[str, ...]
) -> None:
    shutil.rmtree(study / "trials")
    for name in lost:
        (study / RUN / name).unlink()
    found = []
    try:
        trials_left([trial], paths_in(study), {})
    except RunError as error:
        found = [(problem.path, problem.kind, problem.value) for problem in error.problems]
    assert found == [(str(study / RUN), "missing", f"no {', '.join(named)}")] * bool(named)


def test_other_files_in_the_place_of_a_run_are_named_before_anything_runs(study: Path, trial: Trial) -> None:
    shutil.rmtree(study / "trials")
    (study / RUN / "config.yaml").unlink()
    with refused((str(study / RUN), "folder")):
        trials_left([trial], paths_in(study), {})
    shutil.rmtree(study / RUN)
    assert trials_left([trial], paths_in(study), {}) == (trial,)


def test_fields_that_were_added_later_do_not_void_a_record(study: Path, trial: Trial) -> None:
    """An older record lacks them and has another digest; its fields say that it is the same."""
    folder = study / "trials" / ID
    config = folder / "config.yaml"
    config.write_text("".join(line for line in config.read_text().splitlines(True) if "whole_up_to" not in line))
    content = json.loads((folder / "trial.json").read_text())
    content["fingerprint"]["config"] = OTHER
    (folder / "trial.json").write_text(json.dumps(content))
    assert reasons(study, trial) == []


def test_a_failure_is_recorded_and_does_not_count_as_done(tmp_path: Path, trial: Trial) -> None:
    store_failure(trial, paths_in(tmp_path), attempts=2, traceback="Traceback:\n  line\nValueError: no\n")
    assert {path.name for path in (tmp_path / "trials" / ID).iterdir()} == {"trial.json", "failure.txt", "config.yaml"}
    record = record_of(tmp_path)
    assert (record.status, record.attempts, record.error) == ("failed", 2, "ValueError: no")
    assert reasons(tmp_path, trial) == ["failed"]


@pytest.mark.parametrize(
    ("section", "values", "same"),
    [
        ("data", {"root": "elsewhere", "cache": "disk", "cache_dir": "somewhere", "workers": 3}, True),
        ("training", {"progress": True}, True),
        ("network", {"skip_bottleneck": BottleneckConfig(ratio=0.25)}, False),
        ("network", {"channels": (8, 16)}, False),
        ("training", {"steps": 2001}, False),
        ("data", {"spacing_mm": (1.0, 1.0, 1.0)}, False),
        ("optimizer", {"learning_rate": 0.0004}, False),
        ("augmentation", {"intensity": replace(ExperimentConfig().augmentation.intensity, noise_std=0.2)}, False),
    ],
)
def test_the_configurations_digest_changes_with_what_decides_weights(
    experiment: ExperimentConfig, section: str, values: dict[str, Any], same: bool
) -> None:
    assert (decisive_digest(changed(experiment, section, **values)) == decisive_digest(experiment)) is same
    assert len({decisive_digest(replace(experiment, seed=seed, fold=fold)) for seed in (0, 1) for fold in (0, 1)}) == 4


def test_a_data_set_is_its_files_and_folds_wherever_it_lies(
    experiment: ExperimentConfig, boxes: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(boxes, tmp_path / "copy"))
    config, before = changed(experiment, "data", root=str(copy)), data_digest(experiment)
    assert data_digest(config) == before
    ids = [f"case_{index}" for index in range(6)]
    (tmp_path / "few.json").write_text(json.dumps([{"train": ids[:1], "val": ids[1:]}]))
    others = [
        replace(config, fold=1),
        *(changed(config, "data", **values) for values in ({"split_seed": 5}, {"train_cases": 1})),
        changed(config, "data", splits=str(tmp_path / "few.json")),
    ]
    assert all(data_digest(other) != before for other in others)
    with pytest.raises(RunError) as error:
        data_digest(replace(config, fold=2))
    (problem,) = error.value.problems
    assert (problem.path, problem.kind, problem.value) == (str(copy), "range", "2")


@pytest.mark.parametrize("part", ["an image", "a class"])
def test_other_files_and_other_meanings_of_labels_are_other_data(
    experiment: ExperimentConfig, boxes: Path, tmp_path: Path, part: str
) -> None:
    copy = Path(shutil.copytree(boxes, tmp_path / "copy"))
    if part == "an image":
        shutil.copy(copy / "imagesTr/case_1.nii.gz", copy / "imagesTr/case_0.nii.gz")
    else:
        path = copy / "dataset.json"
        path.write_text(path.read_text().replace('"box"', '"ball"'))
    assert data_digest(changed(experiment, "data", root=str(copy))) != data_digest(experiment)
