"""From files and values by dotted path to a configuration, with all problems at once."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from seg.config import BottleneckConfig, CtConfig, ExperimentConfig, NetworkConfig, load_config, load_study
from seg.config.loading import find_config
from seg.errors import ConfigError, Problem

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Gives a function that writes YAML text to a new file."""

    def write_text(text: str) -> Path:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_text


def problems_of(*files: Path, **overrides: object) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        load_config(files, {path.replace("__", "."): value for path, value in overrides.items()})
    return caught.value.problems


def places(problems: tuple[Problem, ...]) -> list[tuple[str, str, str]]:
    return [(problem.path, problem.kind, problem.value) for problem in problems]


def test_values_take_the_types_of_their_fields(write: Write) -> None:
    config = load_config(
        [
            write(
                "name: '5'\nloss: {smooth: 1}\npatches: {size: [16, 16, 16]}\n"
                "network: {skip_bottleneck: {ratio: [1, 0.5, 0.25]}}\ntraining: {progress: false}"
            )
        ]
    )
    assert (config.name, config.loss.smooth, config.patches.size) == ("5", 1.0, (16, 16, 16))
    assert isinstance(config.loss.smooth, float)
    assert config.network.skip_bottleneck == BottleneckConfig(ratio=(1.0, 0.5, 0.25))
    assert not config.training.progress


def test_without_files_there_are_the_defaults() -> None:
    assert load_config([]) == ExperimentConfig()


@pytest.mark.parametrize("text", ["", "null", "# nothing\n"])
def test_a_file_that_gives_nothing_is_refused(write: Write, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config([write("seed: 1"), file := write(text)])
    assert [(one.path, one.kind, one.value) for one in caught.value.problems] == [(str(file), "type", "null")]


def test_changed_sections_are_checked_too() -> None:
    assert dataclasses.replace(NetworkConfig(), merge="add").merge == "add"
    with pytest.raises(ValidationError):
        dataclasses.replace(NetworkConfig(), channels=(0,))
    with pytest.raises(ValidationError):
        NetworkConfig(chanels=(1,))  # type: ignore[call-arg]


def test_all_problems_of_a_file_are_reported(write: Write) -> None:
    found = problems_of(
        write("network: {chanels: [1], skip_bottleneck: {ratio: 0}}\npatches: {batch: two}\ntraining: {lr: 1}")
    )
    assert sorted(places(found)) == [
        ("network.chanels", "unknown", ""),
        ("network.skip_bottleneck.ratio", "range", "0"),
        ("patches.batch", "type", "'two'"),
        ("training.lr", "unknown", ""),
    ]
    remedies = {problem.path: problem.remedy for problem in found}
    assert remedies["network.chanels"] == "did you mean network.channels?"
    assert "validate_every" in remedies["training.lr"]


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("training.learning_rate", "optimizer.learning_rate"),  # of another section
        ("netwrk.skip_bottleneck.ratio", "network.skip_bottleneck.ratio"),  # of two ratios
        ("netwrk", "network"),
        ("training.stop", "training.steps"),  # a guess, by which no rule is left out
        ("completely_other", None),
    ],
)
def test_an_unknown_field_is_answered_with_the_closest_field(path: str, meant: str | None) -> None:
    (problem,) = problems_of(**{path.replace(".", "__"): "1"})
    assert (problem.path, problem.kind) == (path, "unknown")
    assert problem.remedy == ("see --help" if meant is None else f"did you mean {meant}?")


def test_a_guess_at_a_field_leaves_its_rules_in_force(write: Write) -> None:
    found = problems_of(write("training: {stop: 3, steps: -5}"))
    assert {problem.path for problem in found} == {"training.stop", "training.steps"}


def test_mistakes_of_several_files_and_overrides_are_reported_together(write: Write) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(
            [write("sed: 3"), write("fold: [1]"), Path("absent.yaml")],
            {"loss.smooth": "0", "training.epochs": "5", "seed": "[", "name": "\ud800"},
        )
    assert sorted(places(caught.value.problems)) == [
        ("absent.yaml", "missing", "'No such file or directory'"),
        ("fold", "type", "[1]"),
        ("loss.smooth", "range", "0"),
        ("name", "yaml", "'\\ud800'"),
        ("sed", "unknown", ""),
        ("seed", "yaml", "'['"),
        ("training.epochs", "unknown", ""),
    ]


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("seed: 1.5", "seed", "1.5"),
        ("seed: true", "seed", "true"),
        ("seed: null", "seed", "null"),
        ("seed: '3'", "seed", "'3'"),
        ("name: 5", "name", "5"),
        ("loss: {smooth: true}", "loss.smooth", "true"),
        ("loss: {batch_dice: 1}", "loss.batch_dice", "1"),
        ("loss: {batch_dice: yes}", "loss.batch_dice", "'yes'"),
        ("data: {cache: disc}", "data.cache", "'disc'"),
        ("training: {early_stop: often}", "training.early_stop", "'often'"),
        ("patches: {size: [8, 8]}", "patches.size", "[8, 8]"),
        ("patches: {size: 8}", "patches.size", "8"),
        ("patches: {size: [8, 0, x]}", "patches.size", "[8, 0, 'x']"),
        ("network: {channels: [8, null]}", "network.channels", "[8, None]"),
        ("network: {strides: [1, 2]}", "network.strides", "[1, 2]"),
        ("network: {skip_bottleneck: {ratio: half}}", "network.skip_bottleneck.ratio", "'half'"),
        ("network: {skip_bottleneck: 0.5}", "network.skip_bottleneck", "0.5"),
        ("training: null", "training", "null"),
        ("data: {normalization: [hu]}", "data.normalization", "['hu']"),
    ],
)
def test_a_wrong_value_is_named(write: Write, text: str, path: str, value: str) -> None:
    assert places(problems_of(write(text))) == [(path, "type", value)]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("seed", "must be an integer"),
        ("training.early_stop", "must be an integer or null"),
        ("patches.size", "must be a list of 3 integers"),
        ("network.strides", "must be a list of lists of 3 integers"),
        ("network.skip_bottleneck.ratio", "must be a number or a list of numbers"),
        ("network.skip_bottleneck", "must be a group of fields or null"),
        ("data.cache", "must be one of auto, memory, disk, none"),
        ("data.normalization", "must be a list of values of zscore, ct, none"),
    ],
)
def test_a_type_is_said_in_words(path: str, words: str) -> None:
    assert problems_of(**{path.replace(".", "__"): "{a b"})[0].kind in ("yaml", "type")
    (problem,) = problems_of(**{path.replace(".", "__"): [[["x"]]]})
    assert problem.rule == words


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("- 1", "type"),
        ("seed: 1\nseed: 2", "yaml"),
        ("schema_version: 2\nnew_field: 1", "version"),
        ("data.root: x", "unknown"),
        ("1: 2", "unknown"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(write: Write, text: str, kind: str) -> None:
    (problem,) = problems_of(write(text))
    assert problem.kind == kind


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    image = tmp_path / "image.yaml"
    image.write_bytes(b"\xff\xd8\xff")
    os.mkfifo(tmp_path / "pipe")
    long, nul = tmp_path / ("x" * 300), Path("a\0b")
    for file, kind in ((image, "yaml"), (tmp_path, "file"), (tmp_path / "pipe", "file"), (long, "name"), (nul, "name")):
        (problem,) = problems_of(file)
        assert (problem.path, problem.kind) == (str(file) if file != nul else repr(str(nul)), kind)


def test_later_files_overlay_earlier_ones_field_by_field(write: Write) -> None:
    base = write("training: {steps: 1000, ema_decay: 0.5}\nnetwork: {channels: [8, 16, 32, 64]}")
    config = load_config([base, write("training: {steps: 400}")], {"training.ema_decay": "0.25"})
    assert (config.training.steps, config.training.ema_decay) == (400, 0.25)
    assert config.network.channels == (8, 16, 32, 64)


def test_an_overlay_removes_an_optional_section_and_brings_it_back(write: Write) -> None:
    base = write("network: {skip_bottleneck: {ratio: 0.5, norm: true}}")
    nothing = write("network: {skip_bottleneck: null}")
    again = write("network: {skip_bottleneck: {activation: relu}}")
    empty = write("network: {skip_bottleneck: {}}")
    assert load_config([base, nothing]).network.skip_bottleneck is None
    added = load_config([base, again]).network.skip_bottleneck
    assert added == BottleneckConfig(ratio=0.5, norm=True, activation="relu")
    assert load_config([base, nothing, again]).network.skip_bottleneck == BottleneckConfig(activation="relu")
    assert load_config([nothing, empty]).network.skip_bottleneck == BottleneckConfig()


def test_an_override_makes_or_clears_an_optional_section(write: Write) -> None:
    base = write("network: {skip_bottleneck: {ratio: 0.5}}")

    def skip(files: list[Path], values: dict[str, object]) -> BottleneckConfig | None:
        return load_config(files, values).network.skip_bottleneck

    assert skip([], {"network.skip_bottleneck.ratio": "0.125"}) == BottleneckConfig(ratio=0.125)
    assert skip([base], {"network.skip_bottleneck": "null"}) is None
    assert skip([base], {"network.skip_bottleneck": None}) is None
    assert skip([base], {"network.skip_bottleneck": "{norm: true}"}) == BottleneckConfig(ratio=0.5, norm=True)
    both = {"network.skip_bottleneck": None, "network.skip_bottleneck.norm": True}
    assert skip([base], both) == BottleneckConfig(norm=True)


def test_overrides_are_texts_or_values() -> None:
    texts = load_config([], {"patches.size": "[16, 32, 24]", "training.early_stop": "null", "name": "5"})
    values = load_config([], {"patches.size": (16, 32, 24), "training.early_stop": None, "name": "5"})
    assert texts == values
    assert texts.patches.size == (16, 32, 24)


def test_a_problem_names_the_file_that_gives_the_field(write: Write) -> None:
    one, two = write("training: {steps: 0}\nseed: 1"), write("training: {steps: 5}\nsed: 1")
    (problem,) = problems_of(one)
    assert (problem.path, problem.file) == ("training.steps", str(one))
    assert str(problem).startswith(f"{one}: training.steps must be ")
    assert [(found.path, found.file) for found in problems_of(write("seed: 0"), two)] == [
        ("sed", str(two)),
        ("optimizer.warmup_steps", ""),  # rules between fields, whose fault may lie in either file
        ("training.steps", ""),
    ]
    (problem,) = problems_of(one, training__steps="-3")
    assert (problem.value, problem.file) == ("-3", "")


def test_a_study_is_no_experiment(write: Write) -> None:
    study = write("name: a\nbase: b.yaml\npoints: [{name: c, set: {seed: 1}}]\nseeds: [0, 1]\nfoldz: [0]")
    (problem,) = problems_of(study)
    assert (problem.path, problem.kind, "seg ablate" in problem.remedy) == (str(study), "kind", True)
    experiment = write("name: a\nseed: 3\ntraining: {steps: 100}")
    made, (problem,) = load_study(experiment, {})
    assert (made, problem.kind, "seg train" in problem.remedy) == (None, "kind", True)


def test_fields_without_default_must_be_given(write: Write) -> None:
    window = "{lower: [-100], upper: [300], mean: [40], std: [80]}"
    config = load_config([write(f"data: {{normalization: [ct], ct: {window}}}")])
    assert config.data.ct == CtConfig(lower=(-100.0,), upper=(300.0,), mean=(40.0,), std=(80.0,))
    (problem,) = problems_of(write("data: {normalization: [ct], ct: {lower: [0], upper: [1], mean: [0]}}"))
    assert (problem.path, problem.kind) == ("data.ct.std", "missing")
    assert "data.ct to null" in problem.remedy


def test_a_rule_is_not_judged_by_a_value_that_could_not_be_read(write: Write) -> None:
    # Three stages in two lists; by the default channels, of four stages, both would be wrong.
    stages = "strides: [[1,1,1],[2,2,2],[2,2,2]], kernel_sizes: [[3,3,3],[3,3,3],[3,3,3]]"
    (bad,) = problems_of(write(f"network: {{channels: [8, 16, x], {stages}}}"))
    assert (bad.path, bad.kind) == ("network.channels", "type")
    (misspelt,) = problems_of(write(f"network: {{chanels: [8, 16, 32], {stages}}}"))
    assert (misspelt.path, misspelt.kind) == ("network.chanels", "unknown")


def test_fields_that_older_files_have_are_ignored_with_one_notice(
    write: Write, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seg.config.loading._ANNOUNCED", set())
    old = write("network: {name: unet, merge: add}")
    for _ in range(2):
        assert load_config([old]).network == NetworkConfig(merge="add")
    assert caplog.text.count("network.name") == 1
    assert places(problems_of(network__name="unet")) == [("network.name", "unknown", "")]


PATHS = "data: {root: scans, splits: ../folds.json, cache_dir: /var/cache}\ntraining: {init_from: run, runs_dir: out}\n"


def paths_of(config: ExperimentConfig) -> tuple[str | None, ...]:
    training = config.training
    return config.data.root, config.data.splits, config.data.cache_dir, training.init_from, training.runs_dir


def test_relative_paths_start_from_the_file_that_gives_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
    (tmp_path / "one" / "my.yaml").write_text(PATHS)
    (tmp_path / "other" / "my.yaml").write_text("data: {splits: folds.json}")
    (tmp_path / "my.yaml").write_text(PATHS)
    one, other = Path("one/my.yaml"), Path("other/my.yaml")
    assert paths_of(load_config([one])) == ("one/scans", "one/../folds.json", "/var/cache", "one/run", "one/out")
    assert paths_of(load_config([one, other])) == ("one/scans", "other/folds.json", "/var/cache", "one/run", "one/out")
    assert paths_of(load_config([tmp_path / one]))[0] == str(tmp_path / "one" / "scans")
    assert paths_of(load_config([Path("my.yaml")])) == ("scans", "../folds.json", "/var/cache", "run", "out")
    assert load_config([one], {"data.root": "scans"}).data.root == "scans"
    assert load_config([one], {"data": {"root": "scans"}}).data.root == "scans"


def test_relative_paths_of_the_package_and_of_a_run_start_from_where_the_user_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    packaged = find_config(Path("hippocampus"))
    linked = tmp_path / "linked.yaml"
    linked.symlink_to(packaged)
    for file in (packaged, linked, Path(os.path.relpath(packaged))):
        assert load_config([file]).data.root == "data/Task04_Hippocampus"
    run = tmp_path / "runs" / "mine"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(PATHS)
    (run / "environment.json").write_text("{}")
    assert paths_of(load_config([run / "config.yaml"])) == ("scans", "../folds.json", "/var/cache", "run", "out")


def test_a_folder_does_not_hide_the_configuration_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = find_config(Path("acdc"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "acdc").mkdir()
    assert find_config(Path("acdc")) == packaged
    (tmp_path / "own").mkdir()
    with pytest.raises(ConfigError):
        find_config(Path("own"))
    (tmp_path / "brats").write_text("name: mine")
    assert find_config(Path("brats")) == Path("brats")


def test_a_path_that_lies_where_the_user_stands_alone_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scans").mkdir()
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "my.yaml").write_text("data: {root: scans}")
    assert load_config([Path("conf/my.yaml")]).data.root == "conf/scans"
    assert [record.args[2] for record in caplog.records] == ["../scans"]
    (tmp_path / "conf" / "my.yaml").write_text("data: {root: ../scans}")
    assert os.path.samefile(load_config([Path("conf/my.yaml")]).data.root, "scans")
    assert len(caplog.records) == 1


def test_relative_paths_of_a_study_start_from_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "study.yaml").write_text(
        "name: s\nbase: base.yaml\ndesign: sweep\nset: {data.root: scans, data.layout: msd}\n"
        "baseline: {name: b, set: {data: {splits: a.json}}}\n"
        "points: [{name: p, set: {training.init_from: run, network.channels: [2, 4]}}]\n"
        "axes: [{path: training.init_from, label: from, values: [null, run, ~/run]}]\n"
    )
    study, problems = load_study(Path("conf/study.yaml"), {"set.data.cache_dir": "cache"})
    assert study is not None
    assert problems == []
    assert study.base == "base.yaml"
    assert dict(study.set) == {"data.root": "conf/scans", "data.layout": "msd", "data.cache_dir": "cache"}
    assert study.baseline.set["data"] == {"splits": "conf/a.json"}
    assert study.points[0].set == {"training.init_from": "conf/run", "network.channels": [2, 4]}
    assert study.axes[0].values == (None, "conf/run", "~/run")


def test_the_home_folder_is_meant_by_a_tilde_in_every_path(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    file = write("data: {root: ~/scans, splits: ~/splits.json}\ntraining: {init_from: a/~/b}\n")
    config = load_config([file], {"data.cache_dir": "~/cache"})
    data = config.data
    assert (data.root, data.splits, data.cache_dir) == ("/home/me/scans", "/home/me/splits.json", "/home/me/cache")
    assert config.training.init_from == str(file.parent / "a/~/b")
