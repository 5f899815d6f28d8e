"""Points of a study's design, and the experiments they stand for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from seg.ablation.naming import point_names
from seg.config import ExperimentConfig, StudyConfig, load_config
from seg.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point of a design, its experiment not yet built.

    Attributes:
        name: Name of the variant.
        changes: Values by dotted path, on top of the baseline.
        where: Where the study's file says so, for messages.
        generated: Whether axes made it, or the file lists it.
    """

    name: str
    changes: Mapping[str, Any]
    where: str
    generated: bool


@dataclass(kw_only=True)
class Builder:
    """Builds experiments on one base by the rules that hold for any experiment's file.

    Attributes:
        base: YAML file of the experiment.
        name: Name that the experiments get.
        common: Changes of all of them, by dotted path.
        problems: What was found so far; each problem is added once, where it shows first.
    """

    base: Path
    name: str
    common: Mapping[str, Any]
    problems: list[str]
    _seen: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._load("base")
        self._load("set", self.common)

    def build(self, where: str, *changes: Mapping[str, Any]) -> ExperimentConfig | None:
        """Builds one experiment; None where it breaks a rule.

        Args:
            where: What is said before its problems.
            changes: Values by dotted path, applied one mapping after the other.
        """
        config = self._load(where, self.common, *changes)
        return None if config is None else replace(config, name=self.name)

    def _load(self, where: str, *changes: Mapping[str, Any]) -> ExperimentConfig | None:
        try:
            return load_config([self.base], *changes)
        except ConfigError as error:
            new = [problem for problem in error.sentences if problem not in self._seen]
            self._seen.update(new)
            self.problems += [f"{where}: {problem}" for problem in new]
            return None


def designed(study: StudyConfig, builder: Builder) -> list[Point]:
    """Lists the points of a study: those of its axes, then those it names.

    Each value of an axis is built alone first, so that a bad one is reported where it stands.
    """
    for index, axis in enumerate(study.axes):
        for value in axis.values:
            builder.build(f"axes[{index}]", study.baseline.set, {axis.path: value})
    named = [
        Point(name=point.name, changes=point.set, where=f"points[{index}] ({point.name})", generated=False)
        for index, point in enumerate(study.points)
    ]
    return [*_of_axes(study), *named]


def _of_axes(study: StudyConfig) -> Iterator[Point]:
    named = [list(zip(point_names(axis), axis.values, strict=True)) for axis in study.axes]
    if study.design == "product":
        for chosen in itertools.product(*named):
            changes = {axis.path: value for axis, (_, value) in zip(study.axes, chosen, strict=True)}
            yield _generated("_".join(name for name, _ in chosen), changes)
    elif study.design == "sweep":
        for axis, chosen_values in zip(study.axes, named, strict=True):
            for name, value in chosen_values:
                yield _generated(name, {axis.path: value})


def _generated(name: str, changes: Mapping[str, Any]) -> Point:
    return Point(name=name, changes=changes, where=f"variant {name}", generated=True)
