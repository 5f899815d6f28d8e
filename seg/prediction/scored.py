"""Prediction of a case and its scores."""

from __future__ import annotations

from pathlib import Path

from seg.data.cases import Case, Dataset
from seg.data.nifti import read_volume
from seg.data.writing import write_labels
from seg.errors import DataError
from seg.metrics import ClassScores, score_case
from seg.prediction.case import Predictor, predict_case


def score_prediction(
    predictor: Predictor, case: Case, written: Path, dataset: Dataset, *, nsd_tolerance_mm: float
) -> dict[int, ClassScores]:
    """Predicts a case, writes its label map and scores that.

    Args:
        predictor: What to predict with.
        case: The case.
        written: File of the label map.
        dataset: The data set, for its classes and the label value to ignore.
        nsd_tolerance_mm: Tolerance of the surface Dice, in mm.

    Returns:
        Scores by index of the foreground class.

    Raises:
        DataError: A file cannot be read or written, or the case has no label.
    """
    if case.label is None:
        raise DataError(f"case {case.id}: a scored case must have a label, got none; add one to the data set.")
    predicted = predict_case(predictor, case.images)
    write_labels(written, predicted.labels, predicted.geometry)
    # Both are read back the same way, so a label stored in another orientation than its image is met.
    reference = read_volume(case.label)
    return score_case(
        read_volume(written).array,
        reference.array.round().astype("uint8"),
        spacing_mm=reference.spacing_mm,
        num_classes=len(dataset.class_names),
        nsd_tolerance_mm=nsd_tolerance_mm,
        ignore_label=dataset.ignore_label,
    )
