"""A sample of damaged inputs ends in results or refusals; `python -m tests.fuzz.fuzz` reads as many as wanted."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits and kills readers as Linux does")


def test_damaged_inputs_of_every_kind_are_read_or_refused() -> None:
    from tests.fuzz.fuzz import fuzz

    counts, faults = fuzz(300, seed=1)
    assert faults == {}
    assert sum(counts.values()) == 300
    ends = {result for _, result in counts}
    assert ends == {"read", "refused"}


@pytest.mark.parametrize(
    ("end", "result"),
    [
        (lambda: 1 / 0, "traceback"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "death"),
        (lambda: time.sleep(60), "hang"),
        (lambda: bytes(1 << 40), "traceback"),
    ],
)
def test_a_reader_that_breaks_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, end: Callable[[], object], result: str
) -> None:
    from tests.fuzz import fuzz

    monkeypatch.setattr(fuzz, "SECONDS", 0.5)
    (tmp_path / "valid").mkdir()
    (tmp_path / "valid" / "a").write_bytes(b"content")
    kind = fuzz.Kind(name="a", file="a", read=lambda folder: end())
    found = fuzz.read_all(kind, tmp_path / "valid", tmp_path / "work", ["0 0", "0 1"])
    assert [said.split()[0].rstrip(":").lower() for said in found.values()] == [result] * 2
