"""Run directories of trials that were begun: by an earlier start, by other code, or by hand."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from seg.ablation.fingerprint import UNKNOWN, Fingerprint, case_digests
from seg.ablation.records import differing
from seg.config import ExperimentConfig, load_config
from seg.errors import RunError
from seg.files import read_versioned, reading, unwritable, write_json
from seg.runs import CONFIG_FILE, ENVIRONMENT_FILE, ENVIRONMENT_VERSION

LOG = logging.getLogger(__name__)
SCHEMA_VERSION = 1
FORMER = "former"
"""Ending of a run directory that other code made, while it is made anew."""


@dataclass(frozen=True, kw_only=True)
class Begun:
    """What is noted beside a run directory, so that it outlives a kill.

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


def beside(run_dir: Path, suffix: str) -> Path:
    """Returns the path of a file beside a run directory, which itself holds what a run leaves there and no more."""
    return run_dir.with_name(f"{run_dir.name}.{suffix}")


def begin(config: ExperimentConfig, run_dir: Path, own: Fingerprint, *, any_code: bool) -> Begun:
    """Decides what a run directory is worth, and notes what the run is made from before it begins.

    Args:
        config: The trial's configuration.
        run_dir: Its run directory, which need not exist.
        own: What a new run would be made from.
        any_code: Whether a run that other code began is taken over; else it is put aside until a new one is done.

    Returns:
        What the run is made from.

    Raises:
        RunError: The run directory was made from another configuration or other data.
    """
    begun = read_begun(run_dir) if (run_dir / CONFIG_FILE).exists() else None
    if begun is not None and begun.fingerprint.code not in (own.code, UNKNOWN):
        if any_code:
            LOG.warning("%s: begun by other training code; taken over (reuse: any_code)", run_dir)
        else:
            LOG.warning("%s: begun by other training code; made anew (reuse: same_code)", run_dir)
            _put_aside(run_dir)
            begun = None
    if begun is None:
        return note(run_dir, Begun(fingerprint=own))
    check_begun(config, run_dir)
    return begun


def _put_aside(run_dir: Path) -> None:
    """Puts a run directory aside; one that was put there before was not yet done over, and stays."""
    former = beside(run_dir, FORMER)
    try:
        if former.exists():
            shutil.rmtree(run_dir)
        else:
            os.rename(run_dir, former)
    except OSError as error:
        raise unwritable(run_dir, error) from error


def remove_former(run_dir: Path) -> None:
    """Removes the run directory that was put aside, once the new one is done."""
    shutil.rmtree(beside(run_dir, FORMER), ignore_errors=True)


def read_begun(run_dir: Path) -> Begun:
    """Reads what a run directory that exists was made from, as far as that is known.

    Raises:
        RunError: The note is damaged or of a newer version.
    """
    path = beside(run_dir, "json")
    if not path.is_file():
        LOG.warning("%s: taken over as it is; which code made it is not known", run_dir)
        return Begun(fingerprint=Fingerprint(config=UNKNOWN, data=UNKNOWN, code=UNKNOWN))
    with reading(path, what="the whole note of a begun trial", remedy="remove it to take the run directory as it is"):
        content = read_versioned(path, SCHEMA_VERSION)
        return Begun(**content | {"fingerprint": Fingerprint(**content["fingerprint"])})


def note(run_dir: Path, begun: Begun) -> Begun:
    """Writes the note beside a run directory, and returns it."""
    write_json(beside(run_dir, "json"), {"schema_version": SCHEMA_VERSION, **asdict(begun)})
    return begun


def check_begun(config: ExperimentConfig, run_dir: Path) -> None:
    """Checks that a run directory that exists holds the trial, whatever the experiment is called there.

    Raises:
        RunError: It was made from another configuration or other data.
    """
    if changed := differing(load_config([run_dir / CONFIG_FILE]), config):
        raise RunError(
            f"{run_dir}: a trial must have the configuration that its run directory began with, got other values of "
            f"{', '.join(changed)}; restore them, choose another --ablation_dir, or remove the folder."
        )
    current = case_digests(config)
    other = sorted(name for name, digest in recorded_cases(run_dir).items() if current.get(name) != digest)
    if other:
        raise RunError(
            f"{run_dir}: a trial must have the data that its run directory began with, got other files of cases "
            f"{', '.join(other)}; restore them, choose another --ablation_dir, or remove the folder."
        )


def recorded_cases(run_dir: Path) -> dict[str, str]:
    """Returns the digests of the cases that a run was made from; cases that were left out as faulty are not in it.

    Raises:
        RunError: The run does not say.
    """
    path = run_dir / ENVIRONMENT_FILE
    with reading(path, what="the whole record of a run", remedy=f"remove {run_dir} to run the trial again"):
        content = read_versioned(path, ENVIRONMENT_VERSION)
        return {str(name): str(digest) for name, digest in content["data"].items()}


def as_begun(config: ExperimentConfig, run_dir: Path) -> ExperimentConfig:
    """Returns a trial's configuration under the name that its run directory began with."""
    path = run_dir / CONFIG_FILE
    return replace(config, name=load_config([path]).name) if path.is_file() else config
