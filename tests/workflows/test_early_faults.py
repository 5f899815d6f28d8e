"""What cannot be trained ends before a run directory is made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from seg.config import DataConfig, ExperimentConfig
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


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"normalization": ("zscore", "zscore", "none")}, "data.normalization must name one mode for all channels or "),
        ({"cache_dir": "FILE/cache", "cache": "disk"}, "data.cache_dir must be a folder that can be written, got "),
    ],
)
def test_the_fault_is_a_sentence(root: Path, tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    (tmp_path / "file").touch()
    if "cache_dir" in fields:
        fields = fields | {"cache_dir": fields["cache_dir"].replace("FILE", str(tmp_path / "file"))}
    config = ExperimentConfig(data=DataConfig(root=str(root), folds=2, **fields))
    with pytest.raises(SegError) as caught:
        train(config, run_dir=tmp_path / "run", folds=[0])
    assert str(caught.value).startswith(message)
    assert not (tmp_path / "run").exists()


def test_no_voxel_is_read_for_a_run_that_cannot_begin(root: Path, tmp_path: Path) -> None:
    (root / "a.nii").write_bytes(b"damaged")
    config = ExperimentConfig(data=DataConfig(root=str(root), folds=2))
    with pytest.raises(SegError, match=r"^fold must be in 0 \.\.\. 1, got 3; choose one of these or all\.$"):
        train(config, run_dir=tmp_path / "run", folds=[3])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").touch()
    with pytest.raises(SegError, match=r"must be absent or an empty folder, got other files"):
        train(config, run_dir=tmp_path / "run", folds=[0])
