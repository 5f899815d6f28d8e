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

from seg.ablation import begun, fingerprint
from seg.ablation import trial as module
from seg.ablation.fingerprint import Fingerprint
from seg.ablation.records import read_record, records_dir
from seg.ablation.trial import Places, record_failure, run_trial
from seg.config import ExperimentConfig
from seg.data.splits import spread_over
from seg.errors import RunError
from seg.evaluation.scores import read_cases
from seg.workflows.train import train
from tests.ablation.trials import FakeTrial

OTHER = "0" * 64


def places_in(folder: Path, **values: Any) -> Places:
    return Places(study_dir=folder, runs_dir=folder / "runs", **values)


@pytest.fixture(scope="module")
def finished(experiment: ExperimentConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study directory with one finished trial."""
    folder = tmp_path_factory.mktemp("study")
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
    folder = records_dir(finished, trial.id)
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
    assert (content["attempts"], content["error"], content["changes"]) == (1, None, {})
    assert content["fingerprint"] == vars(fingerprint.fingerprint(trial.config))
    assert all(0 < content[name] < 100 for name in ("seconds", "measuring_seconds"))
    assert 50 < content["peak_memory_mib"] < 10_000
    assert content["threads"] == torch.get_num_threads()


def test_records_name_no_folder_of_this_machine(finished: Path, trial: Any, boxes: Path) -> None:
    text = (records_dir(finished, trial.id) / "config.yaml").read_text()
    assert "root: boxes\n" in text
    assert str(boxes.parent) not in text


def test_generalisation_compares_equal_numbers_of_cases(finished: Path, trial: Any) -> None:
    content = json.loads((records_dir(finished, trial.id) / "generalisation.json").read_text())
    scores = read_cases(records_dir(finished, trial.id))
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
    dataset, split = module._read_fold(trial.config, run_dir)
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
    before = read_record(records_dir(study, trial.id))
    run_trial(trial, places_in(study))
    assert read_record(records_dir(study, trial.id)) == before


def test_lost_records_are_made_again_without_training(study: Path, trial: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_record(records_dir(study, trial.id))
    assert before is not None
    shutil.rmtree(study / "trials")
    forbid_training(monkeypatch)
    run_trial(trial, places_in(study), attempt=2)
    assert read_record(records_dir(study, trial.id)) == replace(before, attempts=2)


def test_a_run_made_by_hand_is_taken_over(trial: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = places_in(tmp_path)
    train(replace(trial.config, name="by_hand"), run_dir=places.run_dir(trial), folds=[0])
    forbid_training(monkeypatch)
    run_trial(trial, places)
    record = read_record(records_dir(tmp_path, trial.id))
    assert record is not None
    assert record.fingerprint.code == "unknown"
    assert record.fingerprint.config == fingerprint.config_digest(trial.config)
    assert record.peak_memory_mib is None
    assert "taken over as it is; which code made it is not known" in places.log(trial).read_text()
    assert places.accepts(places.against(trial, fingerprint.fingerprint(trial.config)))


def test_other_code_makes_a_trial_anew_unless_any_will_do(
    study: Path, trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_code(config: ExperimentConfig) -> Fingerprint:
        return replace(fingerprint.fingerprint(config), code=OTHER)

    monkeypatch.setattr(module, "fingerprint", other_code)
    weights_before = (study / "runs/baseline/fold_0_seed_0/checkpoints/weights.pt").stat().st_mtime_ns
    former = study / "runs/baseline/fold_0_seed_0.former"
    lenient = places_in(study, reuse="any_code")
    run_trial(trial, lenient)
    record = read_record(records_dir(study, trial.id))
    assert record is not None
    assert record.fingerprint.code != OTHER
    strict = places_in(study)
    # Killed while it is made anew, a trial has its former run and record still.
    with monkeypatch.context() as patch:
        patch.setattr(module, "_train", lambda *_: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception, match="killed"):
            run_trial(trial, strict)
    assert (former / "checkpoints/weights.pt").stat().st_mtime_ns == weights_before
    assert record_failure(trial, strict, other_code(trial.config), attempts=1, traceback="an error") == "an error"
    assert (found := read_record(records_dir(study, trial.id))) is not None
    assert (found.status, found.fingerprint.code) == ("finished", record.fingerprint.code)
    run_trial(trial, strict)
    assert not former.exists()
    record = read_record(records_dir(study, trial.id))
    assert record is not None
    assert record.fingerprint.code == OTHER
    assert (study / "runs/baseline/fold_0_seed_0/checkpoints/weights.pt").stat().st_mtime_ns > weights_before
    assert "begun by other training code; made anew (reuse: same_code)" in strict.log(trial).read_text()


def test_another_configuration_is_refused_by_name(study: Path, trial: Any) -> None:
    changed = replace(trial, config=replace(trial.config, training=replace(trial.config.training, steps=4)))
    places = places_in(study)
    assert places.against(changed, fingerprint.fingerprint(changed.config)) == ["training.steps"]
    with pytest.raises(RunError) as error:
        run_trial(changed, places)
    assert str(error.value) == (
        f"{places.run_dir(trial)}: a trial must have the configuration that its run directory began with, got other "
        "values of training.steps; restore them, choose another --ablation_dir, or remove the folder."
    )


def test_other_data_are_refused_by_case(study: Path, trial: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = dict(fingerprint.case_digests(trial.config)) | {"case_3": OTHER}
    monkeypatch.setattr(begun, "case_digests", lambda config: digests)
    places = places_in(study)
    with pytest.raises(RunError) as error:
        begun.check_begun(trial.config, places.run_dir(trial))
    assert str(error.value) == (
        f"{places.run_dir(trial)}: a trial must have the data that its run directory began with, got other files of "
        "cases case_3; restore them, choose another --ablation_dir, or remove the folder."
    )


def test_fields_that_were_added_later_do_not_void_a_record(study: Path, trial: Any) -> None:
    """An older record lacks them and has another digest; its fields say that it is the same."""
    folder = records_dir(study, trial.id)
    config = folder / "config.yaml"
    config.write_text("".join(line for line in config.read_text().splitlines(True) if "whole_up_to" not in line))
    content = json.loads((folder / "trial.json").read_text())
    content["fingerprint"]["config"] = OTHER
    (folder / "trial.json").write_text(json.dumps(content))
    assert places_in(study).against(trial, fingerprint.fingerprint(trial.config)) == []


def test_a_failure_is_recorded_and_does_not_count_as_done(study: Path, trial: Any) -> None:
    own = fingerprint.fingerprint(trial.config)
    shutil.rmtree(records_dir(study, trial.id))
    record_failure(trial, places_in(study), own, attempts=2, traceback="Traceback:\n  line\nValueError: no\n")
    folder = records_dir(study, trial.id)
    assert {path.name for path in folder.iterdir()} == {"trial.json", "failure.txt", "config.yaml"}
    record = read_record(folder)
    assert record is not None
    assert (record.status, record.attempts, record.error) == ("failed", 2, "ValueError: no")
    assert places_in(study).against(trial, own) == ["failed"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"schema_version": 9}',
            "{0}/trial.json: schema version must be at most 1, got 9; it was written by a newer release, update seg.",
        ),
        (
            "{",
            "{0}/trial.json: must be the whole record of a trial, got JSONDecodeError (Expecting property "
            "name enclosed in double quotes: line 1 column 2 (char 1)); restore it, or remove {0} to run the trial "
            "again.",
        ),
    ],
)
def test_a_record_that_cannot_be_read_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "trial.json").write_text(text)
    with pytest.raises(RunError) as error:
        read_record(tmp_path)
    assert str(error.value) == message.replace("{0}", str(tmp_path))
