"""Rules that a study obeys, beside those of the experiments it is made of."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from seg.config.ablation import AxisConfig, BackendConfig, SlurmConfig, SpeedConfig, StudyConfig
from seg.config.ranges import LARGEST_SEED

STUDY_VERSION = 1
NAME = r"[a-z0-9][a-z0-9_.-]*"
OWN = {"seed": "seeds", "fold": "folds", "name": "name", "schema_version": "schema_version"}
"""Fields of an experiment that the study's own say, by their name there."""


def study_problems(study: StudyConfig) -> list[str]:
    """Lists every rule that a study breaks, leaving the values of its changes to the rules of experiments.

    Args:
        study: The study, its values of the right types.

    Returns:
        One sentence for each problem, with the dotted path of each field it is about; empty where all is well.
    """
    return [
        *_names(study),
        *_design(study),
        *_changes(study),
        *_numbers("folds", study.folds, math.inf),
        *_numbers("seeds", study.seeds, LARGEST_SEED),
        *_statistics(study),
        *_launch(study.launch),
        *_slurm(study.launch.slurm),
        *_speed(study.speed),
        *_notes(study.notes),
    ]


def _names(study: StudyConfig) -> Iterator[str]:
    yield from _name("name", study.name)
    yield from _name("baseline.name", study.baseline.name)
    if not study.base:
        yield "base must be a YAML file of an experiment, got an empty text; name it relative to the study's file."
    places = {study.baseline.name: "baseline"}
    for index, point in enumerate(study.points):
        yield from _name(f"points[{index}].name", point.name)
        if point.name in places:
            yield (
                f"points[{index}].name must be of one variant alone, got {point.name!r}, as in {places[point.name]}; "
                "rename one of the two."
            )
        places.setdefault(point.name, f"points[{index}]")


def _name(path: str, name: str) -> Iterator[str]:
    if not re.fullmatch(NAME, name):
        yield (
            f"{path} must be lower-case letters, digits, '_', '-' and '.', a letter or digit first, for it names a "
            f"folder, got {name!r}."
        )


def _design(study: StudyConfig) -> Iterator[str]:
    if study.design == "list" and study.axes:
        yield f"axes must be empty where design is list, got {len(study.axes)}; choose design product or sweep."
    if study.design == "list" and not study.points:
        yield "points must be given where design is list, got none; without them there is nothing to compare."
    if study.design != "list" and not study.axes:
        yield f"axes must be given where design is {study.design}, got none; add them or choose design list."
    paths: dict[str, int] = {}
    for index, axis in enumerate(study.axes):
        yield from _axis(f"axes[{index}]", axis)
        if axis.path in paths:
            yield (
                f"axes[{index}].path must be of one axis alone, got {axis.path}, as in axes[{paths[axis.path]}]; put "
                "all values on one axis."
            )
        paths.setdefault(axis.path, index)


def _axis(place: str, axis: AxisConfig) -> Iterator[str]:
    yield from _name(f"{place}.label", axis.label)
    if not axis.values:
        yield f"{place}.values must list at least one value, got none."
    repeated = [value for index, value in enumerate(axis.values) if value in axis.values[:index]]
    for value in repeated:
        yield f"{place}.values must list each value once, got {value!r} again; remove it."


def _changes(study: StudyConfig) -> Iterator[str]:
    places = [("set", tuple(study.set)), ("baseline.set", tuple(study.baseline.set))]
    places += [(f"axes[{index}].path", (axis.path,)) for index, axis in enumerate(study.axes)]
    places += [(f"points[{index}].set", tuple(point.set)) for index, point in enumerate(study.points)]
    for place, paths in places:
        for path in paths:
            if path in OWN:
                yield f"{place} must not change {path}, which trials take from the study's own {OWN[path]}; remove it."
    for index, point in enumerate(study.points):
        if not point.set:
            yield f"points[{index}].set must change something, got nothing; the baseline is a variant already."


def _numbers(path: str, numbers: Sequence[int], largest: float) -> Iterator[str]:
    if not numbers:
        yield f"{path} must list at least one number, got none."
    for index, number in enumerate(numbers):
        if not 0 <= number <= largest:
            rule = ">= 0" if math.isinf(largest) else f"in [0, {largest}]"
            yield f"{path}[{index}] must be {rule}, got {number}."
    if len(set(numbers)) < len(numbers):
        yield f"{path} must list each number once, got {list(numbers)}."


def _statistics(study: StudyConfig) -> Iterator[str]:
    if not 1 <= study.schema_version <= STUDY_VERSION:
        yield f"schema_version must be in [1, {STUDY_VERSION}], got {study.schema_version}."
    if not 0 < study.margin < 1:
        yield f"margin must be in (0, 1), a difference of Dice, got {study.margin:g}."


def _launch(launch: BackendConfig) -> Iterator[str]:
    for name, least in (("workers", 1), ("cpus_per_trial", 0), ("gpus_per_trial", 0), ("retries", 0)):
        value = getattr(launch, name)
        if not least <= value < math.inf:
            yield f"launch.{name} must be >= {least}, got {value:g}."


def _slurm(slurm: SlurmConfig) -> Iterator[str]:
    for name in ("time_minutes", "max_parallel"):
        if getattr(slurm, name) < 1:
            yield f"launch.slurm.{name} must be >= 1, got {getattr(slurm, name)}."
    if not 0 < slurm.memory_gib < math.inf:
        yield f"launch.slurm.memory_gib must be > 0, got {slurm.memory_gib:g}."


def _speed(speed: SpeedConfig) -> Iterator[str]:
    if speed.rounds < 3:
        yield f"speed.rounds must be >= 3, got {speed.rounds}; a spread needs as many."
    if speed.warmup < 1:
        yield f"speed.warmup must be >= 1, got {speed.warmup}; the first passes are never typical."


def _notes(notes: Sequence[str]) -> Iterator[str]:
    for index, note in enumerate(notes):
        if not note.strip():
            yield f"notes[{index}] must say something, got an empty text; remove it."
