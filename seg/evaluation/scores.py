"""Records: the scores of cases and what they are summarised to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from seg.metrics import ClassScores

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
    """Labels what `seg.metrics.score_case` gives for one case.

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
