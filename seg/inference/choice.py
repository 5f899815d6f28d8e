"""The classes of which keeping the largest component alone raises Dice, found on held-out cases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
        left = f"; not known for {', '.join(untried)}, which no case has" if untried else ""
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
    cases: Sequence[Case],
    predictions: Mapping[str, Path],
    *,
    class_names: Sequence[str],
    ignore_label: int | None,
    models: Sequence[str],
) -> Choice:
    """Finds out of which classes the largest component alone should be kept.

    Classes do not touch each other: what is removed becomes background, so that each is chosen by itself. Where scores
    are of regions, the classes are their parts, and each is chosen by its own Dice.

    Args:
        cases: The cases, each with a label.
        predictions: Label map of each case, as it was predicted.
        class_names: Names by class index, the background first.
        ignore_label: Value of reference voxels that count for neither side.
        models: SHA-256 of the weights that made the label maps.

    Raises:
        DataError: A label map or a label cannot be read.
    """
    patients = [case.patient_or_id for case in cases]
    pairs = [_dice_of_both(predictions[case.id], case, len(class_names), ignore_label) for case in cases]
    classes = []
    for index, name in enumerate(class_names[1:], start=1):
        before, after = (
            _patient_mean([(patient, pair[side][index]) for patient, pair in zip(patients, pairs, strict=True)])
            for side in (0, 1)
        )
        classes.append(
            ClassChoice(
                name=name,
                largest_component=before is not None and after is not None and after > before,
                dice=before,
                dice_largest=after,
                changed_cases=sum(removed[index] > 0 for _, _, removed in pairs),
            )
        )
    return Choice(models=tuple(models), cases=len(cases), patients=len(set(patients)), classes=tuple(classes))


def _dice_of_both(
    predicted: Path, case: Case, num_classes: int, ignore_label: int | None
) -> tuple[list[float], list[float], Mapping[int, float]]:
    """Returns the Dice by class as predicted and with the largest components alone, and the voxels that these lose."""
    assert case.label is not None
    expected = read_classes(case.label, classes=case.classes, on=case.label_on)
    labels = read_classes(predicted, expected.affine, case.classes).array
    reference = expected.array
    counted_too = slice(None) if ignore_label is None else reference != ignore_label
    before = _dice(labels[counted_too], reference[counted_too], num_classes)
    rule = CleaningRule(largest=True, min_volume_ml=0.0)
    removed = clean_labels(labels, dict.fromkeys(range(1, num_classes), rule), 1.0)
    after = _dice(labels[counted_too], reference[counted_too], num_classes) if any(removed.values()) else before
    return before, after, removed


def _dice(prediction: npt.NDArray[np.integer], reference: npt.NDArray[np.integer], num_classes: int) -> list[float]:
    """Returns the Dice by class index; NaN where neither side has the class."""
    both = prediction[prediction == reference]
    common, ours, theirs = (np.bincount(one.ravel(), minlength=num_classes) for one in (both, prediction, reference))
    pairs = zip(common[:num_classes], ours[:num_classes] + theirs[:num_classes], strict=True)
    return [float(2 * shared / total) if total else math.nan for shared, total in pairs]


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


def stored_choice(run: TrainedRun) -> tuple[Path, Choice] | None:
    """Reads what was chosen for a run: with all folds of the cross-validation that it lies in, or by itself.

    Returns:
        The file and the choice; None where the configuration says what is kept, or nothing was chosen for these
        weights.

    Raises:
        RunError: A record is damaged, or of a newer version.
    """
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
    found = stored_choice(run)
    return () if found is None else found[1].largest
