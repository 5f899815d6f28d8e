"""Records of a trial: what is kept of it beside its weights, and whether it still stands for the trial."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from seg.ablation.fingerprint import UNKNOWN, Fingerprint, of_trial
from seg.config import ExperimentConfig, dump_config, load_config
from seg.config.loading import differences
from seg.errors import RunError
from seg.evaluation.scores import CASES_FILE, EVALUATION_FILE
from seg.files import beside, read_versioned, reading, unwritable, write_bytes, write_json, write_text
from seg.runs import CONFIG_FILE, ENVIRONMENT_FILE, GENERALISATION_FILE, METRICS_FILE, PRESERVATION_FILE

SCHEMA_VERSION = 1
TRIALS = "trials"
TRIAL_FILE = "trial.json"
FAILURE_FILE = "failure.txt"
COPIED = (ENVIRONMENT_FILE, CASES_FILE, EVALUATION_FILE, METRICS_FILE, GENERALISATION_FILE, PRESERVATION_FILE)
"""Files of a run directory that its records hold as they are."""


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """The content of ``trial.json``.

    Attributes:
        id: The trial.
        variant: Name of its variant.
        fold: Its fold.
        seed: Its seed.
        changes: Values by dotted path in which the variant differs from the baseline.
        status: Whether it came to its end.
        attempts: Attempts that this took, >= 1.
        error: What the last attempt ended with, in one line; None for a finished one.
        seconds: Wall time of training and evaluation, over all attempts; training alone for a run made by hand; None
            for a failed one.
        fingerprint: What it was made from.
        threads: Threads of the numerical library.
        peak_memory_mib: Peak memory of training and evaluation in MiB, on the GPU where one computed, else of the
            process; None where it is not known.
        measuring_seconds: Wall time of measuring generalisation and preservation; None where it is not known.
    """

    id: str
    variant: str
    fold: int
    seed: int
    changes: Mapping[str, Any]
    status: Literal["finished", "failed"]
    attempts: int
    error: str | None
    seconds: float | None
    fingerprint: Fingerprint
    threads: int | None
    peak_memory_mib: float | None
    measuring_seconds: float | None = None

    @property
    def total_seconds(self) -> float | None:
        """Wall time of the trial, as far as it is known."""
        return None if self.seconds is None else self.seconds + (self.measuring_seconds or 0.0)


def records_dir(study_dir: Path, trial_id: str) -> Path:
    """Returns the folder of a trial's records."""
    return study_dir / TRIALS / trial_id


def read_record(folder: Path) -> TrialRecord | None:
    """Reads ``trial.json``; None where there is none.

    Raises:
        RunError: The file is damaged or of a newer version.
    """
    path = folder / TRIAL_FILE
    if not path.is_file():
        return None
    remedy = f"restore it, or remove {folder} to run the trial again"
    with reading(path, what="the whole record of a trial", remedy=remedy):
        content = read_versioned(path, SCHEMA_VERSION)
        return TrialRecord(**content | {"fingerprint": Fingerprint(**content["fingerprint"])})


def write_finished(study_dir: Path, record: TrialRecord, run_dir: Path) -> Path:
    """Copies the light files of a finished run and adds its record; they appear together or not at all.

    Folders of this machine are left out of the configuration, so that records can be published.

    Returns:
        The folder.

    Raises:
        RunError: A file of the run is absent, or the study cannot be written.
    """
    folder = records_dir(study_dir, record.id)
    absent = [name for name in (CONFIG_FILE, *COPIED) if not (run_dir / name).is_file()]
    if absent:
        raise RunError(f"{run_dir}: must be a whole run, got no {', '.join(absent)}; remove it to run it again.")
    with _replaced(folder) as new:
        write_text(new / CONFIG_FILE, dump_config(_published(load_config([run_dir / CONFIG_FILE]))))
        for name in COPIED:
            write_bytes(new / name, (run_dir / name).read_bytes())
        _write_record(new, record)
    return folder


def write_failed(study_dir: Path, record: TrialRecord, config: ExperimentConfig, traceback: str) -> Path:
    """Records a trial that was given up: what it was, and what it ended with.

    Raises:
        RunError: The study cannot be written.
    """
    folder = records_dir(study_dir, record.id)
    with _replaced(folder) as new:
        write_text(new / CONFIG_FILE, dump_config(_published(config)))
        write_text(new / FAILURE_FILE, traceback)
        _write_record(new, record)
    return folder


def stands(record: TrialRecord | None, folder: Path, config: ExperimentConfig, own: Fingerprint) -> list[str]:
    """Says what speaks against taking a record for a trial; nothing where it is the trial's.

    Args:
        record: The record, or None.
        folder: Its folder.
        config: The trial's configuration.
        own: The trial's fingerprint.

    Returns:
        Some of ``absent``, ``failed``, ``code``, ``data``, and the dotted paths at which the configuration differs.
    """
    if record is None:
        return ["absent"]
    if record.status != "finished":
        return ["failed"]
    found = []
    if record.fingerprint.config != own.config:
        found += _changed(folder / CONFIG_FILE, config)
    if record.fingerprint.data != own.data:
        found.append("data")
    if record.fingerprint.code not in (own.code, UNKNOWN):
        found.append("code")
    return found


def differing(recorded: ExperimentConfig, config: ExperimentConfig) -> list[str]:
    """Lists the dotted paths at which two configurations differ in what decides weights or predictions."""
    found = differences(
        *(of_trial(replace(c, training=replace(c.training, init_from=None))) for c in (recorded, config))
    )
    # Initial weights go by content, which a published configuration cannot say any more.
    if (recorded.training.init_from is None) != (config.training.init_from is None):
        found.append("training.init_from")
    return found


def _changed(path: Path, config: ExperimentConfig) -> list[str]:
    """Compares field by field: fields that a later version added have their defaults in an older record."""
    found = differing(load_config([path]), config)
    return found or ([] if config.training.init_from is None else ["training.init_from"])


def _published(config: ExperimentConfig) -> ExperimentConfig:
    source = config.training.init_from
    training = replace(config.training, init_from=None if source is None else Path(source).name)
    splits = config.data.splits
    data = replace(
        config.data,
        root=Path(config.data.root).name,
        cache_dir=None,
        splits=None if splits is None else Path(splits).name,
    )
    return replace(config, data=data, training=training)


def _write_record(folder: Path, record: TrialRecord) -> None:
    write_json(folder / TRIAL_FILE, {"schema_version": SCHEMA_VERSION, **asdict(record)})


@contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """Gives a new folder that takes the place of another at the end, or is removed on a fault."""
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
