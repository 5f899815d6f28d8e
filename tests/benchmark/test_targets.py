"""From paths to networks: names, classes, and what cannot be compared."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from seg.benchmark.subjects import Subject
from seg.benchmark.targets import BenchmarkArguments, Target, read_subjects, short_names
from seg.config import ExperimentConfig, PostprocessingConfig, dump_config
from seg.errors import ConfigError

Write = Callable[[Subject, str], Path]


def arguments(*targets: Path, **values: object) -> BenchmarkArguments:
    kinds = tuple(Target(kind="run_dir" if path.is_dir() else "config", path=path) for path in targets)
    return BenchmarkArguments(targets=kinds, **values)  # type: ignore[arg-type]


def written(config: ExperimentConfig, path: Path) -> Path:
    path.write_text(dump_config(config))
    return path


def problems_of(*targets: Path, **values: object) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        read_subjects(arguments(*targets, **values))
    return caught.value.sentences


def test_names_are_as_short_as_they_can_be(tmp_path: Path) -> None:
    file = tmp_path / "small.v2.yaml"
    file.touch()
    assert short_names([file]) == ["small.v2"]
    assert short_names([Path("a/x/run"), Path("b/x/run")]) == ["a/x/run", "b/x/run"]
    assert short_names([Path("x/one.v1"), Path("x/two")]) == ["one.v1", "two"]


def test_a_run_has_its_weights_and_an_experiment_has_not(
    subject: Subject, narrow: Subject, write_run: Write, tmp_path: Path
) -> None:
    run_dir, file = write_run(narrow, "one"), written(subject.config, tmp_path / "two.yaml")
    first, second = read_subjects(arguments(run_dir, file))
    assert first == replace(narrow, name="one", run_dir=run_dir)
    assert second == replace(subject, name="two")


def test_a_data_set_elsewhere_is_taken(subject: Subject, scans: Path, tmp_path: Path) -> None:
    lost = replace(subject.config, data=replace(subject.config.data, root="gone"))
    file = written(lost, tmp_path / "one.yaml")
    assert problems_of(file) == (
        "gone: data.root must be the folder of a data set, got no such folder; check the path.",
    )
    (found,) = read_subjects(arguments(file, data_root=scans))
    assert found == replace(subject, name="one")


def test_without_a_data_set_classes_are_counted(
    subject: Subject, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lost = replace(
        subject.config,
        data=replace(subject.config.data, root="gone"),
        postprocessing=PostprocessingConfig(largest_component=("box",)),
    )
    with caplog.at_level(logging.WARNING):
        (found,) = read_subjects(arguments(written(lost, tmp_path / "one.yaml"), num_classes=4, num_channels=2))
    assert found.ends == (2, 4)
    assert found.config.postprocessing == PostprocessingConfig()
    assert caplog.messages == ["one: clean-up is left out, as --num_classes does not name the classes"]


def test_what_cannot_be_compared_is_named_together(
    subject: Subject, write_run: Write, tmp_path: Path, scans: Path
) -> None:
    config = subject.config
    first = written(config, tmp_path / "one.yaml")
    other = written(replace(config, patches=replace(config.patches, size=(8, 8, 16), batch=1)), tmp_path / "two.yaml")
    more = write_run(replace(subject, class_names=("background", "a", "b")), "run")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert problems_of(first, other, more, empty) == (
        f"{empty}: must be the directory of a finished run, got no config.yaml; check --run_dir.",
        "two: patches.size must be that of one to compare both, got (8, 8, 16) where that has (8, 8, 8); "
        "measure each alone.",
        "two: patches.batch must be that of one to compare both, got 1 where that has 3; measure each alone.",
        "run: classes must be that of one to compare both, got 3 where that has 2; measure each alone.",
    )


def test_folds_are_no_single_run(subject: Subject, write_run: Write, tmp_path: Path) -> None:
    for fold in range(2):
        write_run(subject, f"all/fold_{fold}")
    folder = tmp_path / "all"
    assert problems_of(folder) == (
        f"{folder}: must be a single run, got 2 folds; give one of them, such as {folder / 'fold_0'}.",
    )
