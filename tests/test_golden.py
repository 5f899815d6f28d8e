"""The comparison of two commits finds what differs, by values made by hand."""

from __future__ import annotations

import argparse
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


def test_oblique_scans_share_one_grid_with_their_label(golden: ModuleType, tmp_path: Path) -> None:
    golden.write_oblique(tmp_path)
    for label in sorted((tmp_path / "labelsTr").glob("*.nii.gz")):
        affines = [nibabel.load(label).affine] + [
            nibabel.load(path).affine for path in (tmp_path / "imagesTr").glob(label.name.split(".")[0] + "_*")
        ]
        assert len(affines) == 3
        assert all(np.array_equal(affine, affines[0]) for affine in affines)
        assert np.count_nonzero(np.abs(affines[0][:3, :3]) > 0.01) > 3
        # Turns do not change the size of a voxel.
        assert np.linalg.norm(affines[0][:3, :3], axis=0) == pytest.approx((1.0, 1.1, 2.7))


def test_analysis_is_read_by_variant_and_quantity(golden: ModuleType) -> None:
    found = golden.estimates(ROOT / "docs" / "results" / "phantom_small")
    assert found["baseline parameters value"] == 331991
    assert found["baseline dice 1 num_patients"] == 8
    assert len(found) > 1000


def test_arguments_name_known_parts(golden: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["golden", "a", "b", "--expect", "resampled"])
    options: argparse.Namespace = golden.parse()
    assert (options.old, options.new, list(options.expect)) == ("a", "b", ["resampled"])
    monkeypatch.setattr(sys, "argv", ["golden", "a", "b", "--only", "everything"])
    with pytest.raises(SystemExit):
        golden.parse()
