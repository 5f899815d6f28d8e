"""The mutants follow the code: each edit has one place in the package."""

from __future__ import annotations

from pathlib import Path

from tests.mutation.check import MUTANTS, Mutant, occurrences

ROOT = Path(__file__).parents[2]


def test_a_mutant_has_one_place_at_most_and_most_have_one() -> None:
    files = sorted((ROOT / "seg").rglob("*.py"))
    places = {one.name: [place for path in files for place in occurrences(one, path)] for one in MUTANTS}
    assert len(places) == len(MUTANTS)
    assert {name: len(found) for name, found in places.items() if len(found) > 1} == {}
    # Code that was written anew takes its mutant along.
    assert sum(map(bool, places.values())) > 0.75 * len(MUTANTS)


def test_an_expression_counts_in_its_function_alone(tmp_path: Path) -> None:
    path = tmp_path / "code.py"
    path.write_text("def one():\n    return a + b\n\n\nclass Two:\n    def three(self):\n        return a + b\n")
    for where, start in (("one", "def one"), ("Two", "class Two"), ("three", "    def three")):
        ((_, begin, end),) = occurrences(Mutant("group", where, "a + b", "a"), path)
        text = path.read_text()[begin:end]
        assert text.startswith(start)
        assert text.endswith("a + b\n")
    assert occurrences(Mutant("group", "four", "a + b", "a"), path) == []
