"""Two folders of label maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.volumes import block, save


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    predictions, labels, output = tmp_path / "predictions", tmp_path / "labels", tmp_path / "output"
    for number, shift in enumerate((0, 1, 2)):
        save(predictions / f"p{number // 2}_{number}.nii.gz", block(2 + shift))
        save(labels / f"p{number // 2}_{number}.nii.gz", block(2).astype(np.float32))
    return predictions, labels, output
