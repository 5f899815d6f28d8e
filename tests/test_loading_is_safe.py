"""No file is loaded in a way that would run code in it."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "seg").rglob("*.py"), *(ROOT / "scripts").glob("*.py")])


@pytest.mark.parametrize("unsafe", ["weights_only=False", "allow_pickle=True", "trust_remote_code=True"])
def test_no_loader_is_told_to_run_code(unsafe: str) -> None:
    assert FILES
    assert [path.name for path in FILES if unsafe in path.read_text(encoding="utf-8")] == []
