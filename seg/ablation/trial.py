"""One trial from its configuration to its records: train, score, measure, each of which is done once."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from seg.ablation.begun import Begun, as_begun, begin, beside, note, recorded_cases, remove_former
from seg.ablation.fingerprint import Fingerprint, fingerprint
from seg.ablation.records import TrialRecord, read_record, records_dir, stands, write_failed, write_finished
from seg.ablation.resources import logged, set_threads, trained_seconds
from seg.config import ExperimentConfig
from seg.data.cases import Dataset
from seg.data.readers import read_configured
from seg.data.splits import Split
from seg.evaluation.scores import EVALUATION_FILE
from seg.locks import locked
from seg.peak_memory import PeakMemory
from seg.runs import GENERALISATION_FILE, PRESERVATION_FILE

if TYPE_CHECKING:
    from seg.ablation.grid import Trial

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where a study's trials go, and what counts as theirs.

    Attributes:
        study_dir: Study directory, for the records.
        runs_dir: Folder of the run directories.
        reuse: ``same_code`` makes anew what other code began, ``any_code`` takes it over.
        threads: Threads of the numerical library; 0 leaves its own choice.
    """

    study_dir: Path
    runs_dir: Path
    reuse: Literal["same_code", "any_code"] = "same_code"
    threads: int = 0

    def run_dir(self, trial: Trial) -> Path:
        """Returns the run directory of a trial."""
        return self.runs_dir / trial.variant.name / f"fold_{trial.fold}_seed_{trial.seed}"

    def log(self, trial: Trial) -> Path:
        """Returns the file of what a trial prints and announces."""
        return beside(self.run_dir(trial), "log")

    def against(self, trial: Trial, own: Fingerprint) -> list[str]:
        """Says what speaks against taking the records that are there for the trial; nothing where they stand.

        Other code is named whatever ``reuse`` is; see :func:`seg.ablation.records.stands`.
        """
        folder = records_dir(self.study_dir, trial.id)
        return stands(read_record(folder), folder, trial.config, own)

    def accepts(self, against: list[str]) -> bool:
        """Whether a trial counts as finished, with what speaks against its records."""
        return not against or (against == ["code"] and self.reuse == "any_code")


def run_trial(trial: Trial, places: Places, *, attempt: int = 1) -> Path:
    """Trains and scores a trial, measures generalisation and preservation, and writes its records.

    A finished trial is not repeated, a killed one goes on from its checkpoint, and a run directory that was made by
    hand from the same configuration and data is taken over. What the trial prints goes to ``RUN_DIR.log``.

    Args:
        trial: The trial.
        places: Where it goes.
        attempt: Number of this attempt, for the record.

    Returns:
        The run directory.

    Raises:
        SegError: The run directory is that of another configuration or other data, the data cannot be read, or files
            cannot be written.
    """
    run_dir = places.run_dir(trial)
    with locked(beside(run_dir, "lock")), logged(places.log(trial)):
        set_threads(places.threads)
        own = fingerprint(trial.config)
        if places.accepts(places.against(trial, own)):
            return run_dir  # done by another process, for which this one has waited
        begun = begin(trial.config, run_dir, own, any_code=places.reuse == "any_code")
        begun = _train(trial.config, run_dir, begun)
        begun = _measure(trial.config, run_dir, begun)
        known = replace(own, code=begun.fingerprint.code)
        write_finished(places.study_dir, _record(trial, begun, known, attempt), run_dir)
        remove_former(run_dir)
    return run_dir


def record_failure(trial: Trial, places: Places, own: Fingerprint, *, attempts: int, traceback: str) -> str:
    """Records a trial that is given up; a finished record of other code stays, and that is announced.

    Args:
        trial: The trial.
        places: Where it goes.
        own: Its fingerprint.
        attempts: Attempts made.
        traceback: What the last one ended with; its last line is the error.

    Returns:
        The error.
    """
    lines = traceback.strip().splitlines() or ["unknown error"]
    record = _record(trial, Begun(fingerprint=own), own, attempts)
    record = replace(record, status="failed", error=lines[-1])
    before = read_record(records_dir(places.study_dir, trial.id))
    if before is not None and before.status == "finished":
        LOG.warning("%s: failed when made anew; its finished record of other code stays", trial.id)
    else:
        write_failed(places.study_dir, record, trial.config, traceback)
    return lines[-1]


def _record(trial: Trial, begun: Begun, own: Fingerprint, attempts: int) -> TrialRecord:
    return TrialRecord(
        id=trial.id,
        variant=trial.variant.name,
        fold=trial.fold,
        seed=trial.seed,
        changes=dict(trial.variant.changes),
        status="finished",
        attempts=attempts,
        error=None,
        seconds=begun.seconds,
        fingerprint=own,
        threads=begun.threads,
        peak_memory_mib=begun.peak_memory_mib,
        measuring_seconds=begun.measuring_seconds,
    )


def _train(config: ExperimentConfig, run_dir: Path, begun: Begun) -> Begun:
    """Trains and scores what is not yet, and notes what it took."""
    before = trained_seconds(run_dir)
    if (run_dir / EVALUATION_FILE).exists():
        return begun if begun.seconds is not None else note(run_dir, replace(begun, seconds=before))
    import torch

    from seg.workflows.train import train

    peak, start = PeakMemory(), time.perf_counter()
    train(as_begun(config, run_dir), run_dir=run_dir, folds=[config.fold], resume=True)
    seconds = before + time.perf_counter() - start
    threads = torch.get_num_threads()
    return note(run_dir, replace(begun, seconds=seconds, threads=threads, peak_memory_mib=peak.mib()))


def _measure(config: ExperimentConfig, run_dir: Path, begun: Begun) -> Begun:
    """Measures generalisation and preservation where they are not yet, and notes what it took."""
    from seg.ablation.generalisation import measure_generalisation
    from seg.ablation.preservation import measure_preservation

    missing = [name for name in (GENERALISATION_FILE, PRESERVATION_FILE) if not (run_dir / name).is_file()]
    if not missing:
        return begun
    start = time.perf_counter()
    dataset, split = _read_fold(config, run_dir)
    if GENERALISATION_FILE in missing:
        measure_generalisation(run_dir, dataset, split)
    if PRESERVATION_FILE in missing:
        measure_preservation(run_dir, dataset, split.validation)
    return note(run_dir, replace(begun, measuring_seconds=time.perf_counter() - start))


def _read_fold(config: ExperimentConfig, run_dir: Path) -> tuple[Dataset, Split]:
    """Reads the cases that the run was made from; it has checked their files."""
    from seg.workflows.inputs import read_splits

    dataset = read_configured(config.data)
    kept = recorded_cases(run_dir)
    left_out = [case.id for case in dataset.cases if case.id not in kept]
    cases = tuple(case for case in dataset.cases if case.id in kept)
    return replace(dataset, cases=cases), read_splits(config, left_out)[config.fold]
