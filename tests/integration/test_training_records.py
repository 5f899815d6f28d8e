"""What training writes of itself, and weights that are worth nothing."""

from __future__ import annotations

import csv
import errno
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from seg.config import ExperimentConfig
from seg.errors import RunError
from seg.training import fit
from seg.workflows.train import train

Change = Callable[..., ExperimentConfig]


def test_event_files_have_the_rows_of_the_table(tiny: ExperimentConfig, other: Change, tmp_path: Path) -> None:
    train(other(tiny, "training", accumulate=2), run_dir=tmp_path / "run", folds=(0,))
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == set(rows[0]) - {"step"}
    for name in events.Tags()["scalars"]:
        found = events.Scalars(name)
        assert [event.step for event in found] == [row["step"] for row in rows] == [2, 4, 6]
        np.testing.assert_array_equal(
            np.float32([event.value for event in found]), np.float32([row[name] for row in rows])
        )


def test_an_update_that_leaves_no_use_in_the_weights_ends_the_run(
    tiny: ExperimentConfig, other: Change, tmp_path: Path
) -> None:
    config = other(tiny, "training", steps=1, validate_every=1)
    config = other(config, "optimizer", learning_rate=10.0, weight_decay=1e37, warmup_steps=0)
    with pytest.raises(RunError) as caught:
        train(config, run_dir=tmp_path / "run", folds=(0,))
    assert [(problem.path, problem.kind) for problem in caught.value.problems] == [
        ("step 1: predictions", "not_finite")
    ]
    assert not (tmp_path / "run" / "checkpoints" / "weights.pt").exists()


@pytest.mark.parametrize(("number", "named"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EIO, False)])
def test_a_full_disk_in_a_thread_is_named_without_a_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, number: int, named: bool
) -> None:
    printed: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", printed.append)

    def fail() -> None:
        raise OSError(number, os.strerror(number))

    with fit._full_disk_in_threads(tmp_path):
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
    assert [record.args[0] for record in caplog.records] == ([tmp_path] if named else [])
    assert len(printed) == (0 if named else 1)
    assert threading.excepthook == printed.append


def test_final_weights_must_be_finite(
    short: ExperimentConfig, other: Change, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []

    class Broken(fit.SegmentationModule):
        def on_fit_end(self) -> None:
            built.append(self.network)
            with torch.no_grad():
                for parameter in list(self.network.parameters())[1:3]:
                    parameter[0] = float("inf")

    monkeypatch.setattr(fit, "SegmentationModule", Broken)
    with pytest.raises(RunError) as caught:
        train(other(short, "training", ema_decay=0.0), run_dir=tmp_path / "run", folds=(0,))
    names = list(dict(built[0].named_parameters()))
    (problem,) = caught.value.problems
    assert (problem.path, problem.kind) == ("step 2: final weights", "not_finite")
    assert re.findall(r"\d+", problem.value)[:2] == ["2", str(len(names))]
    assert names[1] in problem.value
    assert not (tmp_path / "run" / "checkpoints" / "weights.pt").exists()
