"""A whole study: its trials, then their speed, then the report; what is done is not done again."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from seg.ablation.begun import check_begun
from seg.ablation.fingerprint import UNKNOWN, Fingerprint, fingerprint
from seg.ablation.launch import Task, build_backend, run_tasks, threads_per_trial
from seg.ablation.launch.table import Result, Table
from seg.ablation.records import read_record, records_dir
from seg.ablation.study_file import write_study_file
from seg.ablation.trial import Places, record_failure, run_trial
from seg.errors import RunError
from seg.evaluation.scores import read_evaluation
from seg.locks import locked
from seg.runs import CONFIG_FILE

if TYPE_CHECKING:
    from seg.ablation.grid import Study, Trial

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
    launch = study.config.launch
    places = Places(
        study_dir=study_dir,
        runs_dir=runs_dir or study_dir / "runs",
        reuse=study.config.reuse,
        threads=launch.cpus_per_trial if launch.backend == "process" else threads_per_trial(launch),
    )
    with locked(study_dir / ".lock", refusal=f"{study_dir}: only one process may run a study; wait for the other one."):
        fingerprints = {trial.id: fingerprint(trial.config) for trial in study.trials}
        left = trials_left(study.trials, places, fingerprints)
        write_study_file(study, study_dir)
        failed = _run_trials(study, left, places, fingerprints) if left and not speed_only else {}
        _conclude(study, places, speed_only=speed_only)
    for trial_id, (error, log) in failed.items():
        print(f"failed: {trial_id}: {error} (log: {log})", file=sys.stderr)
    return 1 if failed else 0


def _conclude(study: Study, places: Places, *, speed_only: bool) -> None:
    """Measures speed where it is not yet, and writes the report where trials are finished."""
    finished = any(places.study_dir.glob("trials/*/cases.csv"))
    if finished or speed_only:
        from seg.ablation.speed import measure_study

        measure_study(study, places.study_dir, places.runs_dir)
    if not finished:
        LOG.warning("no trial is finished: there is nothing to report%s", " but speed.json" if speed_only else "")
        return
    from seg.ablation.report import write_report

    print(f"report: {write_report(places.study_dir, runs_dir=places.runs_dir)}")


def trials_left(trials: Sequence[Trial], places: Places, fingerprints: Mapping[str, Fingerprint]) -> tuple[Trial, ...]:
    """Finds the trials that are to be run, and announces what is taken over or made anew though it is there.

    Args:
        trials: All trials.
        places: Where they go.
        fingerprints: What each would be made from now, by id.

    Raises:
        RunError: Records or run directories are those of another configuration or other data; all are named.
    """
    left: list[Trial] = []
    problems: list[str] = []
    made_by_other: list[str] = []
    made_by_hand: list[str] = []
    for trial in trials:
        against = places.against(trial, fingerprints[trial.id])
        if places.accepts(against):
            record = read_record(records_dir(places.study_dir, trial.id))
            if record is not None and record.fingerprint.code == UNKNOWN:
                made_by_hand.append(trial.id)
        else:
            left.append(trial)
        if against == ["code"]:
            made_by_other.append(trial.id)
        elif against in (["absent"], ["failed"]):
            problems += _run_problems(trial, places)
        elif against:
            problems.append(
                f"{records_dir(places.study_dir, trial.id)}: a trial must have the configuration and data that its "
                f"records were made from, got other {', '.join(against)}; restore them, choose another "
                "--ablation_dir, or remove the folder."
            )
    if problems:
        raise RunError(problems)
    if made_by_other:
        what = "taken over" if places.reuse == "any_code" else "made anew"
        LOG.warning(
            "made by other training code, %s (reuse: %s): %s", what, places.reuse, ", ".join(sorted(made_by_other))
        )
    if made_by_hand:
        LOG.warning("made by hand, by code that is not known: %s", ", ".join(sorted(made_by_hand)))
    return tuple(left)


def _run_problems(trial: Trial, places: Places) -> Sequence[str]:
    run_dir = places.run_dir(trial)
    if not (run_dir / CONFIG_FILE).is_file():
        return ()
    try:
        check_begun(trial.config, run_dir)
    except RunError as error:
        return error.sentences
    return ()


def _run_trials(
    study: Study, left: Sequence[Trial], places: Places, fingerprints: Mapping[str, Fingerprint]
) -> dict[str, tuple[str, Path]]:
    """Runs trials; returns errors and logs of those that failed, by id."""
    by_id = {trial.id: trial for trial in left}
    backend = build_backend(study.config.launch, places.runs_dir)
    table = Table({trial.id: trial.variant.name for trial in study.trials}, backend.parallel, sys.stdout)
    table.done_before({t.id: _result(t, places) for t in study.trials if t.id not in by_id})

    def make(trial_id: str, attempt: int) -> Task:
        return Task(id=trial_id, call=partial(run_trial, by_id[trial_id], places, attempt=attempt))

    failed = {}
    for event in run_tasks(backend, list(by_id), make, retries=study.config.launch.retries):
        trial = by_id[event.id]
        if event.state == "failed":
            own = fingerprints[event.id]
            error = record_failure(trial, places, own, attempts=event.attempt, traceback=event.error or "")
            failed[event.id] = error, places.log(trial)
        table.update(event, _result(trial, places) if event.state == "finished" else None)
    return failed


def _result(trial: Trial, places: Places) -> Result:
    folder = records_dir(places.study_dir, trial.id)
    record = read_record(folder)
    return Result(
        variant=trial.variant.name,
        mean_dice=read_evaluation(folder).mean_dice,
        seconds=None if record is None else record.total_seconds,
    )
