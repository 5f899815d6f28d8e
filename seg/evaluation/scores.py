"""Scores of cases and their summary: the records, and the files that hold them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from seg.evaluation.metrics import ClassScores
from seg.files import read_versioned, reading, write_json, write_text

METRICS = ("dice", "iou", "hd95_mm", "nsd", "volume_difference_ml", "volume_difference_ratio")
"""The scores that are summarised, by their names in `ClassScores`."""

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class CaseScore:
    """Scores of one class in one case.

    Attributes:
        case_id: The case.
        patient: The patient that the case is of; cases of one patient are resampled together.
        fold: The fold whose validation set held the case, or None outside a cross-validation.
        class_index: The class, 1 or more.
        class_name: Its name.
        scores: Its scores.
    """

    case_id: str
    patient: str
    fold: int | None
    class_index: int
    class_name: str
    scores: ClassScores


@dataclass(frozen=True, kw_only=True)
class MetricSummary:
    """One metric of one class over all cases.

    Attributes:
        mean: Mean of the finite values; None where there is none.
        sd: Sample standard deviation of the finite values; None below two of them.
        ci95: 95 % bootstrap interval of the mean; None below two patients with a finite value.
        count: Number of finite values.
        nan: Number of NaN values: both masks empty.
        infinite: Number of infinite values: one mask empty.
    """

    mean: float | None
    sd: float | None
    ci95: Interval | None
    count: int
    nan: int
    infinite: int


@dataclass(frozen=True, kw_only=True)
class ClassSummary:
    """All metrics of one class, by the names in `METRICS`."""

    index: int
    name: str
    metrics: Mapping[str, MetricSummary]


@dataclass(frozen=True, kw_only=True)
class FoldSummary:
    """Mean Dice of the cases of one fold, defined as in `Evaluation`."""

    fold: int
    mean_dice: float | None
    mean_dice_ci95: Interval | None
    num_cases: int


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Summary of the scores of a set of cases.

    Attributes:
        mean_dice: Mean over foreground classes of the mean over cases; None where no class has a Dice.
        mean_dice_ci95: Its 95 % bootstrap interval; None below two patients.
        num_cases: Number of cases.
        num_patients: Number of patients; intervals resample these.
        nsd_tolerance_mm: Tolerance of NSD, in mm.
        bootstrap: Number of resamples and the seed they were drawn from.
        classes: One summary for each foreground class, by index.
        folds: One summary for each fold, where cases have one.
        left_out: One sentence for each case that was to be scored and could not be, where that was allowed.
    """

    mean_dice: float | None
    mean_dice_ci95: Interval | None
    num_cases: int
    num_patients: int
    nsd_tolerance_mm: float
    bootstrap: Mapping[str, int]
    classes: tuple[ClassSummary, ...]
    folds: tuple[FoldSummary, ...]
    left_out: tuple[str, ...] = ()


def case_scores(
    scores: Mapping[int, ClassScores],
    *,
    case_id: str,
    class_names: Sequence[str],
    patient: str | None = None,
    fold: int | None = None,
) -> list[CaseScore]:
    """Labels what `seg.evaluation.metrics.score_case` gives for one case.

    Args:
        scores: Scores by class index.
        case_id: The case.
        class_names: Names by class index, background first.
        patient: The patient, or None where each case is a patient of its own.
        fold: The fold whose validation set held the case.

    Returns:
        One record for each class.
    """
    return [
        CaseScore(
            case_id=case_id,
            patient=patient or case_id,
            fold=fold,
            class_index=index,
            class_name=class_names[index],
            scores=score,
        )
        for index, score in sorted(scores.items())
    ]


SCHEMA_VERSION = 1
EVALUATION_FILE = "evaluation.json"
CASES_FILE = "cases.csv"

_WHAT = {"what": "a complete result file", "remedy": "give the output folder of an evaluation, or evaluate again"}

_SCORE_COLUMNS = tuple(field.name for field in fields(ClassScores))
_CASE_COLUMNS = ("case_id", "patient", "fold", "class_index", "class_name")


def write_evaluation(output: Path, evaluation: Evaluation, scores: Sequence[CaseScore]) -> None:
    """Writes cases.csv and then evaluation.json; each appears whole or not at all.

    Args:
        output: Folder, made where it does not exist; result files in it are replaced.
        evaluation: The summary.
        scores: The scores that it summarises.

    Raises:
        RunError: The folder cannot be written or the disk is full.
    """
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, fieldnames=_CASE_COLUMNS + _SCORE_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for record in scores:
        row = {name: getattr(record, name) for name in _CASE_COLUMNS} | asdict(record.scores)
        writer.writerow(row)
    # The mean stands first: it is what a reader opens the file for.
    values = asdict(evaluation)
    content = {"mean_dice": values.pop("mean_dice"), "mean_dice_ci95": values.pop("mean_dice_ci95")}
    write_text(output / CASES_FILE, table.getvalue())
    write_json(output / EVALUATION_FILE, content | {"schema_version": SCHEMA_VERSION} | values)


def read_evaluation(path: Path) -> Evaluation:
    """Reads a summary.

    Args:
        path: An evaluation.json, or the folder that holds one.

    Returns:
        The summary.

    Raises:
        RunError: The file is missing, damaged or of a newer version.
    """
    path = path / EVALUATION_FILE if path.is_dir() else path
    with reading(path, **_WHAT):
        return _parse_evaluation(read_versioned(path, SCHEMA_VERSION))


def read_cases(path: Path) -> list[CaseScore]:
    """Reads the scores of cases.

    Args:
        path: A cases.csv, or the folder that holds one.

    Returns:
        One record for each case and class, in the order of the file.

    Raises:
        RunError: The file is missing or damaged, or the evaluation.json beside it is damaged or of a newer version.
    """
    path = path / CASES_FILE if path.is_dir() else path
    summary = path.with_name(EVALUATION_FILE)
    if summary.is_file():
        with reading(summary, **_WHAT):
            read_versioned(summary, SCHEMA_VERSION)
    with reading(path, **_WHAT):
        return [_parse_case(row) for row in csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))]


def _parse_interval(values: Sequence[float] | None) -> Interval | None:
    """Gives an interval as a pair."""
    if values is None:
        return None
    low, high = values
    return float(low), float(high)


def _parse_metric(content: Mapping[str, Any]) -> MetricSummary:
    """Gives one metric's summary."""
    return MetricSummary(**{**content, "ci95": _parse_interval(content["ci95"])})


def _parse_evaluation(content: Mapping[str, Any]) -> Evaluation:
    """Gives the summary that the values of a result file stand for."""
    classes = tuple(
        ClassSummary(
            index=entry["index"],
            name=entry["name"],
            metrics={metric: _parse_metric(values) for metric, values in entry["metrics"].items()},
        )
        for entry in content["classes"]
    )
    folds = tuple(
        FoldSummary(**{**entry, "mean_dice_ci95": _parse_interval(entry["mean_dice_ci95"])})
        for entry in content["folds"]
    )
    parsed = {
        "classes": classes,
        "folds": folds,
        "mean_dice_ci95": _parse_interval(content["mean_dice_ci95"]),
        "left_out": tuple(content.get("left_out", ())),  # earlier files have none
    }
    return Evaluation(**{**content, **parsed})


def _parse_case(row: Mapping[str, str]) -> CaseScore:
    """Gives the record that one row stands for; an empty fold is none."""
    return CaseScore(
        case_id=row["case_id"],
        patient=row["patient"],
        fold=int(row["fold"]) if row["fold"] else None,
        class_index=int(row["class_index"]),
        class_name=row["class_name"],
        scores=ClassScores(**{name: float(row[name]) for name in _SCORE_COLUMNS}),
    )
