"""From a configuration to YAML."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seg.config import (
    BottleneckConfig,
    CtConfig,
    DataConfig,
    ExperimentConfig,
    NetworkConfig,
    WidthsConfig,
    dump_config,
    load_config,
)
from seg.config.fields import fields_of
from seg.config.text import parse_yaml

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
RATIO = st.floats(0, 4, exclude_min=True)
BOTTLENECK = st.builds(
    BottleneckConfig,
    ratio=RATIO | st.tuples(RATIO, RATIO, RATIO),
    activation=st.sampled_from(["none", "relu", "sigmoid"]),
    norm=st.booleans(),
)


def window(*bounds: float) -> CtConfig:
    low, high = sorted(bounds)
    return CtConfig(lower=(low,), upper=(high,), mean=(low,), std=(high - low,))


DATA = st.builds(
    DataConfig,
    root=TEXT,
    splits=st.none() | TEXT,
    cache_dir=st.none() | TEXT,
    spacing_mm=st.none() | st.tuples(*[st.floats(1e-3, 1e3)] * 3),
) | st.builds(
    lambda ct: DataConfig(normalization=("ct",), ct=ct), st.builds(window, st.floats(-1e6, 0), st.floats(1e-9, 1e6))
)
PAIRS = st.just((((2, 0), (0, 3)),) * 4)
WIDTHS = st.builds(WidthsConfig, encoder=st.none() | st.just((3, 4, 5, 6)), encoder_ranks=st.none() | PAIRS)
NETWORK = st.builds(
    NetworkConfig,
    skip_bottleneck=st.none() | BOTTLENECK,
    decoder_bottleneck=st.none() | BOTTLENECK,
    widths=st.none() | WIDTHS,
)
EXPERIMENT = st.builds(ExperimentConfig, seed=st.integers(0, 2**32 - 1), data=DATA, network=NETWORK)


@settings(max_examples=25)
@given(config=EXPERIMENT, comments=st.booleans())
def test_what_is_written_reads_as_the_same(
    tmp_path_factory: pytest.TempPathFactory, config: ExperimentConfig, comments: bool
) -> None:
    file = tmp_path_factory.mktemp("dump") / "config.yaml"
    (file.parent / "environment.json").touch()  # a run's record keeps relative paths as they are
    file.write_text(dump_config(config, comments=comments, header="two\nlines"), encoding="utf-8")
    assert load_config([file]) == config


def leaf_paths(content: dict[str, Any], prefix: str = "") -> set[str]:
    found = set()
    for name, value in content.items():
        found |= leaf_paths(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name}
    return found


def test_every_field_is_written() -> None:
    full = replace(
        ExperimentConfig(),
        data=DataConfig(normalization=("ct",), ct=window(0, 1)),
        network=NetworkConfig(
            skip_bottleneck=BottleneckConfig(), decoder_bottleneck=BottleneckConfig(), widths=WidthsConfig()
        ),
    )
    expected = {path for path, field in fields_of(ExperimentConfig).items() if field.section is None}
    assert leaf_paths(parse_yaml(dump_config(full))) == expected


def test_comments_explain_and_do_not_change_the_values() -> None:
    config = ExperimentConfig()
    text = dump_config(config, comments=True, header="Planned for 12 cases.\n\nEdit freely.")
    assert text.startswith("# Planned for 12 cases.\n#\n# Edit freely.\n\n# Version of this layout;")
    assert parse_yaml(text) == parse_yaml(dump_config(config))
    words = "".join(text.replace("#", " ").split())
    for field in fields_of(ExperimentConfig).values():
        if not any(section in field.path for section in ("bottleneck.", ".ct.", ".widths.")):
            assert "".join(field.description.removesuffix(".").split()) in words
    assert max(map(len, text.splitlines())) <= 120


def test_lists_stand_on_one_line() -> None:
    text = dump_config(ExperimentConfig())
    assert "\n  strides: [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]]\n" in text
    assert "\n  skip_bottleneck: null\n" in text
