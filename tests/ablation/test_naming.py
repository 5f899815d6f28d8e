"""Names of the points on an axis."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from seg.ablation.study import point_names
from seg.config import AxisConfig
from seg.config.study import NAME


def named(*values: Any) -> list[str]:
    return [name.removeprefix("a_") for name in point_names(AxisConfig(path="p", label="a", values=values))]


def test_numbers() -> None:
    assert named(1, 1.0, 2.0, 0.5, 1 / 3, 0.0625, 0.3, 1.5) == ["1", "1", "2", "1-2", "1-3", "1-16", "0.3", "1.5"]
    assert named(0.0, -0.5, 1e-05, 16) == ["0", "-0.5", "1-100000", "16"]


def test_other_values() -> None:
    assert named(None, True, "add", [16, 32], [0.5, 0.25]) == ["none", "true", "add", "16x32", "1-2x1-4"]
    assert named("Leaky ReLU/2") == ["leaky-relu-2"]


def test_of_groups_only_what_differs_is_named() -> None:
    groups = [{"ratio": ratio, "norm": True, "activation": "relu"} for ratio in (0.5, 0.25)]
    assert named(None, *groups) == ["none", "1-2", "1-4"]
    assert named({"ratio": 0.5, "norm": True}) == ["1-2xtrue"]
    assert named({"ratio": 0.5}, {"ratio": 0.5, "norm": True}) == ["1-2", "true"]


@given(st.floats(0.01, 4) | st.integers(0, 99) | st.booleans() | st.text(max_size=5) | st.lists(st.floats(0.01, 4)))
def test_every_name_is_a_folder(value: Any) -> None:
    assert all(re.fullmatch(NAME, f"a_{name}") for name in named(value))
