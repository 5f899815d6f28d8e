"""A trial from its configuration to its results: train, score and measure it, each once.

Beside its run directory ``RUN`` a trial has three files: ``RUN.lock`` while a process works on it, ``RUN.log`` with
what it printed, and ``RUN.json`` with what it is made from, so that a trial that was killed goes on.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from seg.ablation.launch.tasks import last_line
from seg.ablation.plan import OLD_STUDY_FILE, STUDY_FILE
from seg.ablation.reading import VERSION
from seg.ablation.store import (
    FAILURE_FILE,
    SPEED_FILE,
    TRIAL_FILE,
    TRIALS,
    RunRecord,
    StoredTrial,
    TrialRecord,
    read_trial,
    run_path,
)
from seg.config import DataConfig, ExperimentConfig, dump_config, load_config
from seg.config.loading import comparable, content_digest, differences, drop_removed_fields
from seg.data.cases import Dataset
from seg.data.datasets import read_configured
from seg.data.splits import Split
from seg.errors import Problem, RunError, shown
from seg.evaluation.scores import CASES_FILE, EVALUATION_FILE
from seg.files import (
    NO_ROOM,
    beside,
    check_folder,
    is_partial,
    locked,
    quoted,
    read_bytes,
    read_json,
    unwritable,
    write_bytes,
    write_json,
    write_text,
)
from seg.runs import (
    CONFIG_FILE,
    ENVIRONMENT_FILE,
    GENERALISATION_FILE,
    METRICS_FILE,
    MODEL_FILE,
    PRESERVATION_FILE,
    WEIGHTS_FILE,
    Origin,
    check_free,
    read_history,
    read_origin,
)
from seg.words import counted, some

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

MEASURES_VERSION = 1
"""Version of the code that measures generalisation and preservation; raise it with changes that alter their records.

Finished trials of another version stay, and are measured anew where their run is still there.
"""

FORMER = "former"
"""A run directory made by another version is renamed to RUN.former while its trial is trained anew; RUN.former.json is
its record, which says the version."""
FORMER_RECORD = f"{FORMER}.json"
CACHE = ".cache"
"""Folder of prepared cases that all trials share, beside the folders of variants; no variant can be called so."""
COPIED = (ENVIRONMENT_FILE, CASES_FILE, EVALUATION_FILE, METRICS_FILE, GENERALISATION_FILE, PRESERVATION_FILE)
"""Files of a run directory that a study keeps."""
STUDY_LOCK = ".lock"
STUDY_ENTRIES = (STUDY_LOCK, TRIALS, "runs", SPEED_FILE)
"""What a study directory may hold without a plan, which is then written anew."""
REMEDY = "restore them, choose another --ablation_dir, or remove the folder"


@dataclass(frozen=True, kw_only=True)
class StudyPaths:
    """Where the trials of a study go, and with how many threads.

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
        return run_path(self.runs_dir, trial.variant.name, trial.fold, trial.seed)

    def log(self, trial: Trial) -> Path:
        """Returns the file of what a trial prints."""
        return sibling(self.run_dir(trial), "log")


def sibling(run_dir: Path, suffix: str) -> Path:
    """Returns the path of a file beside a run directory."""
    return run_dir.with_name(f"{run_dir.name}.{suffix}")


def check_study_dir(folder: Path) -> None:
    """Checks that a folder is absent or empty, or holds a study; writes nothing.

    Raises:
        RunError: It has no plan of a study, and files that are not from the beginning of a study.
    """
    check_folder(folder)
    if not folder.is_dir() or any((folder / name).is_file() for name in (STUDY_FILE, OLD_STUDY_FILE)):
        return
    names = {path.name for path in folder.iterdir() if not is_partial(path)}
    if other := sorted(names.difference(STUDY_ENTRIES)):
        rule = f"must be absent, empty, or the directory of a study with its {STUDY_FILE}"
        raise RunError(Problem(quoted(str(folder)), "folder", rule, shown(other[0]), "choose another --ablation_dir"))


# What a trial is made from


def fingerprint(config: ExperimentConfig) -> RunRecord:
    """Returns what a trial is made from; equal records give equal weights. Files of cases are read once per process.

    Raises:
        DataError: The data set cannot be read.
        RunError: The data set has no such fold, or the initial weights cannot be read.
    """
    return RunRecord(
        config_digest=decisive_digest(config),
        data_digest=data_digest(config),
        training_version=TRAINING_VERSION,
        resampling_version=RESAMPLING_VERSION,
        measures_version=MEASURES_VERSION,
    )


def decisive_digest(config: ExperimentConfig) -> str:
    """Returns the digest of a configuration without the folder of the data, cache, workers, progress and name.

    Raises:
        RunError: The initial weights cannot be read.
    """
    content = asdict(decisive(config))
    del content["training"]["runs_dir"]  # decides nothing, and older trials have it not
    content["network"]["name"] = "unet"  # a field of older configurations, kept so that older trials still count
    return content_digest(content)


def decisive(config: ExperimentConfig) -> ExperimentConfig:
    """Returns a configuration without what changes neither weights nor predictions of a trial, such as its name.

    Folds are left to the digest of the data. Initial weights count by content, wherever they lie.

    Raises:
        RunError: The initial weights cannot be read.
    """
    kept, weights = comparable(config), config.training.init_from
    if weights is not None:
        from seg.runs import weights_digest

        weights = weights_digest(Path(weights))
    training = replace(kept.training, init_from=weights)
    return replace(kept, name="", data=replace(kept.data, splits=None), training=training)


def data_digest(config: ExperimentConfig) -> str:
    """Returns the digest of the cases that a fold trains and validates on.

    Raises:
        DataError: The data set cannot be read.
        RunError: The data set has no such fold.
    """
    data = config.data
    splits = _splits(data)
    assert config.fold is not None  # each trial has its fold
    if config.fold >= len(splits):
        rule = f"must have the folds of the study; there are 0 ... {len(splits) - 1}"
        raise RunError(Problem(str(data.root), "range", rule, str(config.fold), "choose among these"))
    return content_digest(_files(data.root, data.layout, data.patient_pattern) | splits[config.fold])


def case_digests(config: ExperimentConfig) -> Mapping[str, str]:
    """Returns the digest of each case's files, by the name of the case.

    Raises:
        DataError: The data set cannot be read.
    """
    return dict(_files(config.data.root, config.data.layout, config.data.patient_pattern)["cases"])


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
        # Only where values are no indices, so that trials of other data keep their digest.
        **({} if dataset.classes is None else {"label_values": dataset.classes.groups}),
    }


@lru_cache(maxsize=64)
def _splits(data: DataConfig) -> list[dict[str, Any]]:
    from seg.workflows.inputs import read_splits

    splits = read_splits(ExperimentConfig(data=data), [])
    return [{"train": split.train, "validation": split.validation} for split in splits]


# Whether a trial is finished


def why_unfinished(stored: StoredTrial | None, config: ExperimentConfig) -> list[str]:
    """Says why stored results do not make a trial finished; says nothing where the trial is finished.

    Returns:
        Some of ``absent``, ``failed``, ``version``, ``data``, and the dotted paths at which the configuration differs.
    """
    if stored is None:
        return ["absent"]
    record = stored.record
    if record.status != "finished":
        return ["failed"]
    found = []
    if record.config_digest != decisive_digest(config):
        found += _changed_fields(stored.config, config)
    if record.data_digest != data_digest(config):
        found.append("data")
    if not same_version(record, config):
        found.append("version")
    return found


def same_version(made: RunRecord, config: ExperimentConfig) -> bool:
    """Tells whether results come from code that gives the same results as this code."""
    resampled = config.data.spacing_mm is not None
    return made.training_version == TRAINING_VERSION and (
        not resampled or made.resampling_version == RESAMPLING_VERSION
    )


def measured_otherwise(stored: StoredTrial | None) -> bool:
    """Tells whether another version of the code measured generalisation and preservation of a finished trial."""
    return stored is not None and stored.record.measures_version != MEASURES_VERSION


def _changed_fields(recorded: Mapping[str, Any], config: ExperimentConfig) -> list[str]:
    """Compares field by field: fields that a later version added have their defaults in older results."""
    content = deepcopy(dict(recorded))
    drop_removed_fields(ExperimentConfig, content)  # in silence: a record has nothing that a user should change
    found = differing_fields(load_config([], content), config)
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


def trials_left(trials: Sequence[Trial], paths: StudyPaths, stored: Mapping[str, StoredTrial]) -> tuple[Trial, ...]:
    """Finds the trials with something left to do, and warns of those that are trained or measured anew.

    Raises:
        RunError: Results or run directories have another configuration or other data. Names the first, and how many
            more there are.
    """
    left: list[Trial] = []
    problems: list[Problem] = []
    older: list[str] = []
    measured: dict[bool, list[str]] = {True: [], False: []}
    for trial in trials:
        known = stored.get(trial.id)
        reasons = why_unfinished(known, trial.config)
        run_is_there = (paths.run_dir(trial) / WEIGHTS_FILE).is_file()
        if not reasons and measured_otherwise(known):
            measured[run_is_there].append(trial.id)
        if reasons or (measured_otherwise(known) and run_is_there):
            left.append(trial)
        if known is None or reasons == ["failed"]:
            problems += run_dir_problems(trial.config, paths.run_dir(trial))
        elif reasons == ["version"]:
            older.append(trial.id)
        elif reasons:
            rule = "must have the configuration and data that its results were made from"
            path = f"{known.path}" if known.path.is_dir() else f"{known.path} ({trial.id})"
            problems.append(Problem(path, "config", rule, f"other {', '.join(reasons)}", REMEDY))
    if problems:
        more = f"And {counted(len(problems) - 1, 'more trial')} cannot go on from what is there."
        raise RunError([problems[0], Problem("", "config", more)] if len(problems) > 1 else problems)
    if older:
        LOG.warning("made by another version of the training code, trained anew: %s", ", ".join(sorted(older)))
    for run_is_there, names in measured.items():
        if names:
            LOG.warning(
                "generalisation and preservation were measured by another version of the code, %s: %s",
                "measured anew" if run_is_there else "and stay, as the runs are gone",
                ", ".join(sorted(names)),
            )
    return tuple(left)


# Running a trial


def run_trial(trial: Trial, paths: StudyPaths, *, attempt: int = 1) -> Path:
    """Trains and scores a trial, measures generalisation and preservation, and stores the results.

    A finished trial is not repeated, a killed trial goes on from its checkpoint, and a run directory that was made by
    hand from the same configuration and data is used. The trial prints to ``RUN.log``.

    Args:
        trial: The trial.
        paths: Where it goes.
        attempt: Number of this attempt, for the record.

    Returns:
        The run directory.

    Raises:
        SegError: The run directory has another configuration or other data, the data cannot be read, or files cannot
            be written.
    """
    run_dir = paths.run_dir(trial)
    with locked(sibling(run_dir, "lock")), redirect_output(paths.log(trial)):
        set_threads(paths.threads)
        stored = read_trial(paths.study_dir, trial.id)
        if not why_unfinished(stored, trial.config) and not measured_otherwise(stored):
            return run_dir  # done by another process, for which this process has waited
        record = _start(trial.config, run_dir)
        record = _train(trial.config, run_dir, record, paths.runs_dir / CACHE)
        record = _measure(trial.config, run_dir, record)
        _store_finished(paths.study_dir, trial, _trial_record(trial, record, attempt), run_dir)
        shutil.rmtree(sibling(run_dir, FORMER), ignore_errors=True)
        sibling(run_dir, FORMER_RECORD).unlink(missing_ok=True)
    return run_dir


def put_back(trial: Trial, paths: StudyPaths) -> None:
    """Puts a run back that another version of the code had put aside, where it counts again.

    Raises:
        RunError: What is noted of it is damaged, or it cannot be moved.
    """
    run_dir = paths.run_dir(trial)
    if sibling(run_dir, FORMER_RECORD).is_file():
        with locked(sibling(run_dir, "lock")):
            _put_back(run_dir, trial.config)


def store_failure(trial: Trial, paths: StudyPaths, *, attempts: int, traceback: str) -> str:
    """Stores that a trial failed; results of an older version stay, and a warning says so.

    Returns:
        The error: the last line of the traceback.
    """
    error = last_line(traceback)
    record = _trial_record(trial, fingerprint(trial.config), attempts)
    record = record.model_copy(update={"status": "failed", "error": error})
    before = read_trial(paths.study_dir, trial.id)
    if before is not None and before.record.status == "finished":
        LOG.warning("%s: failed when it was trained anew; its results of an older version stay", trial.id)
        return error
    with _replaced(paths.study_dir / TRIALS / trial.id) as folder:
        write_text(folder / CONFIG_FILE, dump_config(without_folders(trial.config)))
        write_text(folder / FAILURE_FILE, traceback)
        write_json(folder / TRIAL_FILE, record.content())
    return error


def _store_finished(study_dir: Path, trial: Trial, record: TrialRecord, run_dir: Path) -> None:
    """Copies the light files of a finished run and adds the record; they appear together or not at all."""
    remedy = f"remove {run_dir} to run the trial again"
    with _replaced(study_dir / TRIALS / trial.id) as folder:
        write_text(folder / CONFIG_FILE, dump_config(without_folders(load_config([run_dir / CONFIG_FILE]))))
        for name in COPIED:
            write_bytes(folder / name, read_bytes(run_dir / name, remedy=remedy))
        write_json(folder / TRIAL_FILE, record.content())


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


def _trial_record(trial: Trial, record: RunRecord, attempts: int) -> TrialRecord:
    own = {"variant": trial.variant.name, "fold": trial.fold, "seed": trial.seed}
    return TrialRecord.model_validate({**own, **record.model_dump(), "status": "finished", "attempts": attempts})


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


def _train(config: ExperimentConfig, run_dir: Path, record: RunRecord, cache_dir: Path) -> RunRecord:
    """Trains and scores a run where that is not done, and notes what it took."""
    before = max((row["seconds"] for row in read_history(run_dir) or ()), default=0.0)
    if (run_dir / EVALUATION_FILE).exists():
        return record if record.seconds is not None else _noted(run_dir, record, seconds=before)
    import torch

    from seg.hardware import PeakMemory
    from seg.workflows.train import train

    if (path := run_dir / CONFIG_FILE).is_file():
        config = replace(config, name=load_config([path]).name)  # the name that the run began with
    peak, start = PeakMemory(), time.perf_counter()
    train(config, run_dir=run_dir, folds=[config.fold], resume=True, cache_dir=cache_dir)
    seconds = before + time.perf_counter() - start
    return _noted(run_dir, record, seconds=seconds, threads=torch.get_num_threads(), peak_memory_mib=peak.mib())


def _measure(config: ExperimentConfig, run_dir: Path, record: RunRecord) -> RunRecord:
    """Measures generalisation and preservation where this version has not done so, and notes what it took."""
    from seg.ablation.generalisation import measure_generalisation
    from seg.ablation.preservation.run import measure_preservation

    anew = record.measures_version != MEASURES_VERSION
    missing = [name for name in (GENERALISATION_FILE, PRESERVATION_FILE) if anew or not (run_dir / name).is_file()]
    if not missing:
        return record
    start = time.perf_counter()
    dataset, split = read_fold(config, run_dir)
    if GENERALISATION_FILE in missing:
        measure_generalisation(run_dir, dataset, split)
    if PRESERVATION_FILE in missing:
        measure_preservation(run_dir, dataset, split.validation)
    seconds = time.perf_counter() - start
    return _noted(run_dir, record, measuring_seconds=seconds, measures_version=MEASURES_VERSION)


def read_fold(config: ExperimentConfig, run_dir: Path) -> tuple[Dataset, Split]:
    """Reads the cases that a run was made from; the run has checked their files."""
    from seg.workflows.inputs import read_splits

    dataset = read_configured(config.data)
    origin = recorded_origin(run_dir)
    left_out = [case.id for case in dataset.cases if case.id not in origin.data]
    cases = tuple(case for case in dataset.cases if case.id in origin.data)
    assert config.fold is not None
    # Folds may have been drawn anew, around what the initial weights saw.
    return replace(dataset, cases=cases), origin.split or read_splits(config, left_out)[config.fold]


def set_threads(count: int) -> None:
    """Sets the threads of the numerical library; 0 leaves its own choice."""
    if count > 0:
        import torch

        torch.set_num_threads(count)


class _LogHandler(logging.StreamHandler[TextIO]):
    """Writes to the log of a trial; on a full disk it keeps silent, as the trial fails where it writes its results."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Prints the fault of a handler, but for want of room."""
        if not (isinstance(error := sys.exc_info()[1], OSError) and error.errno in NO_ROOM):
            super().handleError(record)


@contextmanager
def redirect_output(path: Path) -> Iterator[None]:
    """Sends everything that a block prints or logs to the end of a file."""
    logger = logging.getLogger("seg")
    handlers, level = logger.handlers, logger.level
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        handler = _LogHandler(file)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        try:
            yield
        finally:
            logger.handlers = handlers
            logger.setLevel(level)


# Run directories that exist


def _start(config: ExperimentConfig, run_dir: Path) -> RunRecord:
    """Decides whether a run directory can be used, and notes what the run is made from before it begins.

    A run of another version is put aside until the new run is done.

    Raises:
        RunError: The run directory has another configuration or other data.
    """
    own = fingerprint(config)
    _put_back(run_dir, config)
    if not (run_dir / CONFIG_FILE).exists():
        return _noted(run_dir, own)
    path = sibling(run_dir, "json")
    if path.is_file():
        record = read_json(path, RunRecord, newest=VERSION, remedy="remove it to use the run directory as it is")
    else:
        LOG.warning("%s: was made by hand and is used as it is; which code made it is not known", run_dir)
        record = own
    if same_version(record, config):
        if problems := run_dir_problems(config, run_dir):
            raise RunError(problems)
        return record
    LOG.warning("%s: made by another version of the training code; trained anew", run_dir)
    former = sibling(run_dir, FORMER)
    try:
        if former.exists():  # it was never replaced, and stays
            shutil.rmtree(run_dir)
        else:
            write_json(sibling(run_dir, FORMER_RECORD), record.content())
            os.rename(run_dir, former)
    except OSError as error:
        raise unwritable(run_dir, error) from error
    return _noted(run_dir, own)


def _put_back(run_dir: Path, config: ExperimentConfig) -> None:
    former, path = sibling(run_dir, FORMER), sibling(run_dir, FORMER_RECORD)
    if not path.is_file():
        return
    if not same_version(read_json(path, RunRecord, newest=VERSION, remedy=f"remove it and {former}"), config):
        return
    LOG.warning("%s: was put aside by another version of the training code; put back", run_dir)
    try:
        if former.is_dir():
            if run_dir.exists():
                shutil.rmtree(run_dir)
            os.rename(former, run_dir)
        os.replace(path, sibling(run_dir, "json"))  # last: until then the next start goes on here
    except OSError as error:
        raise unwritable(run_dir, error) from error


def _noted(run_dir: Path, record: RunRecord, **values: float | None) -> RunRecord:
    """Writes a run's record beside its directory, with other values; returns the new record."""
    record = record.model_copy(update=values)
    write_json(sibling(run_dir, "json"), record.content())
    return record


def run_dir_problems(config: ExperimentConfig, run_dir: Path) -> list[Problem]:
    """Lists why a run directory does not hold the trial, whatever the experiment is called there."""
    if not (run_dir / CONFIG_FILE).is_file():
        try:
            check_free(run_dir, resume=True)
        except RunError as error:
            return [replace(problem, remedy=REMEDY) for problem in error.problems]
        return []
    scored = (run_dir / EVALUATION_FILE).exists()
    if changed := differing_fields(load_config([run_dir / CONFIG_FILE]), config):
        rule = "must have the configuration that the run began with"
        return [Problem(str(run_dir), "config", rule, f"other {', '.join(changed)}", REMEDY)]
    needed = (ENVIRONMENT_FILE, *((WEIGHTS_FILE, MODEL_FILE, CASES_FILE, METRICS_FILE) if scored else ()))
    if missing := [name for name in needed if not (run_dir / name).is_file()]:
        rule = f"must have the files of a run that {'is scored' if scored else 'has begun'}"
        remedy = "restore them, or remove the folder to train the trial again"
        return [Problem(str(run_dir), "missing", rule, f"no {', '.join(missing)}", remedy)]
    current = case_digests(config)
    if other := sorted(name for name, digest in recorded_origin(run_dir).data.items() if current.get(name) != digest):
        rule = "must have the data that the run began with"
        return [Problem(str(run_dir), "data", rule, f"other files of cases {some(other)}", REMEDY)]
    return []


def recorded_origin(run_dir: Path) -> Origin:
    """Returns what a run was made from; faulty cases that were left out are not among its data.

    Raises:
        RunError: The run does not say.
    """
    if (origin := read_origin(run_dir)) is None:
        remedy = f"remove {run_dir} to run the trial again"
        raise RunError(Problem(str(run_dir / ENVIRONMENT_FILE), "missing", "must exist", remedy=remedy))
    return origin
