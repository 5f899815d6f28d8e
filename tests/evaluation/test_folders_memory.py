"""Label maps that do not fit in memory cost themselves alone; a process that is ended is said to be."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NoReturn

import nibabel as nib
import numpy as np
import pytest

from seg.errors import DataError, RunError
from seg.workflows import folders as module
from seg.workflows.folders import evaluate_folders


def die(task: Any) -> NoReturn:
    os._exit(9)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Two folders of two label maps each, and one for the results."""
    for side in ("predictions", "labels"):
        (tmp_path / side).mkdir()
        for name in ("one", "two"):
            array = np.zeros((6, 5, 4), np.uint8)
            array[1:3, 1:3, 1:3] = 1
            nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / side / f"{name}.nii.gz")
    return tmp_path / "predictions", tmp_path / "labels", tmp_path / "output"


def test_a_case_that_does_not_fit_is_named(pair: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    score = module.score_case
    calls: list[int] = []

    def first_is_too_large(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise MemoryError
        return score(*args, **kwargs)

    monkeypatch.setattr(module, "score_case", first_is_too_large)
    evaluation = evaluate_folders(*pair, nsd_tolerance_mm=1.0, leave_out=True)
    problem = (
        "case one: must fit in memory to be scored, got one.nii.gz that does not; score with fewer workers at "
        "a time, or crop it."
    )
    assert evaluation.left_out == (problem,)
    calls.clear()
    with pytest.raises(DataError) as caught:
        evaluate_folders(*pair, nsd_tolerance_mm=1.0)
    assert caught.value.sentences == (problem,)


def test_a_process_that_is_ended_is_said_to_be(pair: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_score_files", die)
    with pytest.raises(RunError) as caught:
        evaluate_folders(*pair, nsd_tolerance_mm=1.0, workers=2)
    assert str(caught.value) == (
        "processes that score must live to their end, got one ended, most likely for want of memory, after 0 of "
        "2 cases; score with fewer than 2 workers at a time."
    )
    assert not pair[2].exists()
