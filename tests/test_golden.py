"""The comparison of two commits finds what differs, by values made by hand."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import nibabel
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def golden() -> ModuleType:
    sys.path.insert(0, str(ROOT / ".ci"))
    try:
        import golden  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(ROOT / ".ci"))
    return golden


def test_values_are_compared_by_name_and_new_names_are_listed(golden: ModuleType) -> None:
    old = {"a dice": 0.5, "a hd95_mm": float("inf"), "b dice": float("nan"), "a nsd": 1.0}
    new = {"a dice": 0.5, "a hd95_mm": float("inf"), "b dice": float("nan"), "a assd_mm": 2.0}
    row = golden.value_row("part", "scores", old, new)
    assert (row.compared, list(row.different)) == (3, [])
    assert row.note == "old alone: nsd (1); new alone: assd_mm (1)"
    row = golden.value_row("part", "scores", old, new | {"a dice": 0.5 + 2**-53})
    assert [text.split(":")[0] for text in row.different] == ["a dice"]


def test_a_voxel_and_a_missing_map_are_found(golden: ModuleType, tmp_path: Path) -> None:
    for name, value in (("old", 0), ("new", 1)):
        (tmp_path / name).mkdir()
        voxels = np.zeros((3, 3, 3), np.uint8)
        voxels[1, 1, 1] = value
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / name / "case.nii.gz")
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "old" / "gone.nii.gz")
    row = golden.label_row("part", "label maps", tmp_path / "old", tmp_path / "new")
    assert list(row.different) == ["gone.nii.gz is on one side only", "case.nii.gz: 1 voxels"]


@pytest.mark.parametrize(
    ("different", "compared", "expected", "code"),
    [((), 3, (), 0), (("a",), 3, (), 1), (("a",), 3, ("part",), 0), ((), 0, (), 1), (("a",), 3, ("other",), 1)],
)
def test_the_exit_code_says_whether_an_unexpected_part_differs(
    different: tuple[str, ...], compared: int, expected: tuple[str, ...], code: int, golden: ModuleType
) -> None:
    assert golden.show([golden.Row("part", "weights", compared, different)], set(expected)) == code


def test_analysis_is_read_by_variant_and_quantity(golden: ModuleType) -> None:
    found = golden.estimates(ROOT / "docs" / "results" / "phantom_small")
    assert found["baseline parameters value"] == 331991
    assert found["baseline dice 1 num_patients"] == 8
    assert len(found) > 1000
