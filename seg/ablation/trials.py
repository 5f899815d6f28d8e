"""A trial from its configuration to its results: train, score and measure it, each once.

Beside its run directory ``RUN`` a trial has three files: ``RUN.lock`` while a process works on it, ``RUN.log`` with
what it printed, and ``RUN.json`` with what it is made from, so that a trial that was killed goes on.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, TypeAdapter

from seg.ablation.store import FAILURE_FILE, TRIAL_FILE, TRIALS, StoredTrial, TrialRecord, read_trial
from seg.config import DataConfig, ExperimentConfig, dump_config, load_config
from seg.config.loading import comparable, differences, drop_removed_fields
from seg.data.cases import Dataset
from seg.data.datasets import read_configured
from seg.data.splits import Split
from seg.errors import Problem, RunError
from seg.evaluation.scores import CASES_FILE, EVALUATION_FILE
from seg.files import beside, locked, read_json, unwritable, write_bytes, write_json, write_text
from seg.runs import (
    CONFIG_FILE,
    ENVIRONMENT_FILE,
    ENVIRONMENT_VERSION,
    GENERALISATION_FILE,
    METRICS_FILE,
    PRESERVATION_FILE,
)

if TYPE_CHECKING:
    from seg.ablation.study import Trial

LOG = logging.getLogger(__name__)

TRAINING_VERSION = 1
"""Version of the code that turns a configuration and data into weights and predictions.

Raise it with any change that alters weights, label maps or scores, as ``.ci/golden`` shows by comparing two commits.
Finished trials of another version no longer count, and are trained anew.
"""
RESAMPLING_VERSION = 2
"""Version of the code that resamples images to ``data.spacing_mm``; raise it with changes that touch nothing else.

Only trials that resample are trained anew. Version 2 lays the label on the image's grid, and training and prediction
lay a case on the same grid.
"""

SCHEMA_VERSION = 1
FORMER = "former"
"""Ending of the run directory of an older version while the trial is trained anew."""
COPIED = (ENVIRONMENT_FILE, CASES_FILE, EVALUATION_FILE, METRICS_FILE, GENERALISATION_FILE, PRESERVATION_FILE)
"""Files of a run directory that a study keeps."""
REMEDY = "restore them, choose another --ablation_dir, or remove the folder"


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """What a trial is made from. Trials with equal fingerprints have equal weights.

    Attributes:
        config: SHA-256 of the resolved configuration, without what changes neither weights nor predictions.
        data: SHA-256 of the files of all cases, what their channels and labels mean, and the two sides of the fold.
        training_version: Version of the code that trains.
        resampling_version: Version of the code that resamples.
    """

    config: str
    data: str
    training_version: int = TRAINING_VERSION
    resampling_version: int = RESAMPLING_VERSION


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The content of ``RUN.json``: what a run is made from, and what it took so far.

    Attributes:
        fingerprint: What the run is made from.
        seconds: Wall time of training and evaluation, once both are done.
        threads: Threads that they ran with.
        peak_memory_mib: Their peak memory, where it is known.
        measuring_seconds: Wall time of measuring generalisation and preservation, once both are done.
    """

    fingerprint: Fingerprint
    seconds: float | None = None
    threads: int | None = None
    peak_memory_mib: float | None = None
    measuring_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where the trials of a study go.

    Attributes:
        study_dir: Study directory, for results.
        runs_dir: Folder of the run directories.
        threads: Threads of the numerical library; 0 leaves its own choice.
    """

    study_dir: Path
    runs_dir: Path
    threads: int = 0

    def run_dir(self, trial: Trial) -> Path:
        """Returns the run directory of a trial."""
        return self.runs_dir / trial.variant.name / f"fold_{trial.fold}_seed_{trial.seed}"

    def log(self, trial: Trial) -> Path:
        """Returns the file of what a trial prints."""
        return sibling(self.run_dir(trial), "log")


def sibling(run_dir: Path, suffix: str) -> Path:
    """Returns the path of a file beside a run directory."""
    return run_dir.with_name(f"{run_dir.name}.{suffix}")


# What a trial is made from


def fingerprint(config: ExperimentConfig) -> Fingerprint:
    """Returns the fingerprint of a trial. Files of cases are read once per process.

    Raises:
        DataError: The data set cannot be read.
        RunError: The data set has no such fold, or the initial weights cannot be read.
    """
    return Fingerprint(config=config_digest(config), data=data_digest(config))


def config_digest(config: ExperimentConfig) -> str:
    """Returns the digest of a configuration without the folder of the data, cache, workers, progress and name.

    Raises:
        RunError: The initial weights cannot be read.
    """
    content = asdict(decisive(config))
    content["network"]["name"] = "unet"  # a field of older configurations, kept so that older trials still count
    return _digest(content)


def decisive(config: ExperimentConfig) -> ExperimentConfig:
    """Returns a configuration without what changes neither weights nor predictions of a trial, such as its name.

    Folds are left to the digest of the data. Initial weights count by content, wherever they lie.

    Raises:
        RunError: The initial weights cannot be read.
    """
    kept = comparable(config)
    training = replace(kept.training, init_from=_weights(config.training.init_from))
    return replace(kept, name="", data=replace(kept.data, splits=None), training=training)


def data_digest(config: ExperimentConfig) -> str:
    """Returns the digest of the cases that a fold trains and validates on.

    Raises:
        DataError: The data set cannot be read.
        RunError: The data set has no such fold.
    """
    data = config.data
    splits = _splits(data)
    if config.fold >= len(splits):
        raise RunError(
            Problem(
                str(data.root),
                "range",
                f"must have the folds of the study; there are 0 ... {len(splits) - 1}",
                str(config.fold),
                "choose among these",
            )
        )
    return _digest(_files(data.root, data.layout, data.patient_pattern) | splits[config.fold])


def case_digests(config: ExperimentConfig) -> Mapping[str, str]:
    """Returns the digest of each case's files, by the name of the case.

    Raises:
        DataError: The data set cannot be read.
    """
    return dict(_files(config.data.root, config.data.layout, config.data.patient_pattern)["cases"])


def _weights(run_dir: str | None) -> str | None:
    if run_dir is None:
        return None
    from seg.runs import weights_digest

    return weights_digest(Path(run_dir))


@lru_cache(maxsize=64)
def _files(root: str, layout: Any, patient_pattern: str | None) -> dict[str, Any]:
    from seg.data.cache import case_digest
    from seg.data.datasets import read_dataset

    dataset = read_dataset(Path(root), layout=layout, patient_pattern=patient_pattern)
    return {
        "cases": [[case.id, case_digest(case)] for case in dataset.cases],
        "class_names": dataset.class_names,
        "channel_names": dataset.channel_names,
        "ignore_label": dataset.ignore_label,
    }


@lru_cache(maxsize=64)
def _splits(data: DataConfig) -> list[dict[str, Any]]:
    from seg.workflows.inputs import read_splits

    splits = read_splits(ExperimentConfig(data=data), [])
    return [{"train": split.train, "validation": split.validation} for split in splits]


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


# Whether a trial is finished


def why_unfinished(stored: StoredTrial | None, config: ExperimentConfig, own: Fingerprint) -> list[str]:
    """Says why stored results do not make a trial finished; says nothing where the trial is finished.

    Args:
        stored: What is stored of the trial, or None.
        config: The trial's configuration.
        own: The trial's fingerprint.

    Returns:
        Some of ``absent``, ``failed``, ``version``, ``data``, and the dotted paths at which the configuration differs.
    """
    if stored is None:
        return ["absent"]
    record = stored.record
    if record.status != "finished":
        return ["failed"]
    found = []
    if record.fingerprint.get("config") != own.config:
        found += _changed_fields(stored.config, config)
    if record.fingerprint.get("data") != own.data:
        found.append("data")
    if not same_version(record, config, own):
        found.append("version")
    return found


def same_version(made: TrialRecord | Fingerprint, config: ExperimentConfig, own: Fingerprint) -> bool:
    """Tells whether results come from code that gives the same results as this code."""
    resampled = config.data.spacing_mm is not None
    return made.training_version == own.training_version and (
        not resampled or made.resampling_version == own.resampling_version
    )


def _changed_fields(recorded: Mapping[str, Any], config: ExperimentConfig) -> list[str]:
    """Compares field by field: fields that a later version added have their defaults in older results."""
    content = deepcopy(dict(recorded))
    drop_removed_fields(ExperimentConfig, content)  # in silence: a record has nothing that a user should change
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / CONFIG_FILE
        write_text(path, yaml.safe_dump(content))
        found = differing_fields(load_config([path]), config)
    return found or ([] if config.training.init_from is None else ["training.init_from"])


def differing_fields(recorded: ExperimentConfig, config: ExperimentConfig) -> list[str]:
    """Lists the dotted paths at which two configurations differ in what decides weights or predictions."""
    found = differences(
        *(decisive(replace(one, training=replace(one.training, init_from=None))) for one in (recorded, config))
    )
    # Initial weights count by content, which a published configuration cannot tell any more.
    if (recorded.training.init_from is None) != (config.training.init_from is None):
        found.append("training.init_from")
    return found


# Running a trial


def run_trial(trial: Trial, places: Places, *, attempt: int = 1) -> Path:
    """Trains and scores a trial, measures generalisation and preservation, and stores the results.

    A finished trial is not repeated, a killed trial goes on from its checkpoint, and a run directory that was made by
    hand from the same configuration and data is used. The trial prints to ``RUN.log``.

    Args:
        trial: The trial.
        places: Where it goes.
        attempt: Number of this attempt, for the record.

    Returns:
        The run directory.

    Raises:
        SegError: The run directory has another configuration or other data, the data cannot be read, or files cannot
            be written.
    """
    run_dir = places.run_dir(trial)
    with locked(sibling(run_dir, "lock")), redirect_output(places.log(trial)):
        set_threads(places.threads)
        own = fingerprint(trial.config)
        if not why_unfinished(read_trial(places.study_dir, trial.id), trial.config, own):
            return run_dir  # done by another process, for which this process has waited
        progress = _start(trial.config, run_dir, own)
        progress = _train(trial.config, run_dir, progress)
        progress = _measure(trial.config, run_dir, progress)
        _store_finished(places.study_dir, trial, _record(trial, progress, attempt), run_dir)
        shutil.rmtree(sibling(run_dir, FORMER), ignore_errors=True)
    return run_dir


def store_failure(trial: Trial, places: Places, own: Fingerprint, *, attempts: int, traceback: str) -> str:
    """Stores that a trial failed; results of an older version stay, and a warning says so.

    Args:
        trial: The trial.
        places: Where it goes.
        own: Its fingerprint.
        attempts: Attempts made.
        traceback: What the last attempt ended with; its last line is the error.

    Returns:
        The error.
    """
    error = (traceback.strip().splitlines() or ["unknown error"])[-1]
    record = _record(trial, Progress(fingerprint=own), attempts).model_copy(update={"status": "failed", "error": error})
    before = read_trial(places.study_dir, trial.id)
    if before is not None and before.record.status == "finished":
        LOG.warning("%s: failed when it was trained anew; its results of an older version stay", trial.id)
        return error
    with _replaced(places.study_dir / TRIALS / trial.id) as folder:
        write_text(folder / CONFIG_FILE, dump_config(without_folders(trial.config)))
        write_text(folder / FAILURE_FILE, traceback)
        _write_record(folder, record)
    return error


def _store_finished(study_dir: Path, trial: Trial, record: TrialRecord, run_dir: Path) -> None:
    """Copies the light files of a finished run and adds the record; they appear together or not at all."""
    if absent := [name for name in (CONFIG_FILE, *COPIED) if not (run_dir / name).is_file()]:
        raise RunError(
            Problem(
                str(run_dir),
                "missing",
                f"must be a complete run, but has no {', '.join(absent)}",
                remedy="remove it to run the trial again",
            )
        )
    with _replaced(study_dir / TRIALS / trial.id) as folder:
        write_text(folder / CONFIG_FILE, dump_config(without_folders(load_config([run_dir / CONFIG_FILE]))))
        for name in COPIED:
            write_bytes(folder / name, (run_dir / name).read_bytes())
        _write_record(folder, record)


def without_folders(config: ExperimentConfig) -> ExperimentConfig:
    """Leaves folders of this machine out of a configuration, so that it can be published."""
    source, splits = config.training.init_from, config.data.splits
    training = replace(config.training, init_from=None if source is None else Path(source).name)
    data = replace(
        config.data,
        root=Path(config.data.root).name,
        cache_dir=None,
        splits=None if splits is None else Path(splits).name,
    )
    return replace(config, data=data, training=training)


def _record(trial: Trial, progress: Progress, attempts: int) -> TrialRecord:
    made = progress.fingerprint
    return TrialRecord(
        variant=trial.variant.name,
        fold=trial.fold,
        seed=trial.seed,
        status="finished",
        attempts=attempts,
        seconds=progress.seconds,
        measuring_seconds=progress.measuring_seconds,
        peak_memory_mib=progress.peak_memory_mib,
        threads=progress.threads,
        training_version=made.training_version,
        resampling_version=made.resampling_version,
        fingerprint={"config": made.config, "data": made.data},
    )


def _write_record(folder: Path, record: TrialRecord) -> None:
    write_json(folder / TRIAL_FILE, {"schema_version": SCHEMA_VERSION, **record.model_dump()})


@contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """Gives a new folder that takes the place of ``folder`` at the end, or is removed on an error."""
    new = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob(f".{folder.name}.*"):  # by a process that was killed
            shutil.rmtree(left)
        new = beside(folder)
        new.mkdir()
        yield new
        if folder.exists():
            os.rename(folder, beside(folder))
        os.rename(new, folder)
        new = None
        for old in folder.parent.glob(f".{folder.name}.*"):
            shutil.rmtree(old)
    except OSError as error:
        raise unwritable(folder, error) from error
    finally:
        if new is not None:
            shutil.rmtree(new, ignore_errors=True)


def _train(config: ExperimentConfig, run_dir: Path, progress: Progress) -> Progress:
    """Trains and scores a run where that is not done, and notes what it took."""
    before = trained_seconds(run_dir)
    if (run_dir / EVALUATION_FILE).exists():
        if progress.seconds is not None:
            return progress
        return _write_progress(run_dir, replace(progress, seconds=before))
    import torch

    from seg.hardware import PeakMemory
    from seg.workflows.train import train

    peak, start = PeakMemory(), time.perf_counter()
    train(_under_its_name(config, run_dir), run_dir=run_dir, folds=[config.fold], resume=True)
    seconds = before + time.perf_counter() - start
    threads = torch.get_num_threads()
    return _write_progress(run_dir, replace(progress, seconds=seconds, threads=threads, peak_memory_mib=peak.mib()))


def _measure(config: ExperimentConfig, run_dir: Path, progress: Progress) -> Progress:
    """Measures generalisation and preservation where that is not done, and notes what it took."""
    from seg.ablation.generalisation import measure_generalisation
    from seg.ablation.preservation.run import measure_preservation

    missing = [name for name in (GENERALISATION_FILE, PRESERVATION_FILE) if not (run_dir / name).is_file()]
    if not missing:
        return progress
    start = time.perf_counter()
    dataset, split = read_fold(config, run_dir)
    if GENERALISATION_FILE in missing:
        measure_generalisation(run_dir, dataset, split)
    if PRESERVATION_FILE in missing:
        measure_preservation(run_dir, dataset, split.validation)
    return _write_progress(run_dir, replace(progress, measuring_seconds=time.perf_counter() - start))


def read_fold(config: ExperimentConfig, run_dir: Path) -> tuple[Dataset, Split]:
    """Reads the cases that a run was made from; the run has checked their files."""
    from seg.workflows.inputs import read_splits

    dataset = read_configured(config.data)
    kept = recorded_cases(run_dir)
    left_out = [case.id for case in dataset.cases if case.id not in kept]
    cases = tuple(case for case in dataset.cases if case.id in kept)
    return replace(dataset, cases=cases), read_splits(config, left_out)[config.fold]


def set_threads(count: int) -> None:
    """Sets the threads of the numerical library; 0 leaves its own choice."""
    if count > 0:
        import torch

        torch.set_num_threads(count)


def trained_seconds(run_dir: Path) -> float:
    """Returns the seconds of training that a run's checkpoint has behind it; 0 before the first checkpoint."""
    path = run_dir / METRICS_FILE
    if not path.is_file():
        return 0.0
    with path.open(newline="", encoding="utf-8") as file:
        return max((float(row["seconds"]) for row in csv.DictReader(file)), default=0.0)


@contextmanager
def redirect_output(path: Path) -> Iterator[None]:
    """Sends everything that a block prints or logs to the end of a file."""
    logger = logging.getLogger("seg")
    handlers, level = logger.handlers, logger.level
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        handler = logging.StreamHandler(file)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        try:
            yield
        finally:
            logger.handlers = handlers
            logger.setLevel(level)


# Run directories that exist


def _start(config: ExperimentConfig, run_dir: Path, own: Fingerprint) -> Progress:
    """Decides whether a run directory can be used, and notes what the run is made from before it begins.

    A run of another version is put aside until the new run is done.

    Raises:
        RunError: The run directory has another configuration or other data.
    """
    progress = _read_progress(run_dir, own) if (run_dir / CONFIG_FILE).exists() else None
    if progress is not None and not same_version(progress.fingerprint, config, own):
        LOG.warning("%s: made by another version of the training code; trained anew", run_dir)
        _put_aside(run_dir)
        progress = None
    if progress is None:
        return _write_progress(run_dir, Progress(fingerprint=own))
    check_run_dir(config, run_dir)
    return progress


def _put_aside(run_dir: Path) -> None:
    """Renames a run directory. What was put aside before was never replaced, and stays."""
    former = sibling(run_dir, FORMER)
    try:
        if former.exists():
            shutil.rmtree(run_dir)
        else:
            os.rename(run_dir, former)
    except OSError as error:
        raise unwritable(run_dir, error) from error


def _read_progress(run_dir: Path, own: Fingerprint) -> Progress:
    """Reads what a run directory was made from; a run made by hand counts as made by this code, with a warning."""
    path = sibling(run_dir, "json")
    if not path.is_file():
        LOG.warning("%s: was made by hand and is used as it is; which code made it is not known", run_dir)
        return Progress(fingerprint=own)
    note = read_json(path, _Note, newest=SCHEMA_VERSION, remedy="remove it to use the run directory as it is")
    # Older notes have a digest of the code instead of versions; all of that code is version 1.
    noted = {"training_version": 1, "resampling_version": 1, **note.fingerprint}
    noted.pop("code", None)
    return TypeAdapter(Progress).validate_python({**(note.model_extra or {}), "fingerprint": noted})


class _Note(BaseModel, extra="allow"):
    """The content of ``RUN.json`` in all its versions."""

    fingerprint: dict[str, Any]


def _write_progress(run_dir: Path, progress: Progress) -> Progress:
    write_json(sibling(run_dir, "json"), {"schema_version": SCHEMA_VERSION, **asdict(progress)})
    return progress


def check_run_dir(config: ExperimentConfig, run_dir: Path) -> None:
    """Checks that a run directory that exists holds the trial, whatever the experiment is called there.

    Raises:
        RunError: The run directory has another configuration or other data.
    """
    if changed := differing_fields(load_config([run_dir / CONFIG_FILE]), config):
        rule = "must have the configuration that the run began with"
        raise RunError(Problem(str(run_dir), "config", rule, f"other {', '.join(changed)}", REMEDY))
    current = case_digests(config)
    other = sorted(name for name, digest in recorded_cases(run_dir).items() if current.get(name) != digest)
    if other:
        rule = "must have the data that the run began with"
        value = f"other files of cases {', '.join(other)}"
        raise RunError(Problem(str(run_dir), "data", rule, value, REMEDY))


def recorded_cases(run_dir: Path) -> dict[str, str]:
    """Returns the digests of the cases that a run was made from; faulty cases that were left out are not among them.

    Raises:
        RunError: The run does not say.
    """
    path = run_dir / ENVIRONMENT_FILE
    remedy = f"remove {run_dir} to run the trial again"
    return read_json(path, _Digests, newest=ENVIRONMENT_VERSION, remedy=remedy).data


class _Digests(BaseModel):
    """The part of ``environment.json`` that says what a run was made from."""

    data: dict[str, str]


def _under_its_name(config: ExperimentConfig, run_dir: Path) -> ExperimentConfig:
    """Returns a trial's configuration under the name that its run directory began with."""
    path = run_dir / CONFIG_FILE
    return replace(config, name=load_config([path]).name) if path.is_file() else config
