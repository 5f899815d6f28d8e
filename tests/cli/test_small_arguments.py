"""Command lines of a few options: what arrives, and all that is wrong together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from seg.cli.compare_arguments import RunPairs, parse_compare
from seg.cli.fetch_arguments import FetchArguments, parse_fetch
from seg.cli.preservation_arguments import PreservationArguments, parse_preservation
from seg.cli.validate_arguments import ValidateArguments, parse_validate
from seg.errors import ConfigError

fetch = partial(parse_fetch, ["heart"])
preservation = partial(parse_preservation, 0.95)


def test_what_is_given_arrives() -> None:
    assert parse_compare(["--baseline", "a", "b", "--variant", "c", "d", "--margin", "0.01"]) == RunPairs(
        baseline=(Path("a"), Path("b")), variant=(Path("c"), Path("d")), margin=0.01
    )
    assert fetch(["heart"]) == FetchArguments(name="heart", root=Path("data"))
    assert fetch(["phantom", "--root", "x"]) == FetchArguments(name="phantom", root=Path("x"))
    assert preservation(["--record", "r", "--output", "o"]) == PreservationArguments(
        record=Path("r"), output=Path("o"), threshold=0.95
    )
    assert parse_validate(["--part", "intervals"]) == ValidateArguments(repeats=4000, seed=0, part="intervals")


@pytest.mark.parametrize(
    ("parse", "argv", "problems"),
    [
        (
            parse_compare,
            ["--base"],
            (
                "--base is no option; did you mean --baseline?",
                "--baseline must name run directories, got none; see --help.",
                "--variant must name run directories, got none; see --help.",
            ),
        ),
        (
            preservation,
            ["--records", "r"],
            (
                "--records is no option; did you mean --record?",
                "--record must name a file, got none; see --help.",
                "--output must name a file, got none; see --help.",
            ),
        ),
        (
            parse_validate,
            ["--repeat", "3", "--repeats", "0"],
            ("--repeat is no option; did you mean --repeats?", "--repeats must be >= 1, got 0."),
        ),
        (fetch, ["heart", "--rot", "x"], ("--rot is no option; did you mean --root?",)),
    ],
)
def test_misuse_is_reported_together(
    parse: Callable[[Sequence[str]], object], argv: list[str], problems: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(argv)
    assert caught.value.sentences == problems
