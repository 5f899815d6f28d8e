"""A whole study: its trials, then their speed, then the report; what is done is not done again."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from seg.ablation.launch import Task, build_backend, run_tasks, trial_threads
from seg.ablation.launch.progress import ProgressTable, Result
from seg.ablation.plan import write_study_file
from seg.ablation.store import StoredTrial, mean_dice, read_trial, read_trials
from seg.ablation.trials import (
    REMEDY,
    Fingerprint,
    Places,
    check_run_dir,
    fingerprint,
    run_trial,
    store_failure,
    why_unfinished,
)
from seg.errors import Problem, RunError
from seg.files import locked
from seg.runs import CONFIG_FILE

if TYPE_CHECKING:
    from seg.ablation.study import Study, Trial

LOG = logging.getLogger(__name__)


def run_study(study: Study, study_dir: Path, *, runs_dir: Path | None = None, speed_only: bool = False) -> int:
    """Runs what is left of a study and writes its report.

    The study may be killed at any moment and started again: finished trials are kept, those in flight go on from their
    checkpoints, failed ones are tried again.

    Args:
        study: The study.
        study_dir: Study directory, made where absent.
        runs_dir: Folder of the run directories; None is ``runs`` in the study directory.
        speed_only: Whether no trial is run and speed is measured nevertheless.

    Returns:
        The exit code: 0, or 1 where trials failed; they are named on stderr.

    Raises:
        SegError: Records or run directories there are those of another configuration or other data, all of them
            named; another process works on the study; the backend is not there; or files cannot be read or written.
    """
    places = Places(
        study_dir=study_dir,
        runs_dir=runs_dir or study_dir / "runs",
        threads=trial_threads(study.config.launch),
    )
    with locked(study_dir / ".lock", refusal=f"{study_dir}: only one process may run a study; wait for the other one."):
        fingerprints = {trial.id: fingerprint(trial.config) for trial in study.trials}
        stored = read_trials(study_dir)
        left = trials_left(study.trials, places, fingerprints, stored)
        write_study_file(study, study_dir)
        failed = _run_trials(study, left, places, fingerprints, stored) if left and not speed_only else {}
        _conclude(study, places, speed_only=speed_only)
    for trial_id, (error, log) in failed.items():
        print(f"failed: {trial_id}: {error} (log: {log})", file=sys.stderr)
    return 1 if failed else 0


def _conclude(study: Study, places: Places, *, speed_only: bool) -> None:
    """Measures speed where it is not yet, and writes the report where trials are finished."""
    finished = any(trial.record.status == "finished" for trial in read_trials(places.study_dir).values())
    if finished or speed_only:
        from seg.ablation.speed import measure_study

        measure_study(study, places.study_dir, places.runs_dir)
    if not finished:
        LOG.warning("no trial is finished: there is nothing to report%s", " but speed.json" if speed_only else "")
        return
    from seg.ablation.report import write_report

    print(f"report: {write_report(places.study_dir, runs_dir=places.runs_dir)}")


def trials_left(
    trials: Sequence[Trial],
    places: Places,
    fingerprints: Mapping[str, Fingerprint],
    stored: Mapping[str, StoredTrial],
) -> tuple[Trial, ...]:
    """Finds the trials that are not finished, and warns of those that are trained anew though they were.

    Args:
        trials: All trials.
        places: Where they go.
        fingerprints: What each would be made from now, by name.
        stored: What is stored of each trial, by name.

    Raises:
        RunError: Results or run directories have another configuration or other data; all are named.
    """
    left: list[Trial] = []
    problems: list[Problem] = []
    older: list[str] = []
    for trial in trials:
        known = stored.get(trial.id)
        reasons = why_unfinished(known, trial.config, fingerprints[trial.id])
        if reasons:
            left.append(trial)
        if known is None or reasons == ["failed"]:
            problems += _run_problems(trial, places)
        elif reasons == ["version"]:
            older.append(trial.id)
        elif reasons:
            rule = "must have the configuration and data that its results were made from"
            value = f"other {', '.join(reasons)}"
            path = f"{known.path}" if known.path.is_dir() else f"{known.path} ({trial.id})"
            problems.append(Problem(path, "config", rule, value, REMEDY))
    if problems:
        raise RunError(problems)
    if older:
        LOG.warning("made by another version of the training code, trained anew: %s", ", ".join(sorted(older)))
    return tuple(left)


def _run_problems(trial: Trial, places: Places) -> Sequence[Problem]:
    run_dir = places.run_dir(trial)
    if not (run_dir / CONFIG_FILE).is_file():
        return ()
    try:
        check_run_dir(trial.config, run_dir)
    except RunError as error:
        return error.problems
    return ()


def _run_trials(
    study: Study,
    left: Sequence[Trial],
    places: Places,
    fingerprints: Mapping[str, Fingerprint],
    stored: Mapping[str, StoredTrial],
) -> dict[str, tuple[str, Path]]:
    """Runs trials; returns errors and logs of those that failed, by id."""
    by_id = {trial.id: trial for trial in left}
    backend = build_backend(study.config.launch, places.runs_dir)
    table = ProgressTable({trial.id: trial.variant.name for trial in study.trials}, backend.parallel, sys.stdout)
    dice = mean_dice(places.study_dir)
    done = [trial for trial in study.trials if trial.id not in by_id]
    table.done_before({trial.id: _result(trial, stored[trial.id], dice.get(trial.id)) for trial in done})

    def make(trial_id: str, attempt: int) -> Task:
        return Task(id=trial_id, call=partial(run_trial, by_id[trial_id], places, attempt=attempt))

    failed = {}
    for event in run_tasks(backend, list(by_id), make, retries=study.config.launch.retries):
        trial = by_id[event.id]
        if event.state == "failed":
            own = fingerprints[event.id]
            error = store_failure(trial, places, own, attempts=event.attempt, traceback=event.error or "")
            failed[event.id] = error, places.log(trial)
        known = read_trial(places.study_dir, event.id) if event.state == "finished" else None
        dice = mean_dice(places.study_dir, event.id) if known else {}
        table.update(event, _result(trial, known, dice.get(event.id)) if known else None)
    return failed


def _result(trial: Trial, stored: StoredTrial, dice: float | None) -> Result:
    return Result(variant=trial.variant.name, mean_dice=dice, seconds=stored.record.total_seconds)
