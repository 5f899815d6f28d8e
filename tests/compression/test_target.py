"""Targets of a compression: what is read, and what is refused."""

import pytest

from seg.compression.target import Target, read_target
from seg.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "kind", "shares"),
    [
        ("latency=0.5", "latency", (0.5,)),
        ("macs=0.25,0.5", "macs", (0.5, 0.25)),
        ("parameters=1e-1", "parameters", (0.1,)),
    ],
)
def test_a_target_names_what_is_counted_and_what_is_kept_mild_to_strong(text, kind, shares):
    assert read_target(text) == Target(kind=kind, shares=shares)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("0.5", ["form"]),
        ("", ["form"]),
        ("speed=0.5", ["unknown"]),
        ("macs=", ["range"]),
        ("macs=half", ["range"]),
        ("macs=nan", ["range"]),
        ("latency=0,1,-0.5,2", ["range"] * 4),
        ("macs=0.5,0.5,1.5", ["repeated", "range"]),
        ("macs=0.1234567,0.1234568", ["repeated"]),  # their steps would have one name
    ],
)
def test_other_forms_are_problems_of_the_option(text, kinds):
    with pytest.raises(ConfigError) as caught:
        read_target(text, name="--target")
    assert [(problem.path, problem.kind) for problem in caught.value.problems] == [("--target", kind) for kind in kinds]
