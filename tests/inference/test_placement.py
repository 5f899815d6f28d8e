"""Label maps depend on what a scan holds, and not on how its files store it."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from seg.config import DataConfig
from seg.inference.model import Model
from seg.inference.predictor import Predictor, predict_case
from tests.data.test_prepare import AXES, CHANGES, save, scan, stored
from tests.inference.sweeps import network


def ras_labels(predictor, paths):
    predicted = predict_case(predictor, paths)
    orientation = nib.io_orientation(predicted.geometry.affine)
    np.testing.assert_allclose(predicted.geometry.affine, nib.load(paths[0]).affine, rtol=1e-2)
    return nib.orientations.apply_orientation(predicted.labels, orientation)


@pytest.mark.parametrize("change", [name for name in CHANGES if name not in ("micron", "metre")])
@pytest.mark.parametrize("resampled", [False, True])
def test_how_a_scan_is_stored_changes_no_label(tmp_path, change, resampled):
    for seed in range(6):
        channels, _, affine, spacing_mm = scan(seed)
        predictor = Predictor(
            models=[Model(network=network(), window=(8, 8, 8))],
            data=DataConfig(spacing_mm=spacing_mm if resampled else None),
            channel_names=("a", "b"),
            class_names=("background", "organ", "tumour"),
        )
        plain = ras_labels(predictor, [save(tmp_path / f"{n}.nii", array, affine) for n, array in enumerate(channels)])
        orders = np.random.default_rng(seed).choice(AXES, 2)
        others = [
            stored(tmp_path / f"other{n}.nii", array, affine, codes, **CHANGES[change])
            for n, (array, codes) in enumerate(zip(channels, orders, strict=True))
        ]
        assert len(np.unique(plain)) > 1
        np.testing.assert_array_equal(ras_labels(predictor, others), plain)
