"""The results of a study as tables: read from a study that runs, or from a published one, and published.

A study directory holds its plan (``study.yaml``), its trials and ``speed.json``. While the study runs, each trial has
a folder ``trials/TRIAL`` with the light files of its run. A published study holds the same in a few tables:
``trials.csv``, ``cases.csv``, ``curves.csv``, ``preservation.csv`` and ``provenance.json``. A directory may hold both:
then the folder of a trial counts, and publishing again puts it into the tables.

Tables are read by the names of their columns. A column that nobody knows is a metric, and a metric that a file has not
is absent from the result, so that results outlive the code that wrote them.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
import sys
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from seg.errors import Problem, RunError
from seg.files import write_json, write_text
from seg.runs import CONFIG_FILE, ENVIRONMENT_FILE, GENERALISATION_FILE, METRICS_FILE, PRESERVATION_FILE

STUDY_FILE = "study.yaml"
OLD_STUDY_FILE = "study.json"
TRIALS_TABLE = "trials.csv"
CASES_TABLE = "cases.csv"
CURVES_TABLE = "curves.csv"
PRESERVATION_TABLE = "preservation.csv"
PROVENANCE_FILE = "provenance.json"
SPEED_FILE = "speed.json"
TRIALS = "trials"
TRIAL_FILE = "trial.json"
FAILURE_FILE = "failure.txt"
VERSION = 1
"""Version of every file of a study directory; a newer one is refused."""
DIGITS = 6
"""Significant digits of a number in a published table."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
"""What a variant, a trial or a kind of device may be called: these names become parts of paths."""
CASE_NAME = re.compile(r"\w[\w.+ -]{0,254}")
CASE_KEYS = ("case_id", "patient", "fold", "class_index", "class_name")
VECTORS = ("spectrum", "r2_by_width", "probe_dice_wide", "probe_dice_narrow")
"""Columns of ``preservation.csv`` that hold several numbers in a cell, with spaces between."""
PLACE_TEXTS = ("trial", "name", "path")
TRIAL_TEXTS = ("trial", "variant", "status", "error", "config_digest", "data_digest")
PLACE_INTEGERS = ("stage", "channels", "voxels", "wide", "narrow", "cases")
KEYS = ("trial", "variant", "fold", "seed")
ENVIRONMENT = ("device", "precision", "cores", "python", "platform", "revision")
"""Fields of an environment that become columns of the trials; packages do too, by their names."""


class StagePlan(BaseModel):
    """Size and work of one part of a network, such as ``encoder 0``."""

    model_config = ConfigDict(frozen=True)
    name: str
    parameters: int
    macs: int


class VariantPlan(BaseModel):
    """A variant as its study planned it: changes by dotted path, parameters and multiply-accumulates of an image."""

    model_config = ConfigDict(frozen=True)
    name: str
    changes: dict[str, Any] = {}
    parameters: int | None = None
    macs: int | None = None
    stages: tuple[StagePlan, ...] = ()


class ContrastPlan(BaseModel):
    """Two variants that are compared with each other."""

    model_config = ConfigDict(frozen=True)
    variant: str
    against: str


class StudyPlan(BaseModel):
    """The content of ``study.yaml``: what was planned, and what a reader must know.

    Attributes:
        name: Name of the study.
        command: Command that repeats it.
        base: Experiment that is varied.
        set: Changes of the base that all variants share, by dotted path.
        margin: Loss of Dice that still counts as not inferior.
        folds: Folds of every variant.
        seeds: Seeds of every variant.
        baseline: Name of the variant that the others are compared with.
        baseline_set: Changes of the base that make the baseline.
        variants: The variants, baseline first.
        contrasts: Pairs of variants that are compared with each other.
        trials: Names of all planned trials.
        training: Steps, batch, patch_size, validate_every and the like, as far as stated.
        data: Name, licence, attribution, num_cases, class_names and nsd_tolerance_mm, as far as stated.
        notes: What a reader must know that no record says.
        nominal_spacing: Whether spacing is not the true one, so that distances mean nothing.
        pictures: Whether pictures of cases may be shown.
    """

    model_config = ConfigDict(frozen=True)
    name: str
    command: str
    base: str = "not stated"
    set: dict[str, Any] = {}
    margin: FiniteFloat
    folds: tuple[int, ...]
    seeds: tuple[int, ...]
    baseline: str
    baseline_set: dict[str, Any] = {}
    variants: tuple[VariantPlan, ...]
    contrasts: tuple[ContrastPlan, ...] = ()
    trials: tuple[str, ...]
    training: dict[str, Any] = {}
    data: dict[str, Any]
    notes: tuple[str, ...] = ()
    nominal_spacing: bool = False
    pictures: bool = True

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, background first."""
        return tuple(map(str, self.data.get("class_names") or ("background",)))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the variants, baseline first."""
        return tuple(variant.name for variant in self.variants)


class TrialRecord(BaseModel):
    """How a trial went, and what it was made from: the content of its ``trial.json``.

    Attributes:
        variant: Name of its variant.
        fold: Its fold.
        seed: Its seed.
        status: Whether the trial came to its end.
        attempts: Attempts that this took, >= 1.
        error: What the last attempt ended with, in one line; None for a finished trial.
        seconds: Wall time of training and evaluation over all attempts, or of training alone for a run made by hand;
            None for a failed trial.
        measuring_seconds: Wall time of measuring generalisation and preservation; None where it is not known.
        peak_memory_mib: Peak memory of training and evaluation in MiB, on the GPU where one computed, else of the
            process; None where it is not known.
        threads: Threads of the numerical library; None where their number is not known.
        training_version: Version of the code that trained it; see :mod:`seg.ablation.trials`.
        resampling_version: Version of the code that resampled its data.
        fingerprint: Digests ``config`` and ``data`` of what it was made from.
    """

    model_config = ConfigDict(frozen=True)
    variant: str
    fold: int
    seed: int
    status: Literal["finished", "failed"]
    attempts: int = 1
    error: str | None = None
    seconds: float | None = None
    measuring_seconds: float | None = None
    peak_memory_mib: float | None = None
    threads: int | None = None
    training_version: int = 1
    resampling_version: int = 1
    fingerprint: dict[str, str] = {}

    @property
    def total_seconds(self) -> float | None:
        """Wall time of the trial, as far as it is known."""
        return None if self.seconds is None else self.seconds + (self.measuring_seconds or 0.0)


@dataclass(frozen=True, kw_only=True)
class StoredTrial:
    """What is needed of a trial to go on with its study.

    Attributes:
        record: How the trial went.
        config: Its configuration, as it was written.
        path: The file or folder that says so, for messages.
    """

    record: TrialRecord
    config: Mapping[str, Any]
    path: Path


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What trials were made from, by the name of the trial; a trial of which nothing is known is absent.

    Attributes:
        environments: Machine, packages and precision of each trial.
        data: Digest of each case's files, by case.
        splits: Cases of the two sides, ``train`` and ``validation``.
        configs: Configuration of each trial, as it was written.
        failures: What a failed trial ended with, in full.
    """

    environments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    data: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    splits: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Results:
    """All results of a study, in tables with one row a value.

    Attributes:
        study: The plan.
        trials: A row for each planned trial: trial, variant, fold, seed, status (``finished``, ``failed``, ``not run``
            or ``damaged``), error, attempts, seconds, measuring_seconds, peak_memory_mib, threads, training_version,
            config_digest, data_digest, and of its environment device, precision, cores, python, platform, revision and
            the version of each package, such as torch. What is not known is missing.
        scores: trial, variant, fold, seed, case, patient, class_index, class_name, metric, value. A value is missing
            where both masks are empty, and infinite for a distance from an empty mask.
        curves: trial, variant, fold, seed, step, metric, value: what training logged.
        generalisation: trial, variant, fold, seed, class_index, train_cases, train_dice, val_dice: mean Dice of each
            foreground class on training cases and on held-out ones.
        preservation: A row for each trial and bottleneck: trial, variant, fold, seed, place, path, stage, channels, and
            what was measured there. Measures of several numbers are tuples; what was not measured is missing.
        speed: device_index, device, kind, threads, precision, memory_format, variant, measure, value, q1, q3. Value is
            the median where quartiles are given.
        devices: The records of ``speed.json``, GPUs first; ``device_index`` counts them.
        provenance: What the trials were made from.
        unplanned: Trials with results that the plan does not name; the tables leave them out.
        problems: What could not be read; the tables leave it out.
    """

    study: StudyPlan
    trials: pd.DataFrame
    scores: pd.DataFrame
    curves: pd.DataFrame
    generalisation: pd.DataFrame
    preservation: pd.DataFrame
    speed: pd.DataFrame
    devices: tuple[Mapping[str, Any], ...]
    provenance: Provenance
    unplanned: tuple[str, ...]
    problems: tuple[Problem, ...]


@dataclass(kw_only=True)
class _Trial:
    """All results of one trial; numbers of tables are texts, as in their files."""

    record: TrialRecord
    cases: list[dict[str, str]] = field(default_factory=list)
    curve: list[dict[str, str]] = field(default_factory=list)
    places: list[dict[str, Any]] = field(default_factory=list)
    generalisation: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] | None = None
    data: dict[str, str] | None = None
    split: dict[str, list[str]] | None = None
    config: dict[str, Any] | None = None
    failure: str = ""


def read_results(folder: Path) -> Results:
    """Reads all results of a study directory, of one that runs as well as of a published one.

    What cannot be read is left out and named among the problems. Links in the directory are not followed.

    Raises:
        RunError: The plan is absent, damaged or of a newer version.
    """
    study = read_study(folder)
    problems: list[Problem] = []
    trials = _read_trials(folder, study, problems)
    devices = _read_devices(folder, problems)
    planned = {name: trials[name] for name in study.trials if name in trials}
    damaged = {problem.path for problem in problems}
    return Results(
        study=study,
        trials=_trial_frame(folder, study, planned, damaged),
        scores=_long(planned, "cases", {"case_id": "case"}, CASE_KEYS, problems),
        curves=_curve_frame(planned, problems),
        generalisation=_generalisation_frame(planned),
        preservation=_preservation_frame(planned),
        speed=_speed_frame(devices),
        devices=devices,
        provenance=_provenance(planned),
        unplanned=tuple(sorted(set(trials) - set(study.trials))),
        problems=tuple(problems),
    )


def read_study(folder: Path) -> StudyPlan:
    """Reads the plan of a study: ``study.yaml``, or the ``study.json`` of older studies.

    Raises:
        RunError: The plan is absent, damaged or of a newer version.
    """
    path = folder / STUDY_FILE
    if not path.exists() and (folder / OLD_STUDY_FILE).exists():
        path = folder / OLD_STUDY_FILE
    remedy = "give the directory of a study that was started, or start the study again"
    if not path.exists():
        raise RunError(Problem(path=str(path), kind="missing", rule="must be the plan of a study", remedy=remedy))
    with _naming(path, remedy):
        _refuse_link(path, folder)
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.load(text, yaml.CSafeLoader)
        _check_version(content)
        study = StudyPlan.model_validate(content)
    if problems := [Problem(path=str(path), remedy=remedy, **parts) for parts in _plan_problems(study)]:
        raise RunError(problems)
    return study


def _plan_problems(study: StudyPlan) -> Iterator[dict[str, str]]:
    for name in (*study.names, *study.trials):
        if not NAME.fullmatch(name):
            yield {"kind": "name", "rule": "must hold names of letters, digits and . _ -", "value": repr(name)}
    named = {study.baseline, *(name for pair in study.contrasts for name in (pair.variant, pair.against))}
    for name in sorted(named - set(study.names)):
        yield {"kind": "variant", "rule": "must compare variants of the study", "value": repr(name)}


def read_trials(folder: Path) -> dict[str, StoredTrial]:
    """Reads how all trials of a study directory went, by their names.

    Raises:
        RunError: A file is damaged, a link, or of a newer version.
    """
    with _naming(path := folder / PROVENANCE_FILE):
        provenance = _json(path, folder)
    stored = {}
    with _naming(path := folder / TRIALS_TABLE):
        for row in _table(path, folder):
            trial = _trial_of_row(row, provenance)
            stored[row["trial"]] = StoredTrial(record=trial.record, config=trial.config or {}, path=path)
    for name in _trial_folders(folder):
        stored[name] = _read_stored(folder, name)
    return stored


def read_trial(folder: Path, name: str) -> StoredTrial | None:
    """Reads how a trial went; None where nothing is stored of it.

    Raises:
        RunError: A file is damaged, a link, or of a newer version.
    """
    if (folder / TRIALS / name / TRIAL_FILE).is_file():
        return _read_stored(folder, name)
    return read_trials(folder).get(name)


def mean_dice(folder: Path, *names: str) -> dict[str, float]:
    """Returns the Dice of finished trials: the mean over classes of the mean over cases.

    A class that no case of the trial shows is left out.

    Args:
        folder: The study directory.
        names: The trials, which have a folder each; all trials of the study where none is named.

    Raises:
        RunError: A file is damaged, a link, or of a newer version.
    """
    if names:
        trials = {name: _read_trial_folder(folder, name) for name in names}
    else:
        trials = _read_tables(folder) | {name: _read_trial_folder(folder, name) for name in _trial_folders(folder)}
    found = {}
    for name, trial in trials.items():
        by_class: dict[str, list[float]] = {}
        for row in trial.cases:
            if math.isfinite(dice := float(row["dice"])):
                by_class.setdefault(row["class_index"], []).append(dice)
        if by_class:
            found[name] = fmean(fmean(values) for values in by_class.values())
    return found


def _trial_folders(folder: Path) -> list[str]:
    found = (path.parent.name for path in (folder / TRIALS).glob(f"*/{TRIAL_FILE}"))
    return sorted(name for name in found if not name.startswith("."))


def _read_stored(study_dir: Path, name: str) -> StoredTrial:
    folder = study_dir / TRIALS / name
    if not NAME.fullmatch(name):
        rule = "must be named by letters, digits and . _ -"
        raise RunError(Problem(path=str(folder), kind="name", rule=rule, remedy="rename the trial"))
    with _naming(path := folder / TRIAL_FILE, f"restore the file, or remove {folder} to run the trial again"):
        record = TrialRecord.model_validate(_json(path, study_dir))
    with _naming(path := folder / CONFIG_FILE, f"restore the file, or remove {folder} to run the trial again"):
        config = yaml.load(_text(path, study_dir), yaml.CSafeLoader)
    return StoredTrial(record=record, config=config or {}, path=folder)


# Reading files, and naming what is wrong with them


class _ContentError(ValueError):
    """A fault of a file that is no fault of its syntax, with the kind of its problem."""

    def __init__(self, kind: str, rule: str, value: str) -> None:
        super().__init__(value)
        self.kind, self.rule = kind, rule


@contextmanager
def _naming(path: Path, remedy: str = "restore the file, or remove it and run the study again") -> Iterator[None]:
    """Turns a fault that is met while a file is read into a RunError with a problem of that file."""
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _as_run_error(path, remedy, error) from error
    except (csv.Error, yaml.YAMLError) as error:
        raise _as_run_error(path, remedy, error) from error


def _as_run_error(path: Path, remedy: str, error: Exception) -> RunError:
    kind, rule, value = "damaged", "must be a whole file of results", f"{type(error).__name__}: {error}"
    if isinstance(error, _ContentError):
        kind, rule, value = error.kind, error.rule, str(error)
    elif isinstance(error, OSError):
        kind, rule, value = "unreadable", "must be a file that can be read", str(error.strerror)
    elif isinstance(error, ValidationError):
        value = ", ".join(f"{'.'.join(map(str, one['loc']))} ({one['msg']})" for one in error.errors())
    return RunError(Problem(path=str(path), kind=kind, rule=rule, value=" ".join(value.split()), remedy=remedy))


def _refuse_link(path: Path, folder: Path) -> None:
    """Refuses a file that leads out of the study directory, which may come from anywhere."""
    parts = [path, *path.parents]
    for part in parts[: parts.index(folder)]:
        if part.is_symlink():
            raise _ContentError("link", "must be a file of the study itself", "a symbolic link")


def _check_version(content: Any) -> None:
    version = content["schema_version"]
    if not isinstance(version, int):
        raise TypeError(f"schema_version {version!r}")
    if version > VERSION:
        raise _ContentError("version", f"must have a schema_version of at most {VERSION}; update seg", str(version))


def _json(path: Path, folder: Path) -> dict[str, Any]:
    """Reads a JSON file; an absent file is empty."""
    if not path.exists() and not path.is_symlink():
        return {}
    _refuse_link(path, folder)
    content: dict[str, Any] = json.loads(path.read_bytes())
    _check_version(content)
    return content


def _text(path: Path, folder: Path) -> str:
    if not path.exists() and not path.is_symlink():
        return ""
    _refuse_link(path, folder)
    return path.read_text(encoding="utf-8", errors="replace")


def _table(path: Path, folder: Path) -> list[dict[str, str]]:
    """Reads the rows of a CSV file as texts; an absent file has none."""
    text = _text(path, folder)
    rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    if not rows:
        return []
    columns, *rest = rows
    if len(set(columns)) < len(columns):
        raise ValueError("two columns of one name")
    for number, row in enumerate(rest, start=2):
        if len(row) != len(columns):
            raise ValueError(f"{len(row)} cells in line {number}, but {len(columns)} columns")
    return [dict(zip(columns, map(unescaped, row), strict=True)) for row in rest]


def escaped(text: str) -> str:
    """Puts an apostrophe before a text that a spreadsheet would take for a formula; :func:`unescaped` takes it away."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "'", "\t", "\r")) else text


def unescaped(text: str) -> str:
    """Returns the text that :func:`escaped` was given."""
    return text[1:] if text[:1] == "'" and text[1:2] in tuple("=+-@'\t\r") else text


# Trials


def _read_trials(folder: Path, study: StudyPlan, problems: list[Problem]) -> dict[str, _Trial]:
    """Reads the trials of the tables, and over them those that have a folder."""
    try:
        trials = _read_tables(folder)
    except RunError as error:
        problems += error.problems
        trials = {}
    for name in _trial_folders(folder):
        try:
            trials[name] = _read_trial_folder(folder, name)
        except RunError as error:
            problems += error.problems
            trials.pop(name, None)
    for name, trial in list(trials.items()):
        record = trial.record
        if record.variant not in study.names and name in study.trials:
            problems.append(
                Problem(
                    path=str(folder / TRIALS / name),
                    kind="variant",
                    rule="must be of a variant of the study",
                    value=repr(record.variant),
                    remedy="remove the trial, or start the study again to write its plan anew",
                )
            )
            del trials[name]
    return trials


def _read_trial_folder(study_dir: Path, name: str) -> _Trial:
    stored = _read_stored(study_dir, name)
    trial = _Trial(record=stored.record, config=dict(stored.config))
    folder = stored.path
    remedy = f"restore the file, or remove {folder} to run the trial again"
    with _naming(path := folder / FAILURE_FILE, remedy):
        trial.failure = _text(path, study_dir)
    if trial.record.status != "finished":
        return trial
    with _naming(path := folder / CASES_TABLE, remedy):
        trial.cases = _checked_cases(_table(path, study_dir))
        if not trial.cases:
            raise _ContentError("missing", "must hold the scores of a finished trial", "none")
    with _naming(path := folder / METRICS_FILE, remedy):
        trial.curve = _table(path, study_dir)
    with _naming(path := folder / GENERALISATION_FILE, remedy):
        trial.generalisation = _json(path, study_dir)
        trial.generalisation.pop("schema_version", None)
    with _naming(path := folder / PRESERVATION_FILE, remedy):
        if content := _json(path, study_dir):
            trial.places = [{**place, "cases": content.get("cases")} for place in content["bottlenecks"]]
    with _naming(path := folder / ENVIRONMENT_FILE, remedy):
        if content := _json(path, study_dir):
            trial.data, trial.split = content.pop("data", None), content.pop("split", None)
            trial.environment = {key: value for key, value in content.items() if key != "schema_version"}
    return trial


def _checked_cases(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    for row in rows:
        if not CASE_NAME.fullmatch(row["case_id"]):
            raise _ContentError("name", "must name cases by letters, digits and . + _ - space", repr(row["case_id"]))
        int(row["class_index"])
    return rows


def _read_tables(folder: Path) -> dict[str, _Trial]:
    """Reads the trials of a published study; none where there are no tables."""
    with _naming(path := folder / PROVENANCE_FILE):
        provenance = _json(path, folder)
    trials: dict[str, _Trial] = {}
    with _naming(path := folder / TRIALS_TABLE):
        for row in _table(path, folder):
            trials[row["trial"]] = _trial_of_row(row, provenance)
    with _naming(path := folder / CASES_TABLE):
        for row in _checked_cases(_table(path, folder)):
            trials[row.pop("trial")].cases.append(row)
    with _naming(path := folder / CURVES_TABLE):
        for row in _table(path, folder):
            trials[row.pop("trial")].curve.append(row)
    with _naming(path := folder / PRESERVATION_TABLE):
        for row in _table(path, folder):
            trials[row.pop("trial")].places.append({key: _place_value(key, text) for key, text in row.items()})
    return trials


def _trial_of_row(row: dict[str, str], provenance: Mapping[str, Any]) -> _Trial:
    if not NAME.fullmatch(row["trial"]):
        raise _ContentError("name", "must hold names of letters, digits and . _ -", repr(row["trial"]))
    known = {key: text for key, text in row.items() if text and key in TrialRecord.model_fields}
    digests = {key: row[f"{key}_digest"] for key in ("config", "data") if row.get(f"{key}_digest")}
    trial = _Trial(record=TrialRecord.model_validate({**known, "fingerprint": digests}))
    for key, plural in (("environment", "environments"), ("data", "data"), ("split", "splits")):
        if row.get(key):
            setattr(trial, key, provenance[plural][int(row[key])])
    if row.get("train_cases"):
        dice = {
            side: [_number(row[key]) for key in sorted(row, key=_order) if re.fullmatch(rf"{side}_dice_[0-9]+", key)]
            for side in ("train", "val")
        }
        trial.generalisation = {
            "train_cases": int(row["train_cases"]),
            **{f"{side}_dice": [value for value in values if value is not None] for side, values in dice.items()},
        }
    configs = provenance.get("configs") or {}
    if row["trial"] in configs.get("trials", {}):
        trial.config = _changed(configs["base"], configs["trials"][row["trial"]])
    trial.failure = (provenance.get("failures") or {}).get(row["trial"], "")
    return trial


def _order(name: str) -> tuple[str, int]:
    stem, _, number = name.rpartition("_")
    return stem, int(number) if number.isdigit() else -1


def _number(text: str) -> float | None:
    return float(text) if text else None


def _place_value(key: str, text: str) -> Any:
    """Returns the value of a cell of ``preservation.csv``, also of a column that nobody knows."""
    if not text or key in PLACE_TEXTS:
        return text or None
    if text in ("true", "false"):
        return text == "true"
    if key in PLACE_INTEGERS:
        return int(text)
    try:
        if key in VECTORS or " " in text:
            return [None if part == "-" else float(part) for part in text.split(" ")]
        return float(text)
    except ValueError:
        return text


def _difference(base: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of ``other`` by dotted path that ``base`` has not; what only ``base`` has is named apart."""
    changes: dict[str, Any] = {}
    removed: list[str] = []
    for key in base.keys() | other.keys():
        if key not in other:
            removed.append(key)
        elif isinstance(base.get(key), Mapping) and isinstance(other[key], Mapping):
            inner = _difference(base[key], other[key])
            changes |= {f"{key}.{path}": value for path, value in inner["changes"].items()}
            removed += [f"{key}.{path}" for path in inner["removed"]]
        elif key not in base or base[key] != other[key]:
            changes[key] = other[key]
    return {"changes": dict(sorted(changes.items())), "removed": sorted(removed)}


def _changed(base: Mapping[str, Any], difference: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the mapping of which :func:`_difference` gave the difference."""
    result: dict[str, Any] = json.loads(json.dumps(base))
    for path in difference["removed"]:
        *sections, last = path.split(".")
        at = result
        for section in sections:
            at = at[section]
        del at[last]
    for path, value in difference["changes"].items():
        *sections, last = path.split(".")
        at = result
        for section in sections:
            at = at[section]
        at[last] = value
    return result


# Tables of results


def _keys(name: str, trial: _Trial) -> dict[str, Any]:
    record = trial.record
    return {"trial": name, "variant": record.variant, "fold": record.fold, "seed": record.seed}


def _trial_frame(folder: Path, study: StudyPlan, trials: Mapping[str, _Trial], damaged: set[str]) -> pd.DataFrame:
    rows = []
    for name in study.trials:
        trial = trials.get(name)
        if trial is None:
            mine = str(folder / TRIALS / name)
            status = "damaged" if any(path.startswith(mine) for path in damaged) else "not run"
            rows.append({**_planned(study, name), "status": status})
            continue
        record = trial.record.model_dump(exclude={"fingerprint", *KEYS})
        digests = {f"{key}_digest": trial.record.fingerprint.get(key) for key in ("config", "data")}
        environment = trial.environment or {}
        known = {key: environment.get(key) for key in ENVIRONMENT} | dict(environment.get("packages") or {})
        if record["threads"] is None:
            record["threads"] = environment.get("threads")
        rows.append(_keys(name, trial) | record | digests | known)
    columns = [*KEYS, *(key for key in TrialRecord.model_fields if key not in (*KEYS, "fingerprint"))]
    frame = pd.DataFrame(rows, columns=None if rows else columns)
    for key in ("seconds", "measuring_seconds", "peak_memory_mib"):
        frame[key] = frame[key].astype(float) if key in frame else math.nan
    return frame.reindex(columns=[*columns, *(name for name in frame.columns if name not in columns)])


def _planned(study: StudyPlan, name: str) -> dict[str, Any]:
    """Returns variant, fold and seed of a planned trial, of which only the name is known."""
    for variant in study.names:
        for fold in study.folds:
            for seed in study.seeds:
                if name == f"{variant}.fold_{fold}.seed_{seed}":
                    return {"trial": name, "variant": variant, "fold": fold, "seed": seed}
    return {"trial": name}


def _long(
    trials: Mapping[str, _Trial],
    table: str,
    names: Mapping[str, str],
    keys: Sequence[str],
    problems: list[Problem],
) -> pd.DataFrame:
    """Makes a row of each number of a table; empty cells are left out."""
    rows = []
    for name, trial in trials.items():
        own = _keys(name, trial)
        for row in getattr(trial, table):
            shared = {names.get(key, key): row[key] for key in keys if key in row and key != "fold"} | own
            for metric, text in row.items():
                if metric in keys or not text:
                    continue
                try:
                    rows.append(shared | {"metric": metric, "value": float(text)})
                except ValueError:
                    problems.append(
                        Problem(
                            path=f"{name}: {metric}",
                            kind="number",
                            rule="must be a number",
                            value=repr(text),
                            remedy="restore the table, or run the trial again",
                        )
                    )
    shared_names = [names.get(key, key) for key in keys if key != "fold"]
    frame = pd.DataFrame(rows, columns=[*KEYS, *shared_names, "metric", "value"]).astype({"value": float})
    if "class_index" in frame:
        frame["class_index"] = frame["class_index"].astype(int)
    return frame


def _curve_frame(trials: Mapping[str, _Trial], problems: list[Problem]) -> pd.DataFrame:
    """A resumed run may have logged a step twice: the later row is of the weights that went on."""
    frame = _long(trials, "curve", {}, ("step",), problems)
    frame["step"] = frame["step"].astype(float).astype(int)
    return frame.drop_duplicates(["trial", "step", "metric"], keep="last").reset_index(drop=True)


def _generalisation_frame(trials: Mapping[str, _Trial]) -> pd.DataFrame:
    rows = []
    for name, trial in trials.items():
        record = trial.generalisation
        pairs = zip(record.get("train_dice", ()), record.get("val_dice", ()), strict=True)
        for index, (train, validation) in enumerate(pairs, start=1):
            values = {"train_cases": record["train_cases"], "train_dice": train, "val_dice": validation}
            rows.append(_keys(name, trial) | {"class_index": index} | values)
    return pd.DataFrame(rows, columns=[*KEYS, "class_index", "train_cases", "train_dice", "val_dice"])


def _preservation_frame(trials: Mapping[str, _Trial]) -> pd.DataFrame:
    rows = []
    for name, trial in trials.items():
        for place in trial.places:
            values = {key: tuple(value) if isinstance(value, list) else value for key, value in place.items()}
            rows.append(_keys(name, trial) | {"place": values.pop("name")} | values)
    frame = pd.DataFrame(rows)
    return frame.reindex(columns=[*KEYS, "place", *(key for key in frame if key not in (*KEYS, "place"))])


def _provenance(trials: Mapping[str, _Trial]) -> Provenance:
    def known(key: str) -> dict[str, Any]:
        return {name: value for name, trial in trials.items() if (value := getattr(trial, key))}

    return Provenance(
        environments=known("environment"),
        data=known("data"),
        splits=known("split"),
        configs=known("config"),
        failures=known("failure"),
    )


# Speed


def read_devices(folder: Path) -> tuple[Mapping[str, Any], ...]:
    """Reads the devices of ``speed.json``, GPUs first; none where speed was not measured.

    Raises:
        RunError: The file is damaged or of a newer version.
    """
    problems: list[Problem] = []
    devices = _read_devices(folder, problems)
    if problems:
        raise RunError(problems)
    return devices


def _read_devices(folder: Path, problems: list[Problem]) -> tuple[Mapping[str, Any], ...]:
    path = folder / SPEED_FILE
    try:
        with _naming(path, "measure speed again"):
            devices = _json(path, folder).get("devices", ())
            for device in devices:
                if not NAME.fullmatch(device["kind"]):
                    raise _ContentError("name", "must have kinds of letters, digits and . _ -", repr(device["kind"]))
                for variant in device["variants"]:
                    if not NAME.fullmatch(variant["name"]):
                        raise _ContentError("name", "must name variants of the study", repr(variant["name"]))
                    for value in variant.values():
                        if isinstance(value, Mapping):
                            [float(value[key]) for key in ("median", "q1", "q3")]
    except RunError as error:
        problems += error.problems
        return ()
    return tuple(sorted(devices, key=lambda device: bool(device["kind"] != "cuda")))


def _speed_frame(devices: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    about = ("device", "kind", "threads", "precision", "memory_format")
    rows = []
    for index, device in enumerate(devices):
        for variant in device["variants"]:
            own = {"device_index": index, **{key: device.get(key) for key in about}, "variant": variant["name"]}
            for measure, value in variant.items():
                if isinstance(value, Mapping):
                    numbers = {"value": value["median"], "q1": value["q1"], "q3": value["q3"]}
                elif isinstance(value, int | float) and not isinstance(value, bool):
                    numbers = {"value": value}
                else:
                    continue
                rows.append(own | {"measure": measure} | numbers)
    return pd.DataFrame(rows, columns=["device_index", *about, "variant", "measure", "value", "q1", "q3"])


# Publishing


def publish(folder: Path, target: Path | None = None) -> Path:
    """Writes the results of a study into a few tables, and removes the folders of trials that went into them.

    Numbers keep six significant digits. A published study can be continued and published again.

    Args:
        folder: The study directory.
        target: Directory for the published study; None publishes the study where it is.

    Returns:
        The directory of the published study.

    Raises:
        RunError: Results cannot be read, the target holds another study, or files cannot be written.
    """
    target = target or folder
    study = read_study(folder)
    problems: list[Problem] = []
    trials = _read_trials(folder, study, problems)
    devices = _read_devices(folder, problems)
    if problems:
        raise RunError(problems)
    tables = {
        CASES_TABLE: [{"trial": name, **row} for name, trial in trials.items() for row in trial.cases],
        CURVES_TABLE: [{"trial": name, **row} for name, trial in trials.items() for row in trial.curve],
        PRESERVATION_TABLE: [{"trial": name, **row} for name, trial in trials.items() for row in trial.places],
    }
    provenance, table = _packed(trials)
    write_text(target / STUDY_FILE, plan_text(study))
    for name, rows in tables.items():
        if rows:
            write_text(target / name, _csv(rows))
    if trials:
        write_json(target / PROVENANCE_FILE, provenance)
    if devices:
        write_json(target / SPEED_FILE, {"schema_version": VERSION, "devices": _rounded(list(devices))})
    if trials:
        write_text(target / TRIALS_TABLE, _csv(table))  # the last file: it names the trials that the others must hold
    if target == folder:
        for name in trials:
            shutil.rmtree(folder / TRIALS / name, ignore_errors=True)
        (folder / OLD_STUDY_FILE).unlink(missing_ok=True)
        if (folder / TRIALS).is_dir() and not any((folder / TRIALS).iterdir()):
            (folder / TRIALS).rmdir()
    return target


def plan_text(study: StudyPlan) -> str:
    """Returns the content of ``study.yaml``."""
    content = {"schema_version": VERSION, **study.model_dump(mode="json")}
    text: str = yaml.dump(content, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True, width=100)
    return text


def _packed(trials: Mapping[str, _Trial]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns ``provenance.json``, where what trials share stands once, and the rows of ``trials.csv``."""
    shared: dict[str, list[Any]] = {"environments": [], "data": [], "splits": []}
    rows = []
    for name, trial in trials.items():
        row = _keys(name, trial) | trial.record.model_dump(exclude={"fingerprint", *KEYS})
        row |= {f"{key}_digest": trial.record.fingerprint.get(key) for key in ("config", "data")}
        for key, plural in (("environment", "environments"), ("data", "data"), ("split", "splits")):
            value = getattr(trial, key)
            if value is not None and value not in shared[plural]:
                shared[plural].append(value)
            row[key] = None if value is None else shared[plural].index(value)
        record = trial.generalisation
        row["train_cases"] = record.get("train_cases")
        for side in ("train", "val"):
            values = record.get(f"{side}_dice", ())
            row |= {f"{side}_dice_{index}": _nan(value) for index, value in enumerate(values, start=1)}
        rows.append(row)
    configs = {name: trial.config for name, trial in trials.items() if trial.config}
    base = next(iter(configs.values()), {})
    content = {
        "schema_version": VERSION,
        **shared,
        "configs": {"base": base, "trials": {name: _difference(base, config) for name, config in configs.items()}},
        "failures": {name: trial.failure for name, trial in trials.items() if trial.failure},
    }
    return content, rows


def _nan(value: float | None) -> float:
    """A class that no case shows has no Dice; an empty cell is a class that the study has not."""
    return math.nan if value is None else value


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns a CSV table with all columns that a row has."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow(_cell(key, row.get(key)) for key in columns)
    return table.getvalue()


_TEXT_COLUMNS = frozenset({*TRIAL_TEXTS, *PLACE_TEXTS, *CASE_KEYS})


def _cell(column: Hashable, value: Any) -> str:
    """Returns a cell: numbers with six significant digits, integers whole."""
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return " ".join("-" if part is None else _cell(None, part) for part in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _short(value)
    text = str(value)
    if isinstance(value, str) and column not in _TEXT_COLUMNS:
        return _short(float(text)) if text else ""
    return escaped(text) if isinstance(value, str) else text


def _short(value: float) -> str:
    if math.isfinite(value) and value == int(value):
        return str(int(value))
    return f"{value:.{DIGITS}g}"


def _rounded(value: Any) -> Any:
    """Rounds all numbers with a fraction in a JSON value."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value


def main(arguments: Sequence[str]) -> int:
    """Publishes a study from the command line: ``python -m seg.ablation.store STUDY_DIR [TARGET]``."""
    if len(arguments) not in (1, 2):
        print("usage: python -m seg.ablation.store STUDY_DIR [TARGET]", file=sys.stderr)
        return 2
    try:
        print(f"published: {publish(*map(Path, arguments))}")
    except RunError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
