"""Pictures of the worst, median and best held-out cases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from seg.data.cases import Case
from seg.data.nifti import read_volume
from seg.evaluation import CaseScore
from seg.figures.grid import prediction_grid
from seg.figures.views import FigureRow, pick_cases


def draw_cases(
    path: Path, cases: Sequence[Case], predictions: Path, scores: Sequence[CaseScore], *, class_names: Sequence[str]
) -> None:
    """Draws the worst, the median and the best case by mean Dice.

    Args:
        path: The PNG.
        cases: The scored cases.
        predictions: Folder of their label maps, ``CASE.nii.gz``.
        scores: Their scores.
        class_names: Names by class index, background first.
    """
    dice: dict[str, dict[int, float]] = {}
    for score in scores:
        dice.setdefault(score.case_id, {})[score.class_index] = score.scores.dice
    means = {case_id: _mean(list(values.values())) for case_id, values in dice.items()}
    by_id = {case.id: case for case in cases}
    rows = [
        _row(by_id[case_id], predictions / f"{case_id}.nii.gz", dice[case_id], note)
        for note, case_id in pick_cases(means).items()
    ]
    if rows:
        prediction_grid(path, rows, class_names=class_names)


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")


def _row(case: Case, prediction: Path, dice: dict[int, float], note: str) -> FigureRow:
    image, spacing_mm = _ras(case.images[0])
    return FigureRow(
        case_id=case.id,
        image=image[..., 0] if image.ndim == 4 else image,
        prediction=_ras(prediction)[0].astype(np.uint8),
        reference=None if case.label is None else _ras(case.label)[0].round().astype(np.uint8),
        spacing_mm=spacing_mm,
        dice=dice,
        note=note,
    )


def _ras(path: Path) -> tuple[npt.NDArray[Any], tuple[float, float, float]]:
    volume = read_volume(path)
    orientation = nib.orientations.io_orientation(volume.affine)
    array: npt.NDArray[Any] = nib.orientations.apply_orientation(volume.array, orientation)
    order = [int(axis) for axis in np.argsort(orientation[:, 0])]
    x, y, z = (volume.spacing_mm[axis] for axis in order)
    return array, (x, y, z)
