from __future__ import annotations

from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from seg.cli import PlanArguments, parse_plan
from seg.cli.plan_arguments import DEFAULT_MEMORY_GIB, Layout
from seg.config import DataConfig
from seg.errors import ConfigError


def test_every_option_arrives() -> None:
    argv = ["--data.root", "d", "--data.layout", "msd", "--data.patient_pattern", "(p)", "--memory_gib", "8"]
    assert parse_plan([*argv, "--output", "o.yaml"]) == PlanArguments(
        data_root=Path("d"), layout="msd", output=Path("o.yaml"), memory_gib=8.0, patient_pattern="(p)"
    )


def test_the_defaults() -> None:
    assert parse_plan(["--data.root", "d"]) == PlanArguments(
        data_root=Path("d"), layout="auto", output=None, memory_gib=DEFAULT_MEMORY_GIB, patient_pattern=None
    )


def test_the_layouts_are_those_of_the_configuration() -> None:
    assert get_args(Layout) == get_args(get_type_hints(DataConfig)["layout"])


def test_the_memory_is_that_of_the_planner() -> None:
    from seg.planning import DEFAULT_MEMORY_GIB as PLANNED

    assert DEFAULT_MEMORY_GIB == PLANNED


def test_misuse_is_reported() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_plan(["--memory_gib", "-1", "--root", "d"])
    assert caught.value.problems == (
        "unknown option --root; did you mean --data.root?",
        "--data.root must name the folder of a data set, got none.",
        "--memory_gib must be > 0, got -1.",
    )
