"""Ids of cases, after which files are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from seg.data.cases import Case
from seg.data.ids import check_ids

LIST = Path("dataset.json")


def case(case_id: str, index: int = 0) -> Case:
    return Case(id=case_id, images=(Path(f"{index}.nii"),), label=Path(f"{index}_l.nii"))


@pytest.mark.parametrize(("letter", "size"), [("a", 1), ("\u00e9", 2), ("\u8166", 3)])
def test_an_id_leaves_room_for_endings(letter: str, size: int) -> None:
    fits = letter * (200 // size)
    assert check_ids([case(fits)], LIST) == []
    longer = fits + letter
    assert check_ids([case(longer)], LIST) == [
        f"case {longer}: an id must take at most 200 bytes, as files are named after it, got {len(longer) * size}; "
        "shorten it."
    ]


def test_ids_that_differ_in_capitals_alone() -> None:
    cases = [case(case_id, index) for index, case_id in enumerate(("Anna", "b", "anna", "B", "c"))]
    assert check_ids(cases, LIST) == [
        f"case {one}: ids must differ in more than capitals, as files named after them are one where a file "
        f"system takes capitals for small letters, got case {other} too in dataset.json; rename one of the two."
        for one, other in (("anna", "Anna"), ("B", "b"))
    ]
