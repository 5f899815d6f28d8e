"""Scores of cases and their summary: the records, and the files evaluation.json (summary) and cases.csv (scores).

A table has no place for a version: that of evaluation.json, which is written with it, counts for both. Readers take
the metrics that a file has: a score that is missing is NaN, and scores of other versions are kept by their names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from seg.errors import Problem, RunError
from seg.evaluation.metrics import RANGES, ClassScores
from seg.files import MOST_PROBLEMS, check_rows, quoted, read_json, read_table, table_text, write_json, write_text

EVALUATION_VERSION = 1
EVALUATION_FILE = "evaluation.json"
CASES_FILE = "cases.csv"
REMEDY = "give the output folder of an evaluation, or evaluate again"
CASE_COLUMNS = ("case_id", "patient", "fold", "class_index", "class_name")

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
        nan: Number of NaN values: both masks empty, or not measured.
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


def _as_problem(stored: object) -> object:
    """Returns a problem that an earlier version stored as a sentence; those of this version as they are."""
    return Problem("", "other", stored) if isinstance(stored, str) else stored


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
        left_out: What is wrong with each case that was to be scored and could not be, where that was allowed.
        seen: Cases of patients that the initial weights were trained on, where that was allowed.
    """

    mean_dice: float | None
    mean_dice_ci95: Interval | None
    num_cases: int
    num_patients: int
    nsd_tolerance_mm: float
    bootstrap: Mapping[str, int]
    classes: tuple[ClassSummary, ...]
    folds: tuple[FoldSummary, ...]
    left_out: tuple[Annotated[Problem, BeforeValidator(_as_problem)], ...] = ()
    seen: tuple[str, ...] = ()


def case_scores(
    scores: Mapping[int, ClassScores],
    *,
    case_id: str,
    class_names: Sequence[str],
    patient: str | None = None,
    fold: int | None = None,
) -> list[CaseScore]:
    """Labels the scores of one case by class index; a patient of None makes the case a patient of its own."""
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


def write_evaluation(output: Path, evaluation: Evaluation, scores: Sequence[CaseScore]) -> None:
    """Writes cases.csv and then evaluation.json into a folder; each appears whole or not at all.

    Raises:
        RunError: The folder cannot be written or the disk is full.
    """
    rows = [{name: getattr(record, name) for name in CASE_COLUMNS} | record.scores.by_name() for record in scores]
    columns = () if rows else (*CASE_COLUMNS, *ClassScores().by_name())
    # The mean stands first: it is what a reader opens the file for.
    values = asdict(evaluation)
    content = {"mean_dice": values.pop("mean_dice"), "mean_dice_ci95": values.pop("mean_dice_ci95")}
    write_text(output / CASES_FILE, table_text(rows, columns=columns, absent="nan", escape=True))
    write_json(output / EVALUATION_FILE, content | {"schema_version": EVALUATION_VERSION} | values)


def read_evaluation(path: Path) -> Evaluation:
    """Reads an evaluation.json, or that of a folder.

    Raises:
        RunError: The file is missing, damaged or of a newer version.
    """
    path = path / EVALUATION_FILE if path.is_dir() else path
    return read_json(path, Evaluation, newest=EVALUATION_VERSION, remedy=REMEDY)


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A row of cases.csv, its scores by column."""

    case_id: Annotated[str, Field(min_length=1)]
    patient: str
    fold: Annotated[int | None, BeforeValidator(lambda cell: cell or None)]
    class_index: Annotated[int, Field(ge=1)]
    class_name: str
    scores: dict[str, float]


def read_cases(path: Path) -> list[CaseScore]:
    """Reads a cases.csv, or that of a folder: one record for each case and class, in the order of the file.

    Raises:
        RunError: The file is missing or damaged, a score is out of its range, or the evaluation.json beside it is
            damaged or of a newer version.
    """
    path = path / CASES_FILE if path.is_dir() else path
    summary = path.with_name(EVALUATION_FILE)
    if summary.is_file():
        read_evaluation(summary)
    table = read_table(path, columns=(*CASE_COLUMNS, "dice"), escaped=True, remedy=REMEDY)
    nested = [
        {name: row[name] for name in CASE_COLUMNS if name in row}
        | {"scores": {name: cell for name, cell in row.items() if name not in CASE_COLUMNS}}
        for row in table
    ]
    rows = check_rows(path, nested, _Row, remedy=REMEDY)
    check_ranges(path, [row.scores for row in rows], remedy=REMEDY)
    return [CaseScore(**vars(row) | {"scores": ClassScores.from_names(row.scores)}) for row in rows]


def check_ranges(path: Path, rows: Sequence[Mapping[str, object]], *, remedy: str) -> None:
    """Checks that the scores in rows of a cases.csv, by column, lie in their ranges or are NaN.

    Raises:
        RunError: One does not; the first of them are named.
    """
    problems = [
        Problem(
            f"{quoted(str(path))}: [{number}].{name}", "range", f"must be in [{low:g}, {high:g}]", f"{value:g}", remedy
        )
        for number, row in enumerate(rows)
        for name, (low, high) in RANGES.items()
        if isinstance(value := row.get(name), float) and (value < low or value > high)
    ]
    if problems:
        raise RunError(problems[:MOST_PROBLEMS])
