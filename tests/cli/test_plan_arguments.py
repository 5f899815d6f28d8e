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
    assert caught.value.sentences == (
        "--root is no option; did you mean --data.root?",
        "--data.root must name the folder of a data set, got none.",
        "--memory_gib must be > 0, got -1.",
    )


def test_a_file_that_is_there_is_replaced_only_where_asked(tmp_path: Path) -> None:
    there = tmp_path / "edited.yaml"
    there.write_text("seed: 1")
    link = tmp_path / "link.yaml"
    link.symlink_to("nowhere")
    for output in (there, link):
        with pytest.raises(ConfigError) as caught:
            parse_plan(["--data.root", "d", "--output", str(output)])
        assert caught.value.sentences == (
            f"--output must be a new file, got {output}, which is there already; choose another, or replace it with "
            "--overwrite.",
        )
        assert parse_plan(["--data.root", "d", "--output", str(output), "--overwrite"]).output == output
    assert there.read_text() == "seed: 1"
    with pytest.raises(ConfigError) as caught:
        parse_plan(["--data.root", "d", "--output", str(tmp_path), "--overwrite"])
    assert caught.value.sentences == (f"--output must be a file, got the folder {tmp_path}; name a file in it.",)
