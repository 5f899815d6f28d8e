"""A study's file: what it may hold, and every fault of it in one pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from seg.cli import read_study_config
from seg.config import AxisConfig, PointConfig, SlurmConfig, StudyConfig

STUDY = """
name: widths
base: base.yaml
set: {training.steps: 10}
baseline: {name: full, set: {network.skip_bottleneck: null}}
design: sweep
axes:
  - {path: network.skip_bottleneck.ratio, label: skip, values: [0.5, 2]}
points:
  - name: add
    set: {network.merge: add}
seeds: [0, 1]
launch:
  backend: slurm
  slurm: {partition: gpu}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY)
    return path


def test_every_part_arrives(file: Path) -> None:
    study, problems = read_study_config(file, {})
    assert problems == []
    assert study is not None
    assert (study.name, study.base, study.set) == ("widths", "base.yaml", {"training.steps": 10})
    assert study.baseline == PointConfig(name="full", set={"network.skip_bottleneck": None})
    assert study.axes == (AxisConfig(path="network.skip_bottleneck.ratio", label="skip", values=(0.5, 2)),)
    assert study.points == (PointConfig(name="add", set={"network.merge": "add"}),)
    assert (study.folds, study.seeds) == (StudyConfig(name="x", base="y").folds, (0, 1))
    assert study.launch.backend == "slurm"
    assert study.launch.slurm == SlurmConfig(partition="gpu")


def test_overrides_go_over_the_file(file: Path) -> None:
    given = {"seeds": "[7]", "launch.backend": "ray", "launch.slurm.partition": "null", "launch.workers": "2"}
    study, problems = read_study_config(file, {**given, "set.training.steps": "20", "set.data.root": "x/y"})
    assert problems == []
    assert study is not None
    assert study.seeds == (7,)
    assert (study.launch.backend, study.launch.workers, study.launch.slurm.partition) == ("ray", 2, None)
    assert study.set == {"training.steps": 20, "data.root": "x/y"}


def test_faults_are_named_by_dotted_path(file: Path) -> None:
    file.write_text(
        "nam: widths\nset: 3\ndesign: grid\nmargin: 2\nseeds: [a]\nlaunch: {backend: local, slurm: 1, worker: 2}\n"
        "axes: [{path: a}, 5]\npoints: {a: b}\n"
    )
    study, problems = read_study_config(file, {"seed": "1", "launch.retries": "x"})
    assert study is None
    assert problems == [
        "unknown field seed; did you mean seeds?",
        "launch.retries must be an integer, got 'x'.",
        "unknown field nam; did you mean name?",
        "name must be given, got none.",
        "base must be given, got none.",
        "set must give values by dotted path, as in training.steps: 700, got 3.",
        "design must be one of product, sweep, list, got 'grid'.",
        "axes[0].values must be given, got none.",
        "axes[0].label must be given, got none.",
        "axes[1] must be a group of fields, got 5.",
        "points must be a list, got {'a': 'b'}.",
        "seeds must be a list of integers, got ['a'].",
        "unknown field launch.worker; did you mean launch.workers?",
        "launch.backend must be one of process, workers, slurm, ray, got 'local'.",
        "launch.slurm must be a group of fields, got 1.",
    ]


def test_rules_are_judged_beside_faults_but_not_on_what_could_not_be_read(file: Path) -> None:
    file.write_text(
        "name: widths\nbase: b\nmargin: 2\ndesign: product\naxes: [{path: a, label: x}]\nspeed: {rounds: 1}\n"
    )
    study, problems = read_study_config(file, {})
    assert study is not None
    assert problems == [
        "axes[0].values must be given, got none.",
        "margin must be in (0, 1), a difference of Dice, got 2.",
        "speed.rounds must be >= 3, got 1; a spread needs as many.",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [", "must be valid YAML; line 1, column 5: expected the node content, but found '<stream end>'."),
        ("- a\n", "must hold the fields of a study and their values, got ['a']."),
        ("", "must hold the fields of a study and their values, got null."),
        (
            "schema_version: 9\n",
            "was written by a newer version of seg: schema_version must be at most 1, got 9; update seg.",
        ),
        ("name: a\nname: b\n", "must be valid YAML; line 2, column 1: name is given twice."),
    ],
)
def test_a_file_that_is_no_study(file: Path, text: str, problem: str) -> None:
    file.write_text(text)
    assert read_study_config(file, {}) == (None, [f"{file}: {problem}"])


def test_an_absent_file(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"
    assert read_study_config(path, {})[1] == [f"{path}: must be a readable file, got 'No such file or directory'."]
