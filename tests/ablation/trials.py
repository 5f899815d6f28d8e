"""Trials and studies as the grid makes them, without a grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from seg.config import ExperimentConfig
from seg.config.study import StudyConfig


@dataclass(frozen=True)
class Variant:
    name: str = "baseline"
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FakeTrial:
    config: ExperimentConfig
    variant: Variant = Variant()

    @property
    def fold(self) -> int:
        return self.config.fold

    @property
    def seed(self) -> int:
        return self.config.seed

    @property
    def id(self) -> str:
        return f"{self.variant.name}.fold_{self.fold}.seed_{self.seed}"


@dataclass(frozen=True)
class FakeStudy:
    config: StudyConfig
    trials: tuple[FakeTrial, ...]
