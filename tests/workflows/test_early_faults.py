"""What cannot be trained ends before a run directory is made."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from seg.config import DataConfig, ExperimentConfig, LossConfig, NetworkConfig, PatchConfig
from seg.errors import SegError
from seg.workflows.train import train


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two cases of two channels, with a manifest."""
    root = tmp_path / "data"
    root.mkdir()
    label = np.zeros((8, 8, 8), dtype=np.uint8)
    label[2:5, 2:5, 2:5] = 1
    cases = [{"id": name, "image": f"{name}.nii", "label": f"{name}_label.nii"} for name in "ab"]
    for case in cases:
        nib.save(nib.Nifti1Image(label, np.eye(4)), root / case["label"])
        nib.save(nib.Nifti1Image(np.stack([label * 2.0, label * 3.0], -1), np.eye(4)), root / case["image"])
    (root / "manifest.json").write_text(json.dumps({"cases": cases, "labels": {"background": 0, "box": 1}}))
    return root


def test_what_cannot_be_trained_is_named_before_a_voxel_is_read(root: Path, tmp_path: Path) -> None:
    file, run_dir, old = tmp_path / "file", tmp_path / "run", tmp_path / "old"
    file.touch()
    old.mkdir()
    (old / "notes.txt").touch()
    (root / "a.nii").write_bytes(b"damaged")
    plain = DataConfig(root=str(root), folds=2)
    for data, folder, fold, named in (
        (replace(plain, cache_dir=str(file / "cache"), cache="disk"), run_dir, 0, "data.cache_dir"),
        (plain, run_dir, 3, "fold must be in 0 ... 1, got 3"),
        (plain, old, 0, str(old)),
    ):
        with pytest.raises(SegError) as caught:
            train(ExperimentConfig(data=data), run_dir=folder, folds=[fold])
        assert str(caught.value).startswith(named)
    assert not run_dir.exists()


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("fold", [0, 1])
def test_a_fold_is_not_trained_where_folds_lie_but_in_its_own(
    root: Path, tmp_path: Path, fold: int, resume: bool
) -> None:
    for number in (0, 1):
        (tmp_path / "cv" / f"fold_{number}").mkdir(parents=True)
        (tmp_path / "cv" / f"fold_{number}" / "config.yaml").touch()
    config = ExperimentConfig(data=DataConfig(root=str(root), folds=2))
    with pytest.raises(SegError) as caught:
        train(config, run_dir=tmp_path / "cv", folds=[fold], resume=resume)
    (problem,) = caught.value.problems
    assert (problem.path, problem.kind, problem.value) == (str(tmp_path / "cv"), "folds", "2 folds")
    assert str(tmp_path / "cv" / f"fold_{fold}") in problem.remedy


def test_normalisation_of_other_channels_is_named_before_a_run_directory_is_made(root: Path, tmp_path: Path) -> None:
    data = DataConfig(root=str(root), folds=2, normalization=("zscore", "zscore", "none"))
    with pytest.raises(SegError) as caught:
        train(ExperimentConfig(data=data), run_dir=tmp_path / "run", folds=[0])
    assert str(caught.value).startswith("data.normalization ")
    assert not (tmp_path / "run").exists()


def test_weights_of_other_classes_are_named_before_a_run_directory_is_made(root: Path, tmp_path: Path) -> None:
    config = ExperimentConfig(data=DataConfig(root=str(root), folds=2), loss=LossConfig(class_weights=(1.0, 2.0, 3.0)))
    with pytest.raises(SegError) as caught:
        train(config, run_dir=tmp_path / "run", folds=[0])
    assert [(problem.path, problem.value) for problem in caught.value.problems] == [("loss.class_weights", "3")]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changed",
    [{"patches": PatchConfig(size=(100_000,) * 3)}, {"network": NetworkConfig(channels=(8, 16, 32, 1_000_000))}],
)
def test_a_step_beyond_all_memory_is_named_before_a_run_directory_is_made(
    root: Path, tmp_path: Path, changed: dict[str, Any]
) -> None:
    config = replace(ExperimentConfig(data=DataConfig(root=str(root), folds=2)), **changed)
    with pytest.raises(SegError) as caught:
        train(config, run_dir=tmp_path / "run", folds=[0])
    assert [(problem.path, problem.kind) for problem in caught.value.problems] == [("patches.size", "memory")]
    assert not (tmp_path / "run").exists()
