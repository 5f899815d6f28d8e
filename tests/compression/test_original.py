"""What networks are measured by: windows with foreground, and scores that ignored voxels do not touch."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from seg.compression.original import window
from seg.config import ExperimentConfig, PatchConfig
from seg.data.cases import Case
from tests.compression.validation import scores

IGNORED = 3


def test_the_window_of_most_foreground_is_not_one_of_ignored_voxels(tmp_path: Path) -> None:
    label = np.zeros((24, 8, 8), np.uint8)
    label[2:4], label[18:22] = 1, IGNORED
    image = np.random.default_rng(0).normal(size=label.shape).astype(np.float32)
    for name, array in (("image", image), ("label", label)):
        nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / f"{name}.nii")
    case = Case(id="a", images=(tmp_path / "image.nii",), label=tmp_path / "label.nii")
    config = ExperimentConfig(patches=PatchConfig(size=(8, 8, 8)))
    for ignored, values in ((IGNORED, {0, 1}), (None, {0, IGNORED})):
        cut, found = window(case, config, ignored)
        assert cut.shape == (1, 1, 8, 8, 8)
        assert set(found.unique().tolist()) == values


def test_ignored_voxels_count_nowhere() -> None:
    stream = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 3, 4, 4, 4, generator=stream)
    label = torch.randint(0, 3, (4, 4, 4), generator=stream)
    label[2:] = IGNORED
    dice, entropy, probabilities = scores(logits, label, IGNORED)
    alone = scores(logits[:, :, :2], label[:2], None)
    assert dice == pytest.approx(alone[0])
    assert entropy == pytest.approx(float(torch.nn.functional.cross_entropy(logits, label[None], ignore_index=IGNORED)))
    assert torch.equal(probabilities, alone[2])
