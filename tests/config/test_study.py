"""A study's file: what it may hold, its rules, and every fault of it in one pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from seg.config import AxisConfig, PointConfig, SlurmConfig, StudyConfig, load_study
from seg.config.text import as_yaml

GOOD: dict[str, Any] = {
    "name": "widths",
    "base": "base.yaml",
    "points": [{"name": "narrow", "set": {"network.skip_bottleneck.ratio": 0.25}}],
}
AXIS = {"path": "network.merge", "values": ["concat", "add"], "label": "merge"}
WHOLE = """
name: widths
base: base.yaml
set: {training.steps: 10}
baseline: {name: full, set: {network.skip_bottleneck: null}}
design: sweep
axes:
  - {path: network.skip_bottleneck.ratio, label: skip, values: [0.5, 2]}
points:
  - name: add
    set: {network.merge: add, network.channels: [8, 16]}
seeds: [0, 1]
launch:
  backend: slurm
  slurm: {partition: gpu}
"""


def read(
    folder: Path, text: str, overrides: dict[str, object] | None = None
) -> tuple[StudyConfig | None, list[tuple[str, str, str]]]:
    file = folder / "study.yaml"
    file.write_text(text)
    study, problems = load_study(file, overrides or {})
    return study, [(problem.path, problem.kind, problem.value) for problem in problems]


def test_every_part_arrives(tmp_path: Path) -> None:
    study, problems = read(tmp_path, WHOLE)
    assert problems == []
    assert study is not None
    assert (study.name, study.base, study.set) == ("widths", "base.yaml", {"training.steps": 10})
    assert study.baseline == PointConfig(name="full", set={"network.skip_bottleneck": None})
    assert study.axes == (AxisConfig(path="network.skip_bottleneck.ratio", label="skip", values=(0.5, 2)),)
    assert study.points == (PointConfig(name="add", set={"network.merge": "add", "network.channels": [8, 16]}),)
    assert (study.folds, study.seeds) == (StudyConfig(name="x", base="y").folds, (0, 1))
    assert study.launch.slurm == SlurmConfig(partition="gpu")


def test_overrides_go_over_the_file(tmp_path: Path) -> None:
    given = {"seeds": "[7]", "launch.slurm.partition": "null", "launch.workers": "2", "set.data.root": "x/y"}
    study, problems = read(tmp_path, WHOLE, {**given, "set.training.steps": "20"})
    assert problems == []
    assert study is not None
    assert (study.seeds, study.launch.workers, study.launch.slurm.partition) == ((7,), 2, None)
    assert list(study.set.items()) == [("data.root", "x/y"), ("training.steps", 20)]


def test_changes_of_experiments_are_read_by_the_type_of_their_field(tmp_path: Path) -> None:
    typed = {"name": "10", "data.root": "2024", "data.patient_pattern": "[a-z]+(1)", "network.merge": "add"}
    read_as_yaml = {"network.channels": "[8, 16]", "network.skip_bottleneck": "null", "seed": "3"}
    study, problems = read(tmp_path, WHOLE, {f"set.{path}": value for path, value in (typed | read_as_yaml).items()})
    assert problems == [("set", "conflict", "")] * 2  # of name and seed, which studies give themselves
    assert study is not None
    del study.set["training.steps"]  # type: ignore[attr-defined]
    assert study.set == typed | {"network.channels": [8, 16], "network.skip_bottleneck": None, "seed": 3}


def test_faults_are_named_by_dotted_path(tmp_path: Path) -> None:
    text = (
        "nam: widths\nset: 3\ndesign: grid\nmargin: 2\nseeds: [a]\nlaunch: {backend: local, slurm: 1, worker: 2}\n"
        "axes: [{path: a}, 5]\npoints: {a: b}\n"
    )
    study, problems = read(tmp_path, text, {"seed": "1", "launch.retries": "x"})
    assert study is None
    assert sorted((path, kind) for path, kind, _ in problems) == [
        ("axes[0].label", "missing"),
        ("axes[0].values", "missing"),
        ("axes[1]", "type"),
        ("base", "missing"),
        ("design", "type"),
        ("launch.backend", "type"),
        ("launch.retries", "type"),
        ("launch.slurm", "type"),
        ("launch.worker", "unknown"),
        ("margin", "range"),
        ("nam", "unknown"),
        ("name", "missing"),
        ("points", "type"),
        ("seed", "unknown"),
        ("seeds", "type"),
        ("set", "type"),
    ]


def test_rules_are_judged_beside_faults_but_not_on_what_could_not_be_read(tmp_path: Path) -> None:
    text = "name: Widths\nbase: b\nmargin: 2\ndesign: product\naxes: [{path: a, label: x}]\nspeed: {rounds: 1}\n"
    study, problems = read(tmp_path, text)
    assert study is not None
    assert problems == [
        ("axes[0].values", "missing", "none"),
        ("margin", "range", "2"),
        ("speed.rounds", "range", "1"),
        ("name", "name", "'Widths'"),
    ]


@pytest.mark.parametrize(
    ("text", "kind"), [("a: [", "yaml"), ("- a\n", "type"), ("", "type"), ("schema_version: 9\nnew: 1", "version")]
)
def test_a_file_that_is_no_study(tmp_path: Path, text: str, kind: str) -> None:
    study, ((_, found, _),) = read(tmp_path, text)
    assert (study, found) == (None, kind)


def test_an_absent_file(tmp_path: Path) -> None:
    study, (problem,) = load_study(tmp_path / "none.yaml", {})
    assert (study, problem.path, problem.kind) == (None, str(tmp_path / "none.yaml"), "missing")


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({}, None),
        ({"design": "product", "axes": [AXIS]}, None),
        ({"design": "sweep", "axes": [AXIS], "points": []}, None),
        ({"name": "Widths"}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"points": [{"name": "../x", "set": {"a": 1}}]}, "points[0].name"),
        ({"base": ""}, "base"),
        ({"points": GOOD["points"] * 2}, "points[1].name"),
        ({"baseline": {"name": "narrow"}}, "points[0].name"),
        ({"axes": [AXIS]}, "axes"),
        ({"points": []}, "points"),
        ({"design": "sweep"}, "axes"),
        ({"design": "product", "axes": [AXIS, AXIS]}, "axes[1].path"),
        ({"design": "product", "axes": [AXIS | {"label": "A"}]}, "axes[0].label"),
        ({"design": "product", "axes": [AXIS | {"values": []}]}, "axes[0].values"),
        ({"design": "product", "axes": [AXIS | {"values": [1, 1]}]}, "axes[0].values"),
        ({"design": "product", "axes": [AXIS | {"path": "seed"}]}, "axes[0].path"),
        ({"set": {"fold": 1}}, "set"),
        ({"baseline": {"name": "b", "set": {"name": "x"}}}, "baseline.set"),
        ({"points": [{"name": "same"}]}, "points[0].set"),
        ({"folds": []}, "folds"),
        ({"folds": [0, 0]}, "folds"),
        ({"folds": [0, -1]}, "folds[1]"),
        ({"seeds": [2**32]}, "seeds[0]"),
        ({"schema_version": 0}, "schema_version"),
        ({"margin": 0.0}, "margin"),
        ({"margin": float("nan")}, "margin"),
        ({"launch": {"workers": 0}}, "launch.workers"),
        ({"launch": {"gpus_per_trial": -0.5}}, "launch.gpus_per_trial"),
        ({"launch": {"slurm": {"memory_gib": 0.0}}}, "launch.slurm.memory_gib"),
        ({"speed": {"rounds": 2}}, "speed.rounds"),
        ({"speed": {"warmup": 0}}, "speed.warmup"),
        ({"notes": ["Good.", " "]}, "notes[1]"),
    ],
)
def test_a_broken_rule_gives_one_problem(tmp_path: Path, values: dict[str, Any], place: str | None) -> None:
    text = "\n".join(f"{name}: {as_yaml(value)}" for name, value in (GOOD | values).items())
    assert [path for path, _, _ in read(tmp_path, text)[1]] == ([] if place is None else [place])


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("qos", "long\n#SBATCH --wrap=ls", "name"),
        ("partition", "gpu; ls", "name"),
        ("account", "$(ls)", "name"),
        ("constraint", "a100 h100", "name"),
        ("constraint", "", "name"),
        ("options.nodelist", "a'b", "name"),
        ("options.Node List", "a", "name"),
        ("options.time", "5", "conflict"),
        ("options.wrap", "ls", "conflict"),
        ("constraint", "a100|h100&(big*2)", ""),
        ("partition", "gpu,long-1", ""),
        ("options.exclusive", "", ""),
        ("options.gres", "gpu:a100:2", ""),
    ],
)
def test_slurm_is_given_names_alone(tmp_path: Path, field: str, value: str, kind: str) -> None:
    name, _, option = field.partition(".")
    slurm = {name: {option: value} if option else value}
    _, problems = read(tmp_path, as_yaml({**GOOD, "launch": {"slurm": slurm}}))
    assert [problem[:2] for problem in problems] == [(f"launch.slurm.{field}", kind)] * bool(kind)
