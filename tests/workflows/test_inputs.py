"""What a run reads before it trains."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from seg.config import DataConfig, ExperimentConfig, TrainingConfig
from seg.data.cases import Case, Dataset
from seg.data.splits import Split
from seg.errors import DataError
from seg.runs import Origin
from seg.workflows.inputs import check_seen, read_splits, seen_among


def manifest(root: Path, count: int) -> None:
    names = [f"c{index}" for index in range(count)]
    (root / "manifest.json").write_text(
        '{"labels": {"background": 0, "a": 1}, "channel_names": ["x"], "cases": ['
        + ", ".join(f'{{"id": "{name}", "image": "{name}.nii", "label": "{name}_l.nii"}}' for name in names)
        + "]}"
    )


def test_the_seed_of_training_leaves_the_folds_alone(tmp_path: Path) -> None:
    manifest(tmp_path, 20)
    first, second, other = (
        read_splits(ExperimentConfig(seed=seed, data=DataConfig(root=str(tmp_path), split_seed=split_seed)), [])
        for seed, split_seed in ((0, 0), (1, 0), (0, 1))
    )
    assert first == second
    assert first != other


def test_fewer_training_cases_are_chosen_among_those_that_can_be_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest(tmp_path, 20)
    data = DataConfig(root=str(tmp_path), train_cases=6)
    whole = read_splits(ExperimentConfig(data=DataConfig(root=str(tmp_path))), [])
    chosen = read_splits(ExperimentConfig(data=data), [])
    gone = chosen[0].train[0]
    with caplog.at_level("INFO", "seg"):
        without = read_splits(ExperimentConfig(data=data), [gone])
    assert [len(split.train) for split in without] == [6] * 5
    assert set(chosen[0].train) - set(without[0].train) == {gone}
    assert [split.validation for split in chosen] == [split.validation for split in whole]
    assert caplog.messages == []


def test_a_training_side_that_whole_patients_do_not_fill_is_announced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest(tmp_path, 20)
    data = DataConfig(root=str(tmp_path), train_cases=5, patient_pattern=r"c(\d)", folds=2)
    with caplog.at_level("INFO", "seg"):
        splits = read_splits(ExperimentConfig(data=data), [])
    short = [fold for fold, split in enumerate(splits) if len(split.train) < 5]
    assert short
    assert [record.args for record in caplog.records] == [(fold, len(splits[fold].train)) for fold in short]


CASES = (Case(id="a", images=()), Case(id="b1", images=(), patient="b"), Case(id="b2", images=(), patient="b"))
FILES = {"a": "00", "b1": "11", "b2": "22"}


@pytest.mark.parametrize(
    ("seen", "found"),
    [
        ({}, ()),
        ({"other": "33"}, ()),
        ({"a": "00"}, ("a",)),
        ({"a": "99"}, ("a",)),  # the same case with a corrected label
        ({"renamed": "00"}, ("a",)),
        ({"b1": "11"}, ("b2",)),  # the other case of a patient
    ],
)
def test_cases_that_initial_weights_saw_are_found_by_id_files_and_patient(
    seen: dict[str, str], found: tuple[str, ...]
) -> None:
    assert seen_among(["a", "b2"], CASES, FILES, seen) == found


def test_seen_cases_are_refused_as_held_out_unless_they_are_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    config = ExperimentConfig()
    names = ("background", "x")
    dataset = Dataset(
        name="d",
        root=Path(),
        layout="msd",
        cases=CASES,
        class_names=names,
        channel_names=("x",),
        ignore_label=None,
        licence="CC0",
    )
    origin = Origin(computed_with={}, data=FILES, seen={"a": "00"})
    splits = [Split(train=("b1", "b2"), validation=("a",)), Split(train=("a",), validation=("b1", "b2"))]
    check_seen(config, splits, [1], dataset, origin)
    with pytest.raises(DataError) as caught:
        check_seen(config, splits, [0, 1], dataset, origin)
    (problem,) = caught.value.problems
    assert (problem.path, problem.kind, problem.value) == ("fold 0", "seen", "a")
    assert caplog.messages == []
    check_seen(replace(config, training=TrainingConfig(score_seen=True)), splits, [0], dataset, origin)
    assert len(caplog.messages) == 1
