"""The classes of which keeping the largest component alone raises Dice, found on held-out cases."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from seg.data.cases import Case
from seg.data.volumes import read_classes
from seg.evaluation.metrics import finite_mean
from seg.evaluation.scores import CaseScore
from seg.files import read_json, write_json
from seg.inference.cleaning import CleaningRule, clean_labels
from seg.inference.exported import ExportedRun, Share
from seg.runs import TrainedRun
from seg.words import counted

CHOICE_FILE = "postprocessing.json"
CHOICE_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class ClassChoice:
    """What keeping the largest component does to a class.

    Attributes:
        name: The class.
        largest_component: Whether its largest component alone is kept: where that raises the mean Dice.
        dice: Mean over patients of their cases' mean Dice without it; None where no case has a Dice.
        dice_largest: The same with it.
        changed_cases: Cases in which it removes voxels.
    """

    name: str
    largest_component: bool
    dice: Share | None
    dice_largest: Share | None
    changed_cases: Annotated[int, Field(ge=0)]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The choice of every foreground class, and what it was made on.

    Attributes:
        models: SHA-256 of the weights that predicted the cases, one a fold; the choice is for these alone.
        cases: Held-out cases.
        patients: Their patients.
        classes: A choice for each class.
    """

    models: tuple[str, ...]
    cases: Annotated[int, Field(ge=1)]
    patients: Annotated[int, Field(ge=1)]
    classes: tuple[ClassChoice, ...]

    @property
    def largest(self) -> tuple[str, ...]:
        """Classes of which the largest component alone is kept."""
        return tuple(one.name for one in self.classes if one.largest_component)

    def __str__(self) -> str:
        untried = [one.name for one in self.classes if one.dice is None]
        left = f"; not known for {', '.join(untried)}, without scores of their own" if untried else ""
        if not self.largest:
            return f"post-processing: keeping the largest component alone raises the Dice of no class{left}"
        before = finite_mean(one.dice for one in self.classes)
        after = finite_mean(one.dice_largest if one.largest_component else one.dice for one in self.classes)
        return (
            f"post-processing: keeping the largest component alone of {', '.join(self.largest)} raises the mean Dice "
            f"of {counted(self.patients, 'patient')} from {before:.4f} to {after:.4f}; the second is optimistic, as "
            f"the choice was made on the same cases; predictions of new scans are made so{left}"
        )


def choose(
    scores: Sequence[CaseScore],
    cases: Iterable[Case],
    predictions: Mapping[str, Path],
    *,
    class_names: Sequence[str],
    ignore_label: int | None,
    models: Sequence[str],
) -> Choice:
    """Finds out of which classes the largest component alone should be kept.

    Classes do not touch each other: what is removed becomes background, so that each is chosen by itself.

    Args:
        scores: Scores of the cases as they were predicted.
        cases: The cases, each with a label.
        predictions: Label map of each case.
        class_names: Names by class index, the background first.
        ignore_label: Value of reference voxels that count for neither side.
        models: SHA-256 of the weights that made the label maps.

    Raises:
        DataError: A label map or a label cannot be read.
    """
    changed: dict[tuple[str, int], float] = {}
    for case in cases:
        dice = _cleaned_dice(predictions[case.id], case, len(class_names), ignore_label)
        changed |= {(case.id, index): value for index, value in dice.items()}
    classes = []
    for index, name in enumerate(class_names[1:], start=1):
        own = [score for score in scores if score.class_index == index]
        before = _patient_mean([(score.patient, score.scores.dice) for score in own])
        after = _patient_mean([(one.patient, changed.get((one.case_id, index), one.scores.dice)) for one in own])
        classes.append(
            ClassChoice(
                name=name,
                largest_component=before is not None and after is not None and after > before,
                dice=before,
                dice_largest=after,
                changed_cases=sum(one == index for _, one in changed),
            )
        )
    return Choice(
        models=tuple(models),
        cases=len({score.case_id for score in scores}),
        patients=len({score.patient for score in scores}),
        classes=tuple(classes),
    )


def _cleaned_dice(predicted: Path, case: Case, num_classes: int, ignore_label: int | None) -> dict[int, float]:
    """Returns the Dice of each class that loses voxels where its largest component alone is kept."""
    assert case.label is not None
    expected = read_classes(case.label, classes=case.classes, on=case.label_on)
    labels = read_classes(predicted, expected.affine, case.classes).array
    rule = CleaningRule(largest=True, min_volume_ml=0.0)
    removed = clean_labels(labels, dict.fromkeys(range(1, num_classes), rule), 1.0)
    changed = [index for index, voxels in removed.items() if voxels > 0]
    if not changed:
        return {}
    reference = expected.array
    if ignore_label is not None:
        labels[reference == ignore_label] = 0
    return {index: _dice(labels == index, reference == index) for index in changed}


def _dice(prediction: npt.NDArray[np.bool_], reference: npt.NDArray[np.bool_]) -> float:
    total = np.count_nonzero(prediction) + np.count_nonzero(reference)
    return 2.0 * np.count_nonzero(prediction & reference) / total if total else math.nan


def _patient_mean(values: Sequence[tuple[str, float]]) -> float | None:
    """Returns the mean over patients of the mean of their values; NaN is left out."""
    by_patient: dict[str, list[float]] = {}
    for patient, value in values:
        if math.isfinite(value):
            by_patient.setdefault(patient, []).append(value)
    return fmean(map(fmean, by_patient.values())) if by_patient else None


def write_choice(folder: Path, choice: Choice) -> None:
    """Writes postprocessing.json into a folder."""
    write_json(folder / CHOICE_FILE, {"schema_version": CHOICE_VERSION, **asdict(choice)})


def read_choice(run: TrainedRun) -> Choice | None:
    """Reads what was chosen for a run: with all folds of the cross-validation that it lies in, or by itself.

    Returns:
        The choice; None where the configuration says what is kept, or nothing was chosen for these weights.

    Raises:
        RunError: A record is damaged, or of a newer version.
    """
    found = _stored_choice(run)
    return None if found is None else found[1]


def choice_file(run: TrainedRun) -> Path | None:
    """Returns the file of what was chosen for a run; see :func:`read_choice`."""
    found = _stored_choice(run)
    return None if found is None else found[0]


def _stored_choice(run: TrainedRun) -> tuple[Path, Choice] | None:
    if run.config.postprocessing.largest_component is not None:
        return None
    for path in (run.path.absolute().parent / CHOICE_FILE, run.path / CHOICE_FILE):
        if path.is_file():
            choice = read_json(path, Choice, newest=CHOICE_VERSION, remedy="restore the file, or remove it")
            names = tuple(one.name for one in choice.classes)
            if run.description()["weights_sha256"] in choice.models and names == run.class_names[1:]:
                return path, choice
    return None


def chosen_classes(runs: Sequence[TrainedRun]) -> tuple[str, ...]:
    """Returns the classes of which the largest component alone is kept where runs are averaged: all runs chose these.

    Raises:
        RunError: A record is damaged, or of a newer version.
    """
    kept = [_largest(run) for run in runs]
    return tuple(name for name in runs[0].class_names if all(name in names for names in kept))


def _largest(run: TrainedRun) -> tuple[str, ...]:
    """Returns the classes of which the largest component alone is kept by what was chosen for a run."""
    if isinstance(run, ExportedRun):
        return run.record.largest_component
    choice = read_choice(run)
    return () if choice is None else choice.largest
