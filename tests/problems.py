"""What a call is refused with, by path, kind and value."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from seg.errors import SegError


@contextmanager
def refused(*expected: tuple[str, ...], error: type[SegError] = SegError) -> Iterator[None]:
    """Checks that a block ends with these problems: each is a path, a kind and a value, the last of which may lack."""
    with pytest.raises(error) as caught:
        yield
    found = [(problem.path, problem.kind, problem.value) for problem in caught.value.problems]
    assert [one[: len(other)] for one, other in zip(found, expected, strict=True)] == list(expected)
