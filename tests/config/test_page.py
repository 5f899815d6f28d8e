"""The documentation page of all fields is current."""

from __future__ import annotations

from pathlib import Path

from seg.config.page import page


def test_the_page_is_what_the_classes_say() -> None:
    path = Path(__file__).parents[2] / "docs" / "configuration.md"
    assert path.read_text(encoding="utf-8") == page(), "run: python -m seg.config.page > docs/configuration.md"
