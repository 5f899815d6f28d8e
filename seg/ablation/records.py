"""Records of a trial as the report reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from seg.ablation.store import FAILURE_FILE, TRIAL_FILE, TRIALS
from seg.files import read_versioned, reading

__all__ = ["FAILURE_FILE", "Digests", "TrialRecord", "read_record", "records_dir"]


@dataclass(frozen=True, kw_only=True)
class Digests:
    """Digests of what a trial was made from."""

    config: str
    data: str
    code: str = "unknown"


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """The content of ``trial.json``."""

    variant: str
    fold: int
    seed: int
    status: Literal["finished", "failed"]
    attempts: int
    error: str | None
    seconds: float | None
    fingerprint: Digests
    threads: int | None
    peak_memory_mib: float | None
    measuring_seconds: float | None = None
    id: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def total_seconds(self) -> float | None:
        """Wall time of the trial, as far as it is known."""
        return None if self.seconds is None else self.seconds + (self.measuring_seconds or 0.0)


def records_dir(study_dir: Path, trial_id: str) -> Path:
    """Returns the folder of a trial's records."""
    return study_dir / TRIALS / trial_id


def read_record(folder: Path) -> TrialRecord | None:
    """Reads ``trial.json``; None where there is none."""
    path = folder / TRIAL_FILE
    if not path.is_file():
        return None
    remedy = f"restore it, or remove {folder} to run the trial again"
    with reading(path, what="the whole record of a trial", remedy=remedy):
        content = read_versioned(path, 1)
        known = {one.name: content[one.name] for one in fields(TrialRecord) if one.name in content}
        digests = Digests(**content["fingerprint"])
        return TrialRecord(**known | {"id": folder.name, "fingerprint": digests})
