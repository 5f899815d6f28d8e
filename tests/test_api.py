"""The commands as functions: wrong arguments are problems that name them, before anything is read."""

from __future__ import annotations

import getpass
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import seg
from seg.errors import ConfigError, RunError


@pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [
        ("widths", {"run_dir": "run", "margin": 0}, {"margin": "range"}),
        ("widths", {"run_dir": "run", "margin": 1, "cases": 1}, {"margin": "range", "cases": "range"}),
        ("widths", {"run_dir": "run", "margin": math.nan, "timing": 1}, {"margin": "range", "timing": "type"}),
        ("widths", {"run_dir": 3, "cases": True}, {"run_dir": "type", "cases": "type"}),
        (
            "compress",
            {"run_dir": "run", "output": "out", "multiple": 0, "cases": 0},
            dict.fromkeys(("multiple", "cases"), "range"),
        ),
        ("compress", {"run_dir": "run", "output": None, "tune_steps": -1}, {"output": "type", "tune_steps": "range"}),
        (
            "compress",
            {"run_dir": "run", "output": "out", "engine": "auto", "margin": "0.1"},
            dict.fromkeys(("engine", "margin"), "type"),
        ),
        ("compress", {"run_dir": "run", "output": "out", "target": ("macs", 0.5)}, {"target": "type"}),
        (
            "certify",
            {"run_dir": "run", "original": 3, "output": "out", "engine": "auto", "margin": 0},
            {"original": "type", "engine": "type", "margin": "range"},
        ),
        ("export", {"run_dir": "run", "format": "xml", "margin": 5.0}, {"format": "type", "margin": "range"}),
        (
            "predict",
            {"run_dirs": [1], "input": "in", "output": "out", "engine": "tensorrt"},
            dict.fromkeys(("run_dirs", "engine"), "type"),
        ),
        ("predict", {"run_dirs": "run", "input": "in", "output": "out", "existing": "keep"}, {"existing": "type"}),
        ("train", {"config": 3, "folds": "some"}, {"config": "type", "folds": "type"}),
        (
            "plan",
            {"data_root": "in", "output": "out", "memory_gib": -1.0, "layout": "bids"},
            {"memory_gib": "range", "layout": "type"},
        ),
        ("evaluate", {"predictions": "a", "labels": "b", "workers": 0}, {"workers": "range"}),
        ("load_run", {"run_dir": np.zeros(3)}, {"run_dir": "type"}),
    ],
)
def test_wrong_arguments_are_named_all_together(
    function: str, arguments: dict[str, Any], expected: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        getattr(seg, function)(**arguments)
    assert {problem.path: problem.kind for problem in caught.value.problems} == expected
    assert not list(tmp_path.iterdir())


def test_a_function_that_lacks_an_argument_is_a_type_error_as_any() -> None:
    with pytest.raises(TypeError):
        seg.widths()
    with pytest.raises(TypeError):
        seg.widths("run", margins=0.1)


def test_a_user_without_a_name_gets_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwd = pytest.importorskip("pwd")
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    with pytest.raises(RunError):
        seg.load_run(tmp_path)
    assert getpass.getuser() == f"uid{os.getuid()}"
