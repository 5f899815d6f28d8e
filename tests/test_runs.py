"""Run directories: weights and descriptions that are not what they say."""

from __future__ import annotations

import json
import os
import random
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from seg.config import DataConfig, ExperimentConfig, NetworkConfig, dump_config, load_config
from seg.config.loading import config_digest
from seg.errors import RunError
from seg.evaluation.scores import EVALUATION_FILE
from seg.files import file_digest
from seg.networks import network_from_config
from seg.runs import (
    CONFIG_FILE,
    LAST_CHECKPOINT,
    METRICS_FILE,
    MODEL_FILE,
    WEIGHTS_FILE,
    Origin,
    TrainedRun,
    check_run,
    fitting_weights,
    load_weights,
    open_run,
    read_config,
    read_history,
    read_origin,
    read_runs,
    save_weights,
    seen_cases,
    trained_steps,
)
from tests.problems import refused

CONFIG = NetworkConfig(channels=(4, 8), strides=((1, 1, 1), (2, 2, 2)), kernel_sizes=((3, 3, 3), (3, 3, 3)))
NAMES = {"channel_names": ["T1"], "class_names": ["background", "tumour"]}


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    save_weights(network_from_config(CONFIG, 1, 2), tmp_path, **NAMES)
    return tmp_path


def run_of(run_dir: Path, classes: tuple[str, ...] = ("background", "tumour")) -> TrainedRun:
    return TrainedRun(path=run_dir, config=ExperimentConfig(network=CONFIG), channel_names=("T1",), class_names=classes)


def kinds(run_dir: Path) -> set[str]:
    with pytest.raises(RunError) as caught:
        run_of(run_dir).network()
    assert all(problem.path.startswith(str(run_dir)) for problem in caught.value.problems if problem.path)
    return {problem.kind for problem in caught.value.problems}


def describe(run_dir: Path, **content: object) -> None:
    (run_dir / MODEL_FILE).write_text(json.dumps({"schema_version": 1, **NAMES, **content}))


def save(run_dir: Path, state: dict[str, object]) -> None:
    torch.save({"schema_version": 1, "network": state, **NAMES}, run_dir / WEIGHTS_FILE)


@pytest.mark.parametrize("described", [False, True], ids=["old run", "digest"])
def test_weights_with_a_flipped_byte_are_never_used(run_dir: Path, described: bool) -> None:
    path = run_dir / WEIGHTS_FILE
    whole, sound = path.read_bytes(), load_weights(run_dir)
    if described:
        describe(run_dir, weights_sha256=file_digest(path).hex())
    rng = random.Random(0)
    refused = 0
    for place in rng.sample(range(len(whole)), 80):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            found = load_weights(run_dir)
        except RunError:
            refused += 1
        else:  # padding between the parts of the file, of which no value depends
            assert not described
            assert found.keys() == sound.keys()
            assert all(torch.equal(found[name], sound[name]) for name in sound)
    assert refused == 80 if described else refused > 40


@pytest.mark.parametrize("length", [0, 1, 100, 0.5, -1, -30, -200])
def test_truncated_weights_are_named(run_dir: Path, length: float) -> None:
    path = run_dir / WEIGHTS_FILE
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * length) if isinstance(length, float) else length])
    assert kinds(run_dir) == {"damaged"}


def test_a_small_file_that_claims_large_tensors_is_refused(run_dir: Path) -> None:
    state = load_weights(run_dir)
    name = next(iter(state))
    save(run_dir, {**state, name: torch.zeros(1).expand(1 << 40)})  # 4 TiB if a value were touched
    assert kinds(run_dir) == {"weights"}
    shared = torch.zeros(64)
    save(run_dir, {**state, **{str(number): shared[:] for number in range(1000)}})
    assert kinds(run_dir) == {"weights"}


def test_a_compressed_archive_is_refused(run_dir: Path) -> None:
    path = run_dir / WEIGHTS_FILE
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: archive.read(member) for member in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert kinds(run_dir) == {"damaged"}


def test_weights_of_another_type_shape_or_layout_are_refused(run_dir: Path) -> None:
    state = load_weights(run_dir)
    name = next(iter(state))
    for other, kind in (
        (state[name].double(), "network"),
        (state[name][:1].clone(), "network"),
        (state[name].to_sparse(), "weights"),
        (torch.full_like(state[name], torch.nan), "finite"),
    ):
        save(run_dir, {**state, name: other})
        assert kinds(run_dir) == {kind}
    save(run_dir, {other: value for other, value in state.items() if other != name})
    assert kinds(run_dir) == {"network"}


def test_weights_of_another_task_are_refused(run_dir: Path) -> None:
    names = ("background", "kidney")
    with refused((str(run_dir / WEIGHTS_FILE), "class_names", str(["background", "tumour"]))):
        run_of(run_dir, names).network()


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("executed",)


def test_nothing_in_a_file_of_weights_is_run(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run_dir)
    save(run_dir, {"a": Evil()})
    assert kinds(run_dir) == {"weights"}
    assert not (run_dir / "executed").exists()


@pytest.mark.parametrize("names", [None, [1, 2], 5, [["a"]]])
def test_weights_without_names_of_classes_are_refused(run_dir: Path, names: object) -> None:
    path = run_dir / WEIGHTS_FILE
    content = torch.load(path, weights_only=True) | {"class_names": names}
    if names is None:
        del content["class_names"]
    torch.save(content, path)
    assert kinds(run_dir) == {"weights"}


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ({"channel_names": []}, "channel_names"),
        ({"class_names": ["background"]}, "class_names"),
        ({"class_names": ["a", "a"]}, "class_names"),
        ({"class_names": "ab"}, "class_names"),
        ({"class_names": ["a", 5]}, "class_names[1]"),
        ({"weights_sha256": 5}, "weights_sha256"),
    ],
)
def test_a_description_that_breaks_its_schema_is_named(run_dir: Path, content: dict[str, object], place: str) -> None:
    describe(run_dir, **content)
    with pytest.raises(RunError) as caught:
        load_weights(run_dir)
    assert f"{run_dir / MODEL_FILE}: {place}" in [problem.path for problem in caught.value.problems]


def test_a_configuration_that_lost_its_end_is_blamed_itself(run_dir: Path) -> None:
    path = run_dir / CONFIG_FILE
    text = dump_config(replace(ExperimentConfig(), network=CONFIG, data=DataConfig(cache="none")))
    path.write_text(text)
    describe(run_dir, config_sha256=config_digest(path.read_text()))
    (whole,) = read_runs([run_dir])
    path.write_text(
        "# moved\n" + text.replace("root: data/phantom", "root: elsewhere").replace("cache: none", "cache: disk")
    )
    (moved,) = read_runs([run_dir])
    assert moved.config.data.root == "elsewhere"
    assert moved.config.network == whole.config.network == CONFIG
    for section in ("network", "loss", "inference", "postprocessing", "evaluation"):
        path.write_text(text[: text.index(f"\n{section}:") + 1])
        with pytest.raises(RunError) as caught:
            read_runs([run_dir])
        assert [(found.path, found.kind) for found in caught.value.problems] == [(f"{path}: SHA-256", "digest")]
    describe(run_dir)  # as earlier versions did
    assert read_runs([run_dir])[0].config.evaluation == whole.config.evaluation


def test_a_configuration_edited_while_the_run_was_stopped_is_refused(tmp_path: Path) -> None:
    origin = Origin(computed_with={}, data={})
    open_run(ExperimentConfig(), tmp_path, origin)
    assert read_config(tmp_path) == ExperimentConfig()
    path = tmp_path / CONFIG_FILE
    text = path.read_text()
    path.write_text(text.replace("root: data/phantom", "root: elsewhere"))
    assert read_config(tmp_path).data.root == "elsewhere"
    edited = text.replace("\nseed: 0", "\nseed: 1")
    assert edited != text
    path.write_text(edited)
    with pytest.raises(RunError) as caught:
        check_run(load_config([path]), tmp_path, origin, resume=True)
    assert [(one.path, one.kind) for one in caught.value.problems] == [(f"{path}: SHA-256", "digest")]


@pytest.mark.parametrize(("fold", "files"), [(0, (LAST_CHECKPOINT, EVALUATION_FILE)), (None, (LAST_CHECKPOINT,))])
def test_weights_without_the_state_of_their_training_are_not_trained_anew(
    tmp_path: Path, fold: int | None, files: tuple[str, ...]
) -> None:
    config, origin = ExperimentConfig(fold=fold), Origin(computed_with={}, data={})
    open_run(config, tmp_path, origin)
    check_run(config, tmp_path, origin, resume=True)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / WEIGHTS_FILE).touch()
    with pytest.raises(RunError) as caught:
        check_run(config, tmp_path, origin, resume=True)
    assert [one.kind for one in caught.value.problems] == ["resume"]
    for name in files:  # a run that was stopped, and one that is finished
        (tmp_path / name).touch()
        check_run(config, tmp_path, origin, resume=True)
        (tmp_path / name).unlink()


def test_the_history_of_a_run_is_checked(tmp_path: Path) -> None:
    path = tmp_path / METRICS_FILE
    assert trained_steps(tmp_path) is None
    path.write_text("step,seconds,val_dice,later\n250,1.5,0.25,\n500,3,nan,7\n")
    assert repr(read_history(tmp_path)) == repr(
        [
            {"step": 250.0, "seconds": 1.5, "val_dice": 0.25, "later": float("nan")},
            {"step": 500.0, "seconds": 3.0, "val_dice": float("nan"), "later": 7.0},
        ]
    )
    assert trained_steps(tmp_path) == 500
    for text in (
        "",
        "step,seconds\n",
        "steps\n5\n",
        "step\nmany\n",
        f"step\n{'9' * 400}\n",
        "step\n-1\n",
        "step\n5,6\n",
        "step,a\n5,b\n",
    ):
        path.write_text(text)
        with pytest.raises(RunError) as caught:
            trained_steps(tmp_path)
        assert all(problem.path.startswith(str(path)) for problem in caught.value.problems)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"data": []},
        {"data": {"a": 5}},
        {"data": {}, "initial_weights": 5},
        {"data": {}, "split": {"train": ["a"]}},
        {"data": {}, "split": {"train": "a", "validation": 3}},
    ],
)
def test_a_record_of_the_beginning_that_breaks_its_schema_is_named(tmp_path: Path, content: dict[str, object]) -> None:
    path = tmp_path / "environment.json"
    path.write_text(json.dumps({"schema_version": 1, **content}))
    with pytest.raises(RunError) as caught:
        read_origin(tmp_path)
    assert all(problem.path.startswith(f"{path}: ") for problem in caught.value.problems)


def test_the_record_of_the_beginning_keeps_what_computed(tmp_path: Path) -> None:
    content = {"data": {"a": "0f"}, "threads": 2, "split": {"train": ["a"], "validation": ["b"]}}
    (tmp_path / "environment.json").write_text(json.dumps({"schema_version": 1, **content}))
    origin = read_origin(tmp_path)
    assert origin is not None
    assert (origin.computed_with, origin.data, origin.initial_weights) == ({"threads": 2}, {"a": "0f"}, None)
    assert origin.split is not None
    assert (origin.split.train, origin.split.validation) == (("a",), ("b",))
    assert replace(origin, split=None) != origin


def test_weights_know_the_cases_that_they_and_their_ancestors_were_trained_on(tmp_path: Path) -> None:
    assert seen_cases(tmp_path) is None
    content: dict[str, object] = {"schema_version": 1, "data": {"a": "0f", "b": "1f"}}
    for more, expected in (
        ({}, None),
        ({"split": {"train": ["a"], "validation": ["b"]}}, {"a": "0f"}),
        ({"split": {"train": ["a"], "validation": ["b"]}, "seen": {"z": "2f"}}, {"a": "0f", "z": "2f"}),
    ):
        (tmp_path / "environment.json").write_text(json.dumps(content | more))
        assert seen_cases(tmp_path) == expected


@pytest.mark.parametrize(
    ("channels", "classes", "found"),
    [
        ((4, 8), ["background", "tumour"], set()),
        ((4, 8), ["background", "kidney"], {"classes"}),
        ((8, 16), ["background", "tumour"], {"network"}),  # biases alone might fit
        ((8, 16), ["background", "kidney"], {"network", "classes"}),
    ],
)
def test_initial_weights_of_another_network_or_task_are_refused(
    run_dir: Path, channels: tuple[int, ...], classes: list[str], found: set[str]
) -> None:
    network = network_from_config(replace(CONFIG, channels=channels), 1, 2)
    if not found:
        assert fitting_weights(network, run_dir, classes).keys() == network.state_dict().keys()
        return
    with pytest.raises(RunError) as caught:
        fitting_weights(network, run_dir, classes)
    assert {problem.kind for problem in caught.value.problems} == found


def test_runs_of_other_label_values_are_told_apart_by_the_values(tmp_path: Path) -> None:
    folders = [tmp_path / "numbers", tmp_path / "others"]
    for folder, values in zip(folders, ([0, 1], [0, 7]), strict=True):
        save_weights(network_from_config(CONFIG, 1, 2), folder, **NAMES)
        (folder / CONFIG_FILE).write_text(dump_config(ExperimentConfig(network=CONFIG)))
        describe(folder, label_values=[[value] for value in values])
    with pytest.raises(RunError) as caught:
        read_runs(folders)
    (problem,) = caught.value.problems
    assert (problem.kind, problem.value) == ("average", "0, 7")
    assert "0, 1" in problem.rule
