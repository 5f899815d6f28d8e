"""YAML text to values and back."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from seg.config.text import YamlError, as_yaml, parse_yaml

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
SCALAR = st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.floats(allow_nan=False) | TEXT
VALUE = st.recursive(SCALAR, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=20)


@settings(max_examples=200)
@given(value=VALUE)
def test_what_is_written_reads_as_the_same_here_and_by_pyyaml(value: Any) -> None:
    written = as_yaml(value)
    assert written.splitlines() in ([written], [])
    assert parse_yaml(f"a: {written}\nb: 1\n") == {"a": value, "b": 1}
    assert yaml.safe_load(f"a: {written}\nb: 1\n") == {"a": value, "b": 1}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4:00:00", "4:00:00"),
        ("2020-01-02", "2020-01-02"),
        ("2020-13-45", "2020-13-45"),
        ("1_000", "1_000"),
        ("010", 10),
        ("+7", 7),
        ("[yes, no, on, off, y, =, 0x1f, 0o17]", ["yes", "no", "on", "off", "y", "=", "0x1f", "0o17"]),
        ("[true, False, NULL, ~, ]", [True, False, None, None]),
        ("[1e3, 1e-05, .5, 5., -1.5E+2]", [1000.0, 1e-05, 0.5, 5.0, -150.0]),
        ("[.inf, -.inf]", [math.inf, -math.inf]),
        ("['1', \"true\", '~']", ["1", "true", "~"]),
        ("1: 2", {"1": 2}),
        ("# nothing", None),
    ],
)
def test_bare_words_follow_yaml_1_2(text: str, value: Any) -> None:
    assert parse_yaml(text) == value


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("seed: 1\nseed: 2", "line 2, column 1: seed is given twice"),
        ("seed: [1", "line 2, column 1: "),
        ("network: &n\n  skip_bottleneck: *n", "line 2, column 20: aliases"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "line 2, column 8: aliases"),
        ("seed: !!python/object/apply:os.getcwd []", "line 1, column 7: tags"),
        ("seed: !!int ''", "line 1, column 7: tags"),
        ("seed: !x 1", "line 1, column 7: tags"),
        ("<<: {a: 1}", "line 1, column 1: merge keys"),
        ("? [a]\n: 1", "a list or mapping stands in a key's place"),
        ("[" * 5000, "line 1, column 21: more than 20 levels"),
        ("{a: " * 5000, "more than 20 levels"),
        ("\n" * 40 + "- " * 5000, "line 41, column 41: more than 20 levels"),
        ("1" * 400, "an integer has more than 18 digits"),
        ('"\\ud800"', "line 1, column 4: "),
        ('"\\0"', "a NUL character"),
        ("\ud800", "0xd800"),
        ("--- 1\n--- 2", "one YAML document"),
        ("a" * 1_000_001, "at most 1000000 characters"),
        ("%YAML 3.0\n--- 1", ""),
        ("\x07", ""),
    ],
)
def test_what_is_not_read_is_refused_with_its_place(text: str, where: str) -> None:
    with pytest.raises(YamlError) as caught:
        parse_yaml(text)
    assert where in str(caught.value)


@settings(max_examples=300)
@given(st.text("[]{}:,-'\"!&*?|>%@`# \n\tab01.~<", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(YamlError):
        parse_yaml(text)
