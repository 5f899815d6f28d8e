"""A trial ends in records; it is done once, resumed where it was killed, and made anew where its origin changed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seg.ablation import trials as module
from seg.ablation.publish import publish
from seg.ablation.store import TrialRecord, read_results, read_trial
from seg.ablation.trials import Fingerprint, Places, fingerprint, run_trial, store_failure, why_unfinished
from seg.config import ExperimentConfig
from seg.data.splits import spread_over
from seg.errors import RunError
from seg.evaluation.scores import read_cases
from seg.workflows.train import train
from tests.ablation.trials import FakeTrial

OTHER = "0" * 64


def places_in(folder: Path) -> Places:
    return Places(study_dir=folder, runs_dir=folder / "runs")


def results(folder: Path, trial: Any) -> Path:
    return folder / "trials" / str(trial.id)


def record_of(folder: Path, trial: Any) -> TrialRecord:
    stored = read_trial(folder, trial.id)
    assert stored is not None
    return stored.record


def reasons(folder: Path, trial: Any) -> list[str]:
    """Why the trial has to run."""
    return why_unfinished(read_trial(folder, trial.id), trial.config, module.fingerprint(trial.config))


@pytest.fixture(scope="module")
def finished(experiment: ExperimentConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study directory with one finished trial."""
    folder = tmp_path_factory.mktemp("study")
    plan = {"schema_version": 1, "name": "boxes", "command": "", "baseline": "baseline", "margin": 0.01, "data": {}}
    plan |= {"folds": [0], "seeds": [0], "variants": [{"name": "baseline"}], "trials": ["baseline.fold_0.seed_0"]}
    (folder / "study.json").write_text(json.dumps(plan))
    run_trial(FakeTrial(experiment), places_in(folder))  # type: ignore[arg-type]
    return folder


@pytest.fixture
def study(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "study"))


@pytest.fixture
def trial(experiment: ExperimentConfig) -> Any:
    return FakeTrial(experiment)


def forbid_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr("seg.workflows.train.train_fold", fail)


def test_records_are_whole_and_hold_no_weights(finished: Path, trial: Any) -> None:
    folder = results(finished, trial)
    assert {path.name for path in folder.iterdir()} == {
        "trial.json",
        "config.yaml",
        "environment.json",
        "cases.csv",
        "evaluation.json",
        "metrics.csv",
        "generalisation.json",
        "preservation.json",
    }
    assert [path.name for path in folder.parent.iterdir()] == [trial.id]
    content = json.loads((folder / "trial.json").read_text())
    assert content["status"] == "finished"
    assert (content["attempts"], content["error"], content["training_version"]) == (1, None, 1)
    own = fingerprint(trial.config)
    assert content["fingerprint"] == {"config": own.config, "data": own.data}
    assert all(0 < content[name] < 100 for name in ("seconds", "measuring_seconds"))
    assert 50 < content["peak_memory_mib"] < 10_000
    assert content["threads"] == torch.get_num_threads()


def test_records_name_no_folder_of_this_machine(finished: Path, trial: Any, boxes: Path) -> None:
    text = (results(finished, trial) / "config.yaml").read_text()
    assert "root: boxes\n" in text
    assert str(boxes.parent) not in text


def test_generalisation_compares_equal_numbers_of_cases(finished: Path, trial: Any) -> None:
    content = json.loads((results(finished, trial) / "generalisation.json").read_text())
    scores = read_cases(results(finished, trial))
    expected = [np.mean([s.scores.dice for s in scores if s.class_index == index]) for index in (1, 2)]
    assert content["val_dice"] == pytest.approx(expected)
    assert content["val_mean_dice"] == pytest.approx(np.mean(expected))
    assert content["train_cases"] == len({score.case_id for score in scores}) == 3
    assert content["gap"] == pytest.approx(content["train_mean_dice"] - content["val_mean_dice"])


def test_training_cases_are_scored_as_held_out_ones_are(
    trial: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the two sides exchanged, held-out scores of one way are training scores of the other."""
    run_dir = run_trial(trial, places_in(tmp_path))
    content = json.loads((run_dir / "generalisation.json").read_text())
    dataset, split = module.read_fold(trial.config, run_dir)
    swapped = replace(split, train=split.validation, validation=split.train)
    from seg.ablation.generalisation import measure_generalisation

    again = measure_generalisation(run_dir, dataset, swapped)
    assert again["train_dice"] == pytest.approx(content["val_dice"])


def test_training_cases_are_taken_at_even_distances() -> None:
    names = [f"{index:02d}" for index in range(10)]
    assert spread_over(names, 3) == ["00", "03", "06"]
    assert spread_over(names, 12) == names


def test_a_finished_trial_is_not_repeated_even_without_its_run(
    study: Path, trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_training(monkeypatch)
    shutil.rmtree(study / "runs")
    before = record_of(study, trial)
    run_trial(trial, places_in(study))
    assert record_of(study, trial) == before
    publish(study)
    assert not (study / "trials").exists()
    run_trial(trial, places_in(study))
    assert reasons(study, trial) == []
    assert not (study / "runs/baseline/fold_0_seed_0").exists()


def test_lost_results_are_made_again_without_training(study: Path, trial: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = record_of(study, trial)
    shutil.rmtree(study / "trials")
    forbid_training(monkeypatch)
    run_trial(trial, places_in(study), attempt=2)
    assert record_of(study, trial) == before.model_copy(update={"attempts": 2})


def test_a_run_made_by_hand_is_taken_over(trial: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = places_in(tmp_path)
    train(replace(trial.config, name="by_hand"), run_dir=places.run_dir(trial), folds=[0])
    forbid_training(monkeypatch)
    run_trial(trial, places)
    record = record_of(tmp_path, trial)
    assert record.fingerprint["config"] == module.config_digest(trial.config)
    assert record.peak_memory_mib is None
    assert reasons(tmp_path, trial) == []


def test_a_trial_of_another_version_is_trained_anew(study: Path, trial: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    places = places_in(study)
    weights = study / "runs/baseline/fold_0_seed_0/checkpoints/weights.pt"
    former = study / "runs/baseline/fold_0_seed_0.former"
    before = weights.stat().st_mtime_ns
    monkeypatch.setattr(
        module, "fingerprint", lambda config: replace(fingerprint(config), training_version=module.TRAINING_VERSION + 1)
    )
    assert reasons(study, trial) == ["version"]
    # Killed while it is trained anew, a trial has its former run and results still.
    with monkeypatch.context() as patch:
        patch.setattr(module, "_train", lambda *_: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception, match="killed"):
            run_trial(trial, places)
    assert (former / "checkpoints/weights.pt").stat().st_mtime_ns == before
    own = module.fingerprint(trial.config)
    assert store_failure(trial, places, own, attempts=1, traceback="an error") == "an error"
    assert record_of(study, trial).status == "finished"
    run_trial(trial, places)
    assert not former.exists()
    assert record_of(study, trial).training_version == module.TRAINING_VERSION + 1
    assert weights.stat().st_mtime_ns > before
    assert reasons(study, trial) == []


def test_another_version_of_resampling_touches_only_trials_that_resample(trial: Any) -> None:
    own = fingerprint(trial.config)
    other = replace(own, resampling_version=own.resampling_version + 1)
    resampled = replace(trial.config, data=replace(trial.config.data, spacing_mm=(1.0, 1.0, 1.0)))
    assert module.same_version(other, trial.config, own)
    assert not module.same_version(other, resampled, own)
    assert not module.same_version(replace(own, training_version=0), trial.config, own)


def test_what_older_code_began_is_version_1_whatever_its_digest(study: Path, trial: Any) -> None:
    run_dir = places_in(study).run_dir(trial)
    note = run_dir.with_name(f"{run_dir.name}.json")
    content = json.loads(note.read_text())
    content["fingerprint"] = {"config": "c", "data": "d", "code": OTHER}
    note.write_text(json.dumps(content))
    began = module._read_progress(run_dir, fingerprint(trial.config))
    assert began.fingerprint == Fingerprint(config="c", data="d", training_version=1, resampling_version=1)
    assert began.seconds == content["seconds"]


def test_another_configuration_is_refused_by_name(study: Path, trial: Any) -> None:
    changed = replace(trial, config=replace(trial.config, training=replace(trial.config.training, steps=4)))
    places = places_in(study)
    assert reasons(study, changed) == ["training.steps"]
    with pytest.raises(RunError) as error:
        run_trial(changed, places)
    (problem,) = error.value.problems
    assert (problem.path, problem.kind) == (str(places.run_dir(trial)), "config")
    assert problem.value == "other training.steps"


def test_other_data_are_refused_by_case(study: Path, trial: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = dict(module.case_digests(trial.config)) | {"case_3": OTHER}
    monkeypatch.setattr(module, "case_digests", lambda config: digests)
    places = places_in(study)
    with pytest.raises(RunError) as error:
        module.check_run_dir(trial.config, places.run_dir(trial))
    (problem,) = error.value.problems
    assert (problem.path, problem.kind) == (str(places.run_dir(trial)), "data")
    assert problem.value == "other files of cases case_3"


def test_fields_that_were_added_later_do_not_void_a_record(study: Path, trial: Any) -> None:
    """An older record lacks them and has another digest; its fields say that it is the same."""
    folder = results(study, trial)
    config = folder / "config.yaml"
    config.write_text("".join(line for line in config.read_text().splitlines(True) if "whole_up_to" not in line))
    content = json.loads((folder / "trial.json").read_text())
    content["fingerprint"]["config"] = OTHER
    (folder / "trial.json").write_text(json.dumps(content))
    assert reasons(study, trial) == []


def test_a_failure_is_recorded_and_does_not_count_as_done(study: Path, trial: Any) -> None:
    own = fingerprint(trial.config)
    shutil.rmtree(results(study, trial))
    store_failure(trial, places_in(study), own, attempts=2, traceback="Traceback:\n  line\nValueError: no\n")
    folder = results(study, trial)
    assert {path.name for path in folder.iterdir()} == {"trial.json", "failure.txt", "config.yaml"}
    record = record_of(study, trial)
    assert (record.status, record.attempts, record.error) == ("failed", 2, "ValueError: no")
    assert reasons(study, trial) == ["failed"]


def test_results_are_those_of_the_files_of_a_run(finished: Path, trial: Any) -> None:
    found = read_results(finished)
    assert not found.problems
    scores = found.scores[found.scores["metric"] == "dice"]
    expected = [score.scores.dice for score in read_cases(results(finished, trial))]
    assert list(scores["value"]) == expected
    by_class = scores.groupby("class_index")["value"].mean()
    assert list(found.generalisation["val_dice"]) == pytest.approx(list(by_class))
