"""A whole study: its trials, then their speed, then the report; what is done is not done again."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from seg.ablation.launch import build_backend, is_in_process, run_tasks, trial_threads
from seg.ablation.launch.progress import ProgressTable
from seg.ablation.plan import write_study_file
from seg.ablation.preview import expected_times
from seg.ablation.store import StoredTrial, read_trial, read_trials
from seg.ablation.trials import STUDY_LOCK, StudyPaths, check_study_dir, put_back, run_trial, store_failure, trials_left
from seg.errors import SegError
from seg.files import locked

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
        The exit code: 0, or 1 where trials failed or left out faulty cases; both are named on stderr.

    Raises:
        SegError: The directory holds something else than a study; records or run directories there are those of another
            configuration or other data, all of them named; another process works on the study; the backend is not
            there; or files cannot be read or written.
    """
    paths = StudyPaths(
        study_dir=study_dir,
        runs_dir=runs_dir or study_dir / "runs",
        threads=trial_threads(study.config.launch),
    )
    check_study_dir(study_dir)
    with locked(study_dir / STUDY_LOCK, wait=False):
        stored = read_trials(study_dir)
        left = trials_left(study.trials, paths, stored)
        for trial in study.trials:
            if trial not in left:
                put_back(trial, paths)
        plan = write_study_file(study, study_dir, stored)
        for day, changes in plan.amended:
            LOG.warning("changed after the first result, on %s: %s", day, "; ".join(changes))
        failed: dict[str, tuple[str, Path]] = {}
        if left and not speed_only:
            failed = _run_trials(study, left, paths, stored)
            plan = write_study_file(study, study_dir, read_trials(study_dir))
        _conclude(study, paths, speed_only=speed_only)
    for trial_id, (error, log) in failed.items():
        print(f"failed: {trial_id}: {error} (log: {log})", file=sys.stderr)
    if left_out := plan.data["left_out"]:
        print(f"left out as faulty, also from the report: {', '.join(left_out)}", file=sys.stderr)
    return 1 if failed or left_out else 0


def _conclude(study: Study, paths: StudyPaths, *, speed_only: bool) -> None:
    """Measures speed where it is not yet, and writes the report where trials are finished."""
    finished = any(trial.record.status == "finished" for trial in read_trials(paths.study_dir).values())
    if speed_only or (finished and study.config.speed.enabled):
        from seg.ablation.speed import measure_study

        measure_study(study, paths.study_dir, paths.runs_dir)
    if not finished:
        LOG.warning("no trial is finished: there is nothing to report%s", " but speed.json" if speed_only else "")
        return
    from seg.ablation.report import write_report

    print(f"report: {write_report(paths.study_dir, runs_dir=paths.runs_dir)}")


def _run_trials(
    study: Study, left: Sequence[Trial], paths: StudyPaths, stored: dict[str, StoredTrial]
) -> dict[str, tuple[str, Path]]:
    """Runs trials; returns errors and logs of those that failed, by id."""
    by_id = {trial.id: trial for trial in left}
    backend = build_backend(study.config.launch, paths.runs_dir)
    variants = {trial.id: trial.variant.name for trial in study.trials}
    expected, speed = _expected(study, stored)
    table = ProgressTable(variants, backend.parallel, sys.stdout, expected, after=speed)
    table.done_before({name: stored[name] for name in variants if name not in by_id})

    def make(trial_id: str, attempt: int) -> Callable[[], object]:
        return partial(run_trial, by_id[trial_id], paths, attempt=attempt)

    failed = {}
    for event in run_tasks(backend, list(by_id), make, retries=study.config.launch.retries):
        trial = by_id[event.id]
        if event.state == "failed":
            error = store_failure(trial, paths, attempts=event.attempt, traceback=event.error or "")
            failed[event.id] = error, paths.log(trial)
        known = read_trial(paths.study_dir, event.id) if event.state == "finished" else None
        table.update(event, known)
    return failed


def _expected(study: Study, stored: dict[str, StoredTrial]) -> tuple[dict[str, float], float]:
    """Predicts the seconds of each trial and of measuring speed; nothing where trials run elsewhere."""
    if not is_in_process(study.config.launch):
        return {}, 0.0
    try:
        expected, speed, _ = expected_times(study, stored)
    except SegError:  # a fault of the data is told by the trial that meets it
        return {}, 0.0
    return {name: seconds for name, (seconds, _) in expected.items()}, speed
