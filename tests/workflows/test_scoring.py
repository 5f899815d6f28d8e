"""A predicted case is scored on the grid of its label."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from seg.data.cases import Case
from seg.data.geometry import geometry_of_affine
from seg.workflows import evaluate as module


@pytest.mark.parametrize(("shear", "said"), [(0.0, 0), (1.5, 1)])
def test_a_case_on_a_sheared_grid_has_its_volumes_and_says_once_that_it_has_no_distances(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, shear: float, said: int
) -> None:
    affine = np.diag([1.0, 2.0, 3.0, 1.0]) + shear * np.diag([1, 0, 0, 0]) @ np.eye(4, k=1)  # y leans along x
    labels = np.zeros((8, 7, 6), np.uint8)
    labels[2:5, 2:5, 2:5] = 1
    nib.save(nib.Nifti1Image(labels, affine), tmp_path / "label.nii.gz")
    predicted = SimpleNamespace(labels=labels, geometry=geometry_of_affine(labels.shape, affine))
    monkeypatch.setattr(module, "predict_case", lambda predictor, images: predicted)
    dataset: Any = SimpleNamespace(class_names=("background", "a"), ignore_label=None, scored={1: (1,)})
    case = Case(id=f"sheared_{shear}", images=(), label=tmp_path / "label.nii.gz")
    predictor: Any = None
    for _ in range(2):
        found = module.score_prediction(predictor, case, tmp_path / "out.nii.gz", dataset, nsd_tolerance_mm=1.0)[1]
    assert found.reference_ml == pytest.approx(27 * 6 / 1000)
    assert math.isnan(found.hd95_mm) is math.isnan(found.nsd) is bool(shear)
    assert len(caplog.messages) == said
