"""Documents name what is there: links lead somewhere, and every measurement is listed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files(document: Path) -> None:
    text = re.sub(r"^ *```.*?^ *```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    relative = [link for link in links if "://" not in link]
    assert [link for link in relative if not (document.parent / link).exists()] == []


def test_every_measurement_is_listed_in_the_readme_of_results() -> None:
    listed = (RESULTS / "README.md").read_text(encoding="utf-8")
    there = [path.name for path in RESULTS.iterdir() if path.name not in ("README.md", "figures")]
    assert [name for name in there if f"]({name}" not in listed] == []
