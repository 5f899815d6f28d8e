"""The results of a study as tables: read from a study that runs, or from a published one, and published.

A study directory holds its plan (``study.yaml``), its trials and ``speed.json``. While the study runs, each trial has
a folder ``trials/TRIAL`` with the light files of its run. A published study holds the same in a few tables:
``trials.csv``, ``cases.csv``, ``curves.csv``, ``preservation.csv`` and ``provenance.json``. A directory may hold both:
then the folder of a trial counts, and publishing again puts it into the tables.

Tables are read by the names of their columns. A column that nobody knows is a metric, and a metric that a file has not
is absent from the result, so that results outlive the code that wrote them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict

from seg.ablation.plan import StudyPlan, read_study
from seg.ablation.reading import NAME, ContentError, naming_file, read_json, read_table, read_text
from seg.errors import Problem, RunError
from seg.runs import CONFIG_FILE, ENVIRONMENT_FILE, GENERALISATION_FILE, METRICS_FILE, PRESERVATION_FILE

TRIALS_TABLE = "trials.csv"


CASES_TABLE = "cases.csv"


CURVES_TABLE = "curves.csv"


PRESERVATION_TABLE = "preservation.csv"


PROVENANCE_FILE = "provenance.json"


SPEED_FILE = "speed.json"


TRIALS = "trials"


TRIAL_FILE = "trial.json"


FAILURE_FILE = "failure.txt"


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
class FullTrial:
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
    trials = read_full_trials(folder, study, problems)
    try:
        devices = read_devices(folder)
    except RunError as error:
        problems += error.problems
        devices = ()
    planned = {name: trials[name] for name in study.trials if name in trials}
    damaged = {problem.path for problem in problems}
    frame = _trial_frame(folder, study, planned, damaged)
    scores = _long(planned, "cases", {"case_id": "case"}, CASE_KEYS, problems)
    if not problems:  # a damaged file is named already, and is why its trial has no scores
        problems += _score_problems(frame, scores)
    return Results(
        study=study,
        trials=frame,
        scores=scores,
        curves=_curve_frame(planned, problems),
        generalisation=_generalisation_frame(planned),
        preservation=_preservation_frame(planned),
        speed=_speed_frame(devices),
        devices=devices,
        provenance=_provenance(planned),
        unplanned=tuple(sorted(set(trials) - set(study.trials))),
        problems=tuple(problems),
    )


def read_trials(folder: Path) -> dict[str, StoredTrial]:
    """Reads how all trials of a study directory went, by their names.

    Raises:
        RunError: A file is damaged, a link, or of a newer version.
    """
    with naming_file(path := folder / PROVENANCE_FILE):
        provenance = read_json(path, folder)
    stored = {}
    with naming_file(path := folder / TRIALS_TABLE):
        for row in read_table(path, folder):
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
        raise RunError(Problem(str(folder), "name", rule, remedy="rename the trial"))
    with naming_file(path := folder / TRIAL_FILE, f"restore the file, or remove {folder} to run the trial again"):
        record = TrialRecord.model_validate(read_json(path, study_dir))
    with naming_file(path := folder / CONFIG_FILE, f"restore the file, or remove {folder} to run the trial again"):
        config = yaml.load(read_text(path, study_dir), yaml.CSafeLoader)
    return StoredTrial(record=record, config=config or {}, path=folder)


def read_full_trials(folder: Path, study: StudyPlan, problems: list[Problem]) -> dict[str, FullTrial]:
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
                    str(folder / TRIALS / name),
                    "variant",
                    "must be of a variant of the study",
                    repr(record.variant),
                    "remove the trial, or start the study again to write its plan anew",
                )
            )
            del trials[name]
    return trials


def _read_trial_folder(study_dir: Path, name: str) -> FullTrial:
    stored = _read_stored(study_dir, name)
    trial = FullTrial(record=stored.record, config=dict(stored.config))
    folder = stored.path
    remedy = f"restore the file, or remove {folder} to run the trial again"
    with naming_file(path := folder / FAILURE_FILE, remedy):
        trial.failure = read_text(path, study_dir)
    if trial.record.status != "finished":
        return trial
    with naming_file(path := folder / CASES_TABLE, remedy):
        trial.cases = _checked_cases(read_table(path, study_dir))
        if not trial.cases:
            raise ContentError("missing", "must hold the scores of a finished trial", "none")
    with naming_file(path := folder / METRICS_FILE, remedy):
        trial.curve = read_table(path, study_dir)
    with naming_file(path := folder / GENERALISATION_FILE, remedy):
        trial.generalisation = read_json(path, study_dir)
        trial.generalisation.pop("schema_version", None)
    with naming_file(path := folder / PRESERVATION_FILE, remedy):
        if content := read_json(path, study_dir):
            trial.places = [{**place, "cases": content.get("cases")} for place in content["bottlenecks"]]
    with naming_file(path := folder / ENVIRONMENT_FILE, remedy):
        if content := read_json(path, study_dir):
            trial.data, trial.split = content.pop("data", None), content.pop("split", None)
            trial.environment = {key: value for key, value in content.items() if key != "schema_version"}
    return trial


def _checked_cases(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    for row in rows:
        if not CASE_NAME.fullmatch(row["case_id"]):
            raise ContentError("name", "must name cases by letters, digits and . + _ - space", repr(row["case_id"]))
        int(row["class_index"])
    return rows


def _read_tables(folder: Path) -> dict[str, FullTrial]:
    """Reads the trials of a published study; none where there are no tables."""
    with naming_file(path := folder / PROVENANCE_FILE):
        provenance = read_json(path, folder)
    trials: dict[str, FullTrial] = {}
    with naming_file(path := folder / TRIALS_TABLE):
        for row in read_table(path, folder):
            trials[row["trial"]] = _trial_of_row(row, provenance)
    with naming_file(path := folder / CASES_TABLE):
        for row in _checked_cases(read_table(path, folder)):
            trials[row.pop("trial")].cases.append(row)
    with naming_file(path := folder / CURVES_TABLE):
        for row in read_table(path, folder):
            trials[row.pop("trial")].curve.append(row)
    with naming_file(path := folder / PRESERVATION_TABLE):
        for row in read_table(path, folder):
            trials[row.pop("trial")].places.append({key: _place_value(key, text) for key, text in row.items()})
    return trials


def _trial_of_row(row: dict[str, str], provenance: Mapping[str, Any]) -> FullTrial:
    if not NAME.fullmatch(row["trial"]):
        raise ContentError("name", "must hold names of letters, digits and . _ -", repr(row["trial"]))
    known = {key: text for key, text in row.items() if text and key in TrialRecord.model_fields}
    digests = {key: row[f"{key}_digest"] for key in ("config", "data") if row.get(f"{key}_digest")}
    trial = FullTrial(record=TrialRecord.model_validate({**known, "fingerprint": digests}))
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


def _keys(name: str, trial: FullTrial) -> dict[str, Any]:
    record = trial.record
    return {"trial": name, "variant": record.variant, "fold": record.fold, "seed": record.seed}


def _trial_frame(folder: Path, study: StudyPlan, trials: Mapping[str, FullTrial], damaged: set[str]) -> pd.DataFrame:
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
    trials: Mapping[str, FullTrial],
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
                            f"{name}: {metric}",
                            "number",
                            "must be a number",
                            repr(text),
                            "restore the table, or run the trial again",
                        )
                    )
    shared_names = [names.get(key, key) for key in keys if key != "fold"]
    frame = pd.DataFrame(rows, columns=[*KEYS, *shared_names, "metric", "value"]).astype({"value": float})
    if "class_index" in frame:
        frame["class_index"] = frame["class_index"].astype(int)
    return frame


def _curve_frame(trials: Mapping[str, FullTrial], problems: list[Problem]) -> pd.DataFrame:
    """A resumed run may have logged a step twice: the later row is of the weights that went on."""
    frame = _long(trials, "curve", {}, ("step",), problems)
    frame["step"] = frame["step"].astype(float).astype(int)
    return frame.drop_duplicates(["trial", "step", "metric"], keep="last").reset_index(drop=True)


def _score_problems(trials: pd.DataFrame, scores: pd.DataFrame) -> Iterator[Problem]:
    """Yields the finished trials without a score, and the scores that are there twice."""
    remedy = "restore the table, or run the trial again"
    finished = trials.loc[trials["status"] == "finished", "trial"]
    for name in finished[~finished.isin(scores["trial"])]:
        yield Problem(name, "missing", "is finished and must have scores of its cases", remedy=remedy)
    keys = ["trial", "case", "class_index", "metric"]
    for name, twice in scores[scores.duplicated(keys)].groupby("trial"):
        rule = f"must have each score once: {len(twice)} are there again, such as those of case {twice['case'].iloc[0]}"
        yield Problem(str(name), "repeated", rule, remedy=remedy)


def _generalisation_frame(trials: Mapping[str, FullTrial]) -> pd.DataFrame:
    rows = []
    for name, trial in trials.items():
        record = trial.generalisation
        pairs = zip(record.get("train_dice", ()), record.get("val_dice", ()), strict=True)
        for index, (train, validation) in enumerate(pairs, start=1):
            values = {"train_cases": record["train_cases"], "train_dice": train, "val_dice": validation}
            rows.append(_keys(name, trial) | {"class_index": index} | values)
    return pd.DataFrame(rows, columns=[*KEYS, "class_index", "train_cases", "train_dice", "val_dice"])


def _preservation_frame(trials: Mapping[str, FullTrial]) -> pd.DataFrame:
    rows = []
    for name, trial in trials.items():
        for place in trial.places:
            values = {key: tuple(value) if isinstance(value, list) else value for key, value in place.items()}
            rows.append(_keys(name, trial) | {"place": values.pop("name")} | values)
    frame = pd.DataFrame(rows)
    return frame.reindex(columns=[*KEYS, "place", *(key for key in frame if key not in (*KEYS, "place"))])


def _provenance(trials: Mapping[str, FullTrial]) -> Provenance:
    def known(key: str) -> dict[str, Any]:
        return {name: value for name, trial in trials.items() if (value := getattr(trial, key))}

    return Provenance(
        environments=known("environment"),
        data=known("data"),
        splits=known("split"),
        configs=known("config"),
        failures=known("failure"),
    )


def read_devices(folder: Path) -> tuple[Mapping[str, Any], ...]:
    """Reads the devices of ``speed.json``, GPUs first; none where speed was not measured.

    Raises:
        RunError: The file is damaged, a link, or of a newer version.
    """
    with naming_file(path := folder / SPEED_FILE, "measure speed again"):
        devices = read_json(path, folder).get("devices", ())
        for device in devices:
            if not NAME.fullmatch(device["kind"]):
                raise ContentError("name", "must have kinds of letters, digits and . _ -", repr(device["kind"]))
            for variant in device["variants"]:
                if not NAME.fullmatch(variant["name"]):
                    raise ContentError("name", "must name variants of the study", repr(variant["name"]))
                for value in variant.values():
                    if isinstance(value, Mapping):
                        [float(value[key]) for key in ("median", "q1", "q3")]
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
