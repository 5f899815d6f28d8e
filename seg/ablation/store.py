"""The results of a study as tables: read from a study that runs, or from a published one, and published.

A study directory holds its plan (``study.yaml``), its trials and ``speed.json``. While the study runs, each trial has
a folder ``trials/TRIAL`` with the light files of its run. A published study holds the same in a few tables:
``trials.csv``, ``cases.csv``, ``curves.csv``, ``preservation.csv`` and ``provenance.json``. A directory may hold both:
then the folder of a trial counts, and publishing again puts it into the tables.

Tables are read by the names of their columns. A column that nobody knows is a metric, and a metric that a file has not
is absent from the result, so that results outlive the code that wrote them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import pandas as pd
from pydantic import AfterValidator, AliasChoices, AliasPath, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from seg.ablation.plan import StudyPlan, read_study
from seg.ablation.reading import NAME, VERSION, Name, is_there
from seg.config.text import read_yaml
from seg.errors import Problem, RunError, shown
from seg.evaluation.differences import run_name
from seg.evaluation.metrics import finite_mean
from seg.evaluation.scores import check_ranges
from seg.files import check_rows, quoted, read_bytes, read_json, read_table
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
TRIAL_KEYS = ("trial", "variant", "fold", "seed")
ENVIRONMENT = ("device", "precision", "instruction_sets", "cores", "python", "platform", "version", "revision")
"""Fields of an environment that become columns of the trials; packages do too, by their names."""
RESTORE = "restore the file, or remove it and run the study again"
T = TypeVar("T", bound=BaseModel)
Count = Annotated[int, Field(ge=0, lt=2**63)]


# The content of the files


class RunRecord(BaseModel):
    """What a run is made from, and what it took so far: the content of its ``RUN.json``.

    Attributes:
        seconds: Wall time of training and evaluation over all attempts, or of training alone for a run made by hand;
            None until both are done.
        measuring_seconds: Wall time of measuring generalisation and preservation; None where it is not known.
        peak_memory_mib: Peak memory of training and evaluation in MiB, on the GPU where one computed, else of the
            process; None where it is not known.
        threads: Threads of the numerical library; None where their number is not known.
        training_version: Version of the code that trained it; see :mod:`seg.ablation.trials`.
        resampling_version: Version of the code that resampled its data.
        measures_version: Version of the code that measured generalisation and preservation.
        config_digest: SHA-256 of the resolved configuration, without what changes neither weights nor predictions.
        data_digest: SHA-256 of the files of all cases, what their channels and labels mean, and the sides of the fold.
    """

    model_config = ConfigDict(frozen=True)
    seconds: float | None = None
    measuring_seconds: float | None = None
    peak_memory_mib: float | None = None
    threads: Count | None = None
    # Records of older code lack the versions; all of that code is version 1.
    training_version: int = Field(
        default=1, validation_alias=AliasChoices("training_version", AliasPath("fingerprint", "training_version"))
    )
    resampling_version: int = Field(
        default=1, validation_alias=AliasChoices("resampling_version", AliasPath("fingerprint", "resampling_version"))
    )
    measures_version: int = 1
    config_digest: str | None = Field(
        default=None, validation_alias=AliasChoices("config_digest", AliasPath("fingerprint", "config"))
    )
    data_digest: str | None = Field(
        default=None, validation_alias=AliasChoices("data_digest", AliasPath("fingerprint", "data"))
    )

    @property
    def total_seconds(self) -> float | None:
        """Wall time of the trial, as far as it is known."""
        return None if self.seconds is None else self.seconds + (self.measuring_seconds or 0.0)

    def content(self) -> dict[str, Any]:
        """Returns the content of the record's JSON file."""
        values = self.model_dump()
        fingerprint = {name: values.pop(f"{name}_digest") for name in ("config", "data")}
        return {"schema_version": VERSION, **values, "fingerprint": fingerprint}


class TrialRecord(RunRecord):
    """How a trial went: the content of its ``trial.json``.

    Attributes:
        variant: Name of its variant.
        fold: Its fold.
        seed: Its seed.
        status: Whether the trial came to its end.
        attempts: Attempts that this took, >= 1.
        error: What the last attempt ended with, in one line; None for a finished trial.
    """

    variant: str
    fold: Count
    seed: Count
    status: Literal["finished", "failed"]
    attempts: int = 1
    error: str | None = None


class Generalisation(BaseModel):
    """Mean Dice of each foreground class on so many training cases, and on held-out ones."""

    train_cases: Count | None = None
    train_dice: tuple[float | None, ...] = ()
    val_dice: tuple[float | None, ...] = ()

    @model_validator(mode="after")
    def _alike(self) -> Self:
        if len(self.train_dice) != len(self.val_dice):
            raise PydanticCustomError("length", "must have as many classes in train_dice as in val_dice")
        return self


def _case_named(text: str) -> str:
    if not CASE_NAME.fullmatch(text):
        raise PydanticCustomError("name", "must be letters, digits and . + _ - space")
    return text


def _measured(value: Any) -> Any:
    if isinstance(value, Mapping) and not all(
        isinstance(value.get(key), int | float) for key in ("median", "q1", "q3")
    ):
        raise PydanticCustomError("quartiles", "must have numbers median, q1 and q3")
    return value


class _CaseRow(BaseModel, extra="allow"):
    __pydantic_extra__: dict[str, float]
    trial: str = ""
    case_id: Annotated[str, AfterValidator(_case_named)]
    patient: str = ""
    fold: str = ""
    class_index: Count
    class_name: str = ""


class _CurveRow(BaseModel, extra="allow"):
    __pydantic_extra__: dict[str, float]
    trial: str = ""
    step: Annotated[float, Field(ge=0, le=1e15)]


class _PlaceRow(BaseModel, extra="allow"):
    trial: str = ""
    name: str
    stage: Count | None = None
    channels: Count | None = None
    voxels: Count | None = None
    wide: Count | None = None
    narrow: Count | None = None
    cases: Count | None = None


class _Preservation(BaseModel):
    cases: int | None = None
    bottlenecks: list[_PlaceRow]


class _Environment(BaseModel, extra="allow"):
    threads: Count | None = None
    packages: dict[str, str] | None = None


class _EnvironmentFile(_Environment):
    data: dict[str, str] | None = None
    split: dict[str, list[str]] | None = None


class _Difference(BaseModel):
    changes: dict[str, Any]
    removed: list[str]


class _Configs(BaseModel):
    base: dict[str, Any] = {}
    trials: dict[str, _Difference] = {}


class _Provenance(BaseModel):
    environments: list[_Environment] = []
    data: list[dict[str, str]] = []
    splits: list[dict[str, list[str]]] = []
    configs: _Configs = _Configs()
    failures: dict[str, str] = {}


class _TrialRow(TrialRecord, Generalisation):
    trial: Name
    environment: int | None = None
    data: int | None = None
    split: int | None = None


class _VariantSpeed(BaseModel, extra="allow"):
    __pydantic_extra__: dict[str, Annotated[Any, AfterValidator(_measured)]]
    name: Name


class _DeviceSpeed(BaseModel, extra="allow"):
    kind: Name
    variants: list[_VariantSpeed]


class _Speed(BaseModel):
    devices: list[_DeviceSpeed] = []


# Trials


@dataclass(kw_only=True)
class StoredTrial:
    """All that is stored of a trial; what is not known is empty or None.

    Attributes:
        record: How the trial went, and what it was made from.
        path: The file or folder that says so, for messages.
        config: Its configuration, as it was written.
        cases: Rows of ``cases.csv``.
        curve: Rows of ``metrics.csv``.
        places: What was measured at each bottleneck.
        generalisation: Dice on training and held-out cases.
        environment: Machine, packages and precision.
        data: Digest of each case's files, by case.
        split: Cases of the two sides, ``train`` and ``validation``.
        failure: What a failed trial ended with, in full.
    """

    record: TrialRecord
    path: Path
    config: dict[str, Any] = field(default_factory=dict)
    cases: list[dict[str, Any]] = field(default_factory=list)
    curve: list[dict[str, Any]] = field(default_factory=list)
    places: list[dict[str, Any]] = field(default_factory=list)
    generalisation: Generalisation = field(default_factory=Generalisation)
    environment: dict[str, Any] | None = None
    data: dict[str, str] | None = None
    split: dict[str, list[str]] | None = None
    failure: str = ""

    @property
    def mean_dice(self) -> float | None:
        """Mean over classes of the mean Dice over cases; a class that no case shows is left out."""
        by_class: dict[int, list[float | None]] = {}
        for row in self.cases:
            by_class.setdefault(row["class_index"], []).append(row.get("dice"))
        return finite_mean(map(finite_mean, by_class.values()))


def run_path(runs_dir: Path, variant: str, fold: int, seed: int) -> Path:
    """Returns the run directory of a variant with a fold and a seed."""
    return runs_dir / variant / f"fold_{fold}_seed_{seed}"


def read_trials(folder: Path) -> dict[str, StoredTrial]:
    """Reads all trials of a study directory by their names: those of the tables, and over them those with a folder.

    Raises:
        RunError: A file is damaged, a link, or of a newer version.
    """
    trials, _, problems = _read_readable(folder)
    if problems:
        raise RunError(problems)
    return trials


def _read_readable(
    folder: Path, planned: Collection[str] = ()
) -> tuple[dict[str, StoredTrial], set[str], list[Problem]]:
    """Reads the trials that can be read; returns the names of the others too, and what is wrong with these.

    Args:
        folder: The study directory.
        planned: Names of all trials: a table of trials that cannot be read may have held any of them.
    """
    trials: dict[str, StoredTrial] = {}
    damaged: set[str] = set()
    problems: list[Problem] = []
    try:
        damaged |= set(planned)
        trials = _read_trials_table(folder)
        damaged = set(trials)
        _add_rows(folder, trials)
        damaged.clear()
    except RunError as error:
        trials.clear()
        problems += error.problems
    for path in sorted((folder / TRIALS).glob(f"*/{TRIAL_FILE}")):
        name = path.parent.name
        if not name.startswith("."):
            trials.pop(name, None)
            damaged.discard(name)
            try:
                trials[name] = _read_folder(folder, name)
            except RunError as error:
                damaged.add(name)
                problems += error.problems
    return trials, damaged, problems


def read_trial(folder: Path, name: str) -> StoredTrial | None:
    """Reads what is stored of a trial; None where that is nothing.

    Raises:
        RunError: A file is damaged, a link, or of a newer version.
    """
    if is_there(folder / TRIALS / name / TRIAL_FILE, folder):
        return _read_folder(folder, name)
    return _read_tables(folder).get(name)


def _read_folder(study_dir: Path, name: str) -> StoredTrial:
    folder = study_dir / TRIALS / name
    remedy = f"restore the file, or remove {folder} to run the trial again"
    if not NAME.fullmatch(name):
        raise RunError(Problem(quoted(str(folder)), "name", "must be letters, digits and . _ -", remedy="rename it"))

    def there(file: str) -> bool:
        return is_there(folder / file, study_dir)

    def json(file: str, schema: type[T]) -> T:
        return read_json(folder / file, schema, newest=VERSION, remedy=remedy)

    def rows(file: str, schema: type[BaseModel]) -> list[dict[str, Any]]:
        return _rows(folder / file, study_dir, schema, remedy)

    there(TRIAL_FILE)
    trial = StoredTrial(record=json(TRIAL_FILE, TrialRecord), path=folder)
    if there(CONFIG_FILE):
        trial.config = read_yaml(folder / CONFIG_FILE, dict[str, Any], remedy=remedy)
    if there(FAILURE_FILE):
        trial.failure = read_bytes(folder / FAILURE_FILE, remedy=remedy).decode(errors="replace")
    if trial.record.status != "finished":
        return trial
    trial.cases, trial.curve = rows(CASES_TABLE, _CaseRow), rows(METRICS_FILE, _CurveRow)
    if not trial.cases:
        rule = "must hold the scores of a finished trial"
        raise RunError(Problem(quoted(str(folder / CASES_TABLE)), "missing", rule, "none", remedy))
    if there(GENERALISATION_FILE):
        trial.generalisation = json(GENERALISATION_FILE, Generalisation)
    if there(PRESERVATION_FILE):
        content = json(PRESERVATION_FILE, _Preservation)
        trial.places = [
            {**place.model_dump(exclude_unset=True), "cases": content.cases} for place in content.bottlenecks
        ]
    if there(ENVIRONMENT_FILE):
        environment = json(ENVIRONMENT_FILE, _EnvironmentFile)
        trial.environment = environment.model_dump(exclude_unset=True, exclude={"data", "split"})
        trial.data, trial.split = environment.data, environment.split
    return trial


def _rows(
    path: Path, folder: Path, schema: type[BaseModel], remedy: str, columns: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Reads a table; empty cells are left out, or None in a table of places. An absent file has no rows."""
    if not is_there(path, folder):
        return []
    table = read_table(path, columns=columns, escaped=True, remedy=remedy)
    if not read_bytes(path, remedy=remedy).endswith(b"\n") and table:
        raise RunError(Problem(quoted(str(path)), "cut", "must end with a whole line", remedy=remedy))
    kept = schema is _PlaceRow  # columns of measures stay where no place has a number
    cells = [{name: cell or None for name, cell in row.items() if cell or kept} for row in table]
    rows = [row.model_dump(exclude_unset=True) for row in check_rows(path, cells, schema, remedy=remedy)]
    if schema is _CaseRow:
        check_ranges(path, rows, remedy=remedy)
    return rows


def _read_tables(folder: Path) -> dict[str, StoredTrial]:
    """Reads the trials of a published study; none where there are no tables."""
    trials = _read_trials_table(folder)
    _add_rows(folder, trials)
    return trials


def _read_trials_table(folder: Path) -> dict[str, StoredTrial]:
    """Reads the trials of a published study, without what its other tables hold of them."""
    path, provenance = folder / TRIALS_TABLE, _Provenance()
    if is_there(folder / PROVENANCE_FILE, folder):
        provenance = read_json(folder / PROVENANCE_FILE, _Provenance, newest=VERSION, remedy=RESTORE)
    trials = {}
    if is_there(path, folder):
        nested = [
            {name: cell for name, cell in row.items() if cell}
            | {f"{side}_dice": _numbered(row, f"{side}_dice") for side in ("train", "val")}
            for row in read_table(path, columns=(*TRIAL_KEYS, "status"), escaped=True, remedy=RESTORE)
        ]
        for number, row in enumerate(check_rows(path, nested, _TrialRow, remedy=RESTORE)):
            trials[row.trial] = _trial_of_row(row, provenance, f"{quoted(str(path))}: [{number}]", path)
    return trials


def _add_rows(folder: Path, trials: Mapping[str, StoredTrial]) -> None:
    """Adds scores, curves and places from the tables of a published study to its trials."""
    path = folder / TRIALS_TABLE
    for name, attribute, schema in (
        (CASES_TABLE, "cases", _CaseRow),
        (CURVES_TABLE, "curve", _CurveRow),
        (PRESERVATION_TABLE, "places", _PlaceRow),
    ):
        required = [column for column, info in schema.model_fields.items() if info.is_required()]
        for cells in _rows(folder / name, folder, schema, RESTORE, ("trial", *required)):
            if (trial := cells.pop("trial", "")) not in trials:
                rule = f"must hold each trial of {name}"
                raise RunError(Problem(quoted(str(path)), "missing", rule, f"no {shown(trial)}", RESTORE))
            getattr(trials[trial], attribute).append(
                {key: _place_value(key, value) for key, value in cells.items()} if schema is _PlaceRow else cells
            )


def _numbered(row: Mapping[str, str], stem: str) -> list[str]:
    """Returns the cells of the columns ``STEM_1``, ``STEM_2``, ... that are not empty."""
    return [cell for index in range(1, len(row)) if (cell := row.get(f"{stem}_{index}"))]


def _trial_of_row(row: _TrialRow, provenance: _Provenance, where: str, path: Path) -> StoredTrial:
    values = row.model_dump()
    trial = StoredTrial(
        record=TrialRecord.model_validate(values),
        path=path,
        generalisation=Generalisation.model_validate(values),
        failure=provenance.failures.get(row.trial, ""),
    )
    shared: Mapping[str, Sequence[Any]] = {
        "environment": [one.model_dump(exclude_unset=True) for one in provenance.environments],
        "data": provenance.data,
        "split": provenance.splits,
    }
    for key, entries in shared.items():
        if (index := values[key]) is not None:
            if not 0 <= index < len(entries):
                rule = f"must be an entry of {PROVENANCE_FILE}, of which there are {len(entries)}"
                raise RunError(Problem(f"{where}.{key}", "range", rule, str(index), RESTORE))
            setattr(trial, key, entries[index])
    if (difference := provenance.configs.trials.get(row.trial)) is not None:
        trial.config = _changed(provenance.configs.base, difference)
    return trial


def _place_value(key: str, text: Any) -> Any:
    """Returns the value of a cell of ``preservation.csv``, also of a column that nobody knows."""
    if not isinstance(text, str) or key in PLACE_TEXTS:
        return text
    if text in ("true", "false"):
        return text == "true"
    try:
        numbers = [None if part == "-" else float(part) for part in text.split(" ")]
    except ValueError:
        return text
    return numbers if key in VECTORS or len(numbers) > 1 else numbers[0]


def _changed(base: Mapping[str, Any], difference: _Difference) -> dict[str, Any]:
    """Returns a configuration from its difference to another one."""
    result = deepcopy(dict(base))

    def section(path: str) -> tuple[dict[str, Any], str]:
        *sections, last = path.split(".")
        at = result
        for name in sections:
            if not isinstance(at.get(name), dict):
                at[name] = {}
            at = at[name]
        return at, last

    for path in difference.removed:
        at, name = section(path)
        at.pop(name, None)
    for path, value in difference.changes.items():
        at, name = section(path)
        at[name] = value
    return result


# Tables


@dataclass(frozen=True, kw_only=True)
class Results:
    """All results of a study, in tables with one row a value.

    Attributes:
        study: The plan.
        trials: A row for each planned trial: trial, variant, fold, seed, the fields of :class:`TrialRecord`, with a
            status of ``finished``, ``failed``, ``not run`` or ``damaged``, and of its environment what `ENVIRONMENT`
            names and the version of each package, such as torch. What is not known is missing.
        scores: trial, variant, fold, seed, case, patient, class_index, class_name, metric, value. A value is missing
            where both masks are empty, and infinite for a distance from an empty mask.
        curves: trial, variant, fold, seed, step, metric, value: what training logged.
        generalisation: trial, variant, fold, seed, class_index, train_cases, train_dice, val_dice: mean Dice of each
            foreground class on training cases and on held-out ones.
        preservation: A row for each trial and bottleneck: trial, variant, fold, seed, place, path, stage, channels, and
            what was measured there. Measures of several numbers are tuples; what was not measured is missing.
        speed: device_index, device, kind, threads, precision, memory_format, engine, instruction_sets, variant,
            measure, value, q1, q3. Value is the median where quartiles are given.
        devices: The records of ``speed.json``, GPUs first; ``device_index`` counts them.
        stored: All trials with results, by name.
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
    stored: Mapping[str, StoredTrial]
    unplanned: tuple[str, ...]
    problems: tuple[Problem, ...]


def read_results(folder: Path) -> Results:
    """Reads all results of a study directory, of one that runs as well as of a published one.

    What cannot be read is left out and named among the problems. Links in the directory are not followed.

    Raises:
        RunError: The plan is absent, damaged or of a newer version.
    """
    study = read_study(folder)
    stored, damaged, problems = _read_readable(folder, study.trials)
    for name in set(study.trials) & set(stored):
        if (variant := stored[name].record.variant) not in study.names:
            remedy = "remove the trial, or start the study again to write its plan anew"
            rule = "must be of a variant of the study"
            problems.append(Problem(quoted(str(folder / TRIALS / name)), "variant", rule, repr(variant), remedy))
            del stored[name]
            damaged.add(name)
    devices: tuple[Mapping[str, Any], ...] = ()
    try:
        devices = read_devices(folder)
    except RunError as error:
        problems += error.problems
    planned = {name: stored[name] for name in study.trials if name in stored}
    trials = _trial_frame(study, planned, damaged)
    scores = _long(planned, "cases", {"case_id": "case"}, CASE_KEYS).astype({"class_index": int})
    if not problems:  # a damaged file is named already, and is why its trial has no scores
        problems += _score_problems(trials, scores)
    # A resumed run may have logged a step twice: the later row is of the weights that went on.
    curves = _long(planned, "curve", {}, ("step",)).astype({"step": int})
    return Results(
        study=study,
        trials=trials,
        scores=scores,
        curves=curves.drop_duplicates(["trial", "step", "metric"], keep="last").reset_index(drop=True),
        generalisation=_generalisation_frame(planned),
        preservation=_preservation_frame(planned),
        speed=_speed_frame(devices),
        devices=devices,
        stored=stored,
        unplanned=tuple(sorted(set(stored) - set(study.trials))),
        problems=tuple(problems),
    )


def trial_keys(name: str, trial: StoredTrial) -> dict[str, Any]:
    """Returns the cells by which the rows of a trial are found in every table."""
    record = trial.record
    return {"trial": name, "variant": record.variant, "fold": record.fold, "seed": record.seed}


def _trial_frame(study: StudyPlan, trials: Mapping[str, StoredTrial], damaged: Collection[str]) -> pd.DataFrame:
    rows = []
    for name in study.trials:
        trial = trials.get(name)
        if trial is None:
            status = "damaged" if name in damaged else "not run"
            rows.append({**_planned(study, name), "status": status})
            continue
        environment = trial.environment or {}
        known = {key: _flat(environment.get(key)) for key in ENVIRONMENT} | (environment.get("packages") or {})
        row = trial_keys(name, trial) | trial.record.model_dump(exclude=set(TRIAL_KEYS)) | known
        if row["threads"] is None:
            row["threads"] = environment.get("threads")
        rows.append(row)
    columns = [*TRIAL_KEYS, *(key for key in TrialRecord.model_fields if key not in TRIAL_KEYS)]
    frame = pd.DataFrame(rows, columns=None if rows else columns)
    for key in ("seconds", "measuring_seconds", "peak_memory_mib"):
        frame[key] = frame[key].astype(float) if key in frame else math.nan
    return frame.reindex(columns=[*columns, *(name for name in frame.columns if name not in columns)])


def _flat(value: Any) -> Any:
    """Returns a list, as of instruction sets, as one text, so that it can stand in a table."""
    return " ".join(map(str, value)) if isinstance(value, list) else value


def _planned(study: StudyPlan, name: str) -> dict[str, Any]:
    """Returns variant, fold and seed of a planned trial, of which only the name is known."""
    for variant in study.names:
        for fold in study.folds:
            for seed in study.seeds:
                if name == run_name(variant, (fold, seed)):
                    return {"trial": name, "variant": variant, "fold": fold, "seed": seed}
    return {"trial": name}


def _long(trials: Mapping[str, StoredTrial], table: str, names: Mapping[str, str], keys: Sequence[str]) -> pd.DataFrame:
    """Makes a row of each number of a table."""
    rows = []
    for name, trial in trials.items():
        own = trial_keys(name, trial)
        for row in getattr(trial, table):
            shared = {names.get(key, key): row[key] for key in keys if key in row} | own
            rows += [shared | {"metric": key, "value": value} for key, value in row.items() if key not in keys]
    shared_names = [names.get(key, key) for key in keys if key != "fold"]
    return pd.DataFrame(rows, columns=[*TRIAL_KEYS, *shared_names, "metric", "value"]).astype({"value": float})


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


def _generalisation_frame(trials: Mapping[str, StoredTrial]) -> pd.DataFrame:
    rows = []
    for name, trial in trials.items():
        found = trial.generalisation
        for index, (train, validation) in enumerate(zip(found.train_dice, found.val_dice, strict=True), start=1):
            values = {"train_cases": found.train_cases, "train_dice": train, "val_dice": validation}
            rows.append(trial_keys(name, trial) | {"class_index": index} | values)
    return pd.DataFrame(rows, columns=[*TRIAL_KEYS, "class_index", "train_cases", "train_dice", "val_dice"])


def _preservation_frame(trials: Mapping[str, StoredTrial]) -> pd.DataFrame:
    rows = []
    for name, trial in trials.items():
        for place in trial.places:
            values = {key: tuple(value) if isinstance(value, list) else value for key, value in place.items()}
            rows.append(trial_keys(name, trial) | {"place": values.pop("name")} | values)
    frame = pd.DataFrame(rows)
    return frame.reindex(columns=[*TRIAL_KEYS, "place", *(key for key in frame if key not in (*TRIAL_KEYS, "place"))])


def read_devices(folder: Path) -> tuple[Mapping[str, Any], ...]:
    """Reads the devices of ``speed.json``, GPUs first; none where speed was not measured.

    Raises:
        RunError: The file is damaged, a link, or of a newer version.
    """
    path = folder / SPEED_FILE
    if not is_there(path, folder):
        return ()
    found = read_json(path, _Speed, newest=VERSION, remedy="measure speed again").model_dump(exclude_unset=True)
    return tuple(sorted(found.get("devices", ()), key=lambda device: bool(device["kind"] != "cuda")))


def entry_instruction_sets(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the instruction sets of the processor that an entry of ``speed.json`` was measured on, if it says so."""
    about = entry.get("environment")
    sets = about.get("instruction_sets") if isinstance(about, Mapping) else None
    return tuple(map(str, sets)) if isinstance(sets, list) else ()


def _speed_frame(devices: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    about = ("device", "kind", "threads", "precision", "memory_format")
    columns = ("device_index", *about, "engine", "instruction_sets", "variant", "measure", "value", "q1", "q3")
    rows = []
    for index, device in enumerate(devices):
        how = {key: device.get(key) for key in about}
        how |= {"engine": device.get("engine", "torch"), "instruction_sets": " ".join(entry_instruction_sets(device))}
        for variant in device["variants"]:
            own = {"device_index": index, **how, "variant": variant["name"]}
            for measure, value in variant.items():
                if isinstance(value, Mapping):
                    numbers = {"value": value["median"], "q1": value["q1"], "q3": value["q3"]}
                elif isinstance(value, int | float) and not isinstance(value, bool):
                    numbers = {"value": value}
                else:
                    continue
                rows.append(own | {"measure": measure} | numbers)
    return pd.DataFrame(rows, columns=list(columns))
