"""The records of a study's trials, and which of those that were planned are missing."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seg.ablation.preservation import read_preservation
from seg.ablation.records import FAILURE_FILE, TrialRecord, read_record, records_dir
from seg.ablation.report.speeds import read_speed
from seg.ablation.report.study import (
    DeviceSpeed,
    StudyRecord,
    damaged,
    read_record_file,
    read_study,
)
from seg.ablation.statistics import Curve, Pair
from seg.errors import RunError, SegError
from seg.evaluation.scores import CASES_FILE, CaseScore, read_cases
from seg.files import read_versioned, reading
from seg.runs import (
    CONFIG_FILE,
    ENVIRONMENT_FILE,
    ENVIRONMENT_VERSION,
    GENERALISATION_FILE,
    METRICS_FILE,
    PRESERVATION_FILE,
)


@dataclass(frozen=True, kw_only=True)
class TrialData:
    """All that is kept of one trial; what was not recorded is None, or empty.

    Attributes:
        record: The content of ``trial.json``.
        scores: Scores of its held-out cases; empty for a failed trial.
        curve: Validation Dice during training.
        generalisation: Dice on training cases beside that on held-out ones.
        preservation: What its bottlenecks preserve.
        environment: What it was trained with.
        config: Its configuration, as YAML.
        failure: What a failed trial ended with.
    """

    record: TrialRecord
    scores: tuple[CaseScore, ...]
    curve: Curve | None
    generalisation: Mapping[str, Any] | None
    preservation: Mapping[str, Any] | None
    environment: Mapping[str, Any] | None
    config: str
    failure: str

    @property
    def pair(self) -> Pair:
        """Fold and seed."""
        return self.record.fold, self.record.seed


@dataclass(frozen=True, kw_only=True)
class MissingTrial:
    """A trial that was planned and has no scores.

    Attributes:
        id: The trial.
        reason: ``not run``, or ``failed`` with its error.
    """

    id: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Records:
    """All records of a study.

    Attributes:
        study: Its plan.
        trials: Trials with a record by id, in the order of the plan.
        missing: Planned trials without scores, in the order of the plan.
        others: Trials with a record that the plan does not name; they are left out.
        speed: Speed by device, GPUs first.
    """

    study: StudyRecord
    trials: Mapping[str, TrialData]
    missing: tuple[MissingTrial, ...]
    others: tuple[str, ...]
    speed: tuple[DeviceSpeed, ...]

    @property
    def num_scored(self) -> int:
        """How many cases are scored, over folds; 0 where no trial is finished."""
        return len({score.case_id for trial in self.trials.values() for score in trial.scores})

    def finished(self, variant: str) -> tuple[TrialData, ...]:
        """Gives the finished trials of a variant, in the order of the plan."""
        return tuple(
            trial
            for trial in self.trials.values()
            if trial.record.variant == variant and trial.record.status == "finished"
        )

    def missing_of(self, variant: str) -> tuple[MissingTrial, ...]:
        """Gives the missing trials of a variant."""
        return tuple(trial for trial in self.missing if trial.id.startswith(f"{variant}.fold_"))


def read_records(folder: Path) -> Records:
    """Reads all records of a study directory.

    Args:
        folder: The study directory.

    Raises:
        RunError: A record is damaged or of a newer version; all problems are named together.
    """
    study = read_study(folder)
    problems: list[str] = []
    trials: dict[str, TrialData] = {}
    speed: tuple[DeviceSpeed, ...] = ()
    try:
        speed = read_speed(folder)
    except RunError as error:
        problems += error.sentences
    for trial_id in study.trials:
        try:
            trial = _read_trial(records_dir(folder, trial_id), study)
        except SegError as error:
            problems += error.sentences
        else:
            if trial is not None:
                trials[trial_id] = trial
    if problems:
        raise RunError(problems)
    present = sorted(path.parent.name for path in (folder / "trials").glob("*/trial.json"))
    return Records(
        study=study,
        trials=trials,
        missing=tuple(
            MissingTrial(id=trial_id, reason=_why_missing(trials.get(trial_id)))
            for trial_id in study.trials
            if trial_id not in trials or trials[trial_id].record.status != "finished"
        ),
        others=tuple(name for name in present if name not in study.trials and not name.startswith(".")),
        speed=speed,
    )


def _why_missing(trial: TrialData | None) -> str:
    if trial is None:
        return "not run"
    return f"failed: {trial.record.error}" if trial.record.error else "failed"


def _read_trial(folder: Path, study: StudyRecord) -> TrialData | None:
    """Reads the records of one trial; None where there are none."""
    record = read_record(folder)
    if record is None:
        return None
    if record.variant not in study.names:
        raise RunError(
            f"{folder}: a trial must be of a variant of the study, got {record.variant!r}; remove the folder, or start "
            "the study again to write its plan anew."
        )
    finished = record.status == "finished"
    return TrialData(
        record=record,
        scores=tuple(read_cases(folder / CASES_FILE)) if finished else (),
        curve=_read_curve(folder / METRICS_FILE) if finished else None,
        generalisation=_optional(folder / GENERALISATION_FILE, "a record of generalisation"),
        preservation=read_preservation(folder / PRESERVATION_FILE) if (folder / PRESERVATION_FILE).is_file() else None,
        environment=_environment(folder / ENVIRONMENT_FILE),
        config=_text(folder / CONFIG_FILE),
        failure=_text(folder / FAILURE_FILE),
    )


def _optional(path: Path, what: str) -> Mapping[str, Any] | None:
    return read_record_file(path, what, "measure it again") if path.is_file() else None


def _environment(path: Path) -> Mapping[str, Any] | None:
    """Reads an environment, whose version is that of the run directory's layout."""
    if not path.is_file():
        return None
    with reading(path, what="the environment of a run, whole", remedy="run the trial again"):
        return read_versioned(path, ENVIRONMENT_VERSION)


def _text(path: Path) -> str:
    """Reads a text file; an absent one is empty."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _read_curve(path: Path) -> Curve | None:
    """Reads the validations of a run; None without a file or a validation."""
    if not path.is_file():
        return None
    try:
        rows = [
            (float(row["step"]), float(row["val_dice"]))
            for row in csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
            if row["val_dice"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(path, "the log of a training run", error) from error
    # A resumed run may have logged a step twice: the later row is of the weights that went on.
    kept = {step: dice for step, dice in rows if math.isfinite(dice)}
    return Curve(steps=sorted(kept), dice=[kept[step] for step in sorted(kept)]) if kept else None
