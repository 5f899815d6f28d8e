"""The picture of a run: its worst, its median and its best case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from seg.data.cases import Case, Dataset
from seg.errors import DataError
from seg.evaluation import CaseScore
from seg.figures.grid import prediction_grid
from seg.figures.sources import CaseFiles, read_case
from seg.figures.views import FigureRow, pick_cases
from seg.metrics import finite_mean


def draw_predictions(
    path: Path, cases: Sequence[Case], predictions: Path, scores: Sequence[CaseScore], dataset: Dataset
) -> None:
    """Draws the worst, the median and the best case of a set over the first channel of their images.

    Args:
        path: The PNG; replaced where it exists.
        cases: The scored cases, one or more, each with a label.
        predictions: Folder of CASE.nii.gz label maps on the images' grids.
        scores: The scores of these cases; where none has a Dice, the first case is drawn.
        dataset: The data set, for the names of classes and the label value to ignore.

    Raises:
        DataError: A file cannot be read, or a case to be drawn has no label.
        RunError: The picture cannot be written.
    """
    dice: dict[str, dict[int, float]] = {case.id: {} for case in cases}
    for score in scores:
        dice[score.case_id][score.class_index] = score.scores.dice
    means = {case_id: finite_mean(values.values()) for case_id, values in dice.items()}
    by_id = {case.id: case for case in cases}
    picked = pick_cases(means) or {"": cases[0].id}
    rows = [_read_row(by_id[case_id], predictions, dice[case_id], note, dataset) for note, case_id in picked.items()]
    prediction_grid(path, rows, class_names=dataset.class_names)


def _read_row(case: Case, predictions: Path, dice: dict[int, float], note: str, dataset: Dataset) -> FigureRow:
    """Reads the volumes of one case."""
    if case.label is None:
        raise DataError(f"case {case.id}: a case to draw needs a label, got none; add one to the data set.")
    files = CaseFiles(prediction=predictions / f"{case.id}.nii.gz", label=case.label, images=case.images)
    return replace(read_case(case.id, files, ignore_label=dataset.ignore_label).row, dice=dice, note=note)
