"""A run that was killed ends with the weights of one that was not."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from seg.config import ExperimentConfig
from seg.files import locked
from seg.runs import LOCK_FILE
from seg.training import callbacks
from seg.training.module import SegmentationModule
from seg.workflows import train as training
from seg.workflows.train import train
from tests.problems import refused

EVERY = 2


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What a way to train may depend on, beside the seed."""

    optimizer: str = "adamw"
    ema_decay: float = 0.9
    accumulate: int = 1
    workers: int = 0
    early_stop: int | None = None

    def of(self, tiny: ExperimentConfig) -> ExperimentConfig:
        changed = replace(
            tiny.training,
            steps=4 * EVERY,
            validate_every=EVERY,
            accumulate=self.accumulate,
            ema_decay=self.ema_decay,
            early_stop=self.early_stop,
        )
        spatial = replace(tiny.augmentation.spatial, elastic_voxels=1.0, mirror_axes=(0,))
        return replace(
            tiny,
            data=replace(tiny.data, workers=self.workers),
            augmentation=replace(tiny.augmentation, spatial=spatial),
            optimizer=replace(tiny.optimizer, name=self.optimizer),
            training=changed,
        )


VARIANTS = {
    "adamw": Variant(),
    "muon, worker, no average": Variant(optimizer="muon", workers=1, ema_decay=0.0),
    "sgd, accumulated, early stop": Variant(optimizer="sgd", accumulate=2, early_stop=2),
}


def results(run_dir: Path) -> tuple[dict[str, torch.Tensor], list[list[str]]]:
    state = torch.load(run_dir / "checkpoints" / "weights.pt", weights_only=True)["network"]
    rows = [row.split(",") for row in (run_dir / "metrics.csv").read_text().splitlines()]
    return state, [[row[0], *row[2:]] for row in rows]


def same(one: Path, other: Path) -> bool:
    (weights, rows), (expected, expected_rows) = results(one), results(other)
    return rows == expected_rows and all(torch.equal(weights[name], expected[name]) for name in expected)


def dying(function: Callable[..., Any], count: int, *, alone: bool) -> Callable[..., Any]:
    """Has a function kill its process, alone or with its workers, when it is called for the count-th time."""
    calls = 0

    def call(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count:
            for path in arguments:
                if str(path).endswith(".partial"):  # a write that was half done
                    os.truncate(path, os.path.getsize(path) // 2)
            (os.kill if alone else os.killpg)(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)

    return call


def train_until(
    config: ExperimentConfig, run_dir: Path, place: Any, name: str, count: int, *, alone: bool = False
) -> int | None:
    """Trains in another process, which dies at the count-th call of a function; returns how it ended."""

    def target() -> None:
        os.setpgid(0, 0)
        setattr(place, name, dying(getattr(place, name), count, alone=alone))
        train(config, run_dir=run_dir, folds=(0,), resume=True)

    process = multiprocessing.get_context("fork").Process(target=target)
    process.start()
    process.join(120)  # until its workers have ended too, which takes seconds where they were not killed with it
    return process.exitcode


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_a_run_killed_again_and_again_ends_with_the_same_weights(
    tiny: ExperimentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: Variant
) -> None:
    monkeypatch.setattr(training, "score_run", lambda *_, **__: None)  # weights alone are of interest
    config, killed, whole = variant.of(tiny), tmp_path / "killed", tmp_path / "whole"
    batches = EVERY * variant.accumulate
    moments: list[tuple[Any, str, int, list[str]]] = [
        (SegmentationModule, "training_step", 1, []),
        (SegmentationModule, "training_step", batches + 2, ["last.ckpt"]),
        (SegmentationModule, "validation_step", 2, ["last.ckpt"]),
        (callbacks, "_flush", 1, ["last.ckpt", "last.ckpt.partial"]),
        (SegmentationModule, "training_step", batches + 1, ["last.ckpt"]),
    ]
    for place, name, count, left in moments:
        assert train_until(config, killed, place, name, count) == -signal.SIGKILL
        assert sorted(path.name for path in (killed / "checkpoints").iterdir()) == left
    done = torch.load(killed / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    taken, step = [], SegmentationModule.training_step
    with monkeypatch.context() as patched:
        patched.setattr(SegmentationModule, "training_step", lambda *given: taken.append(given[-1]) or step(*given))
        train(config, run_dir=killed, folds=(0,), resume=True)
    assert 0 < len(taken) <= (config.training.steps - done) * variant.accumulate  # no step is taken again
    train(config, run_dir=whole, folds=(0,))
    assert same(killed, whole)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_a_run_killed_between_validations_ends_with_the_same_weights(
    tiny: ExperimentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: Variant
) -> None:
    monkeypatch.setattr(training, "score_run", lambda *_, **__: None)
    every = 4
    config, killed, whole = variant.of(tiny), tmp_path / "killed", tmp_path / "whole"
    config = replace(config, training=replace(config.training, validate_every=every))
    with monkeypatch.context() as soon:
        soon.setattr(callbacks, "CHECKPOINT_SECONDS", 0.0)
        for batches in (3, every, 2):  # steps 1, 2 to 5 and 6 are in a checkpoint when the process dies
            count, alone = max(batches * variant.accumulate - 1, 2), batches == 2  # its worker ends by itself
            ended = train_until(config, killed, SegmentationModule, "training_step", count, alone=alone)
            assert ended == -signal.SIGKILL
    train(config, run_dir=killed, folds=(0,), resume=True)
    train(config, run_dir=whole, folds=(0,))
    assert same(killed, whole)


def test_a_run_that_another_process_trains_is_refused(tiny: ExperimentConfig, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with locked(run_dir / LOCK_FILE), refused((str(run_dir), "locked")):
        train(tiny, run_dir=run_dir, folds=(0,))
    assert not list(run_dir.iterdir())
    (run_dir / LOCK_FILE).touch()  # of a process that was killed
    train(tiny, run_dir=run_dir, folds=(0,))
    assert not (run_dir / LOCK_FILE).exists()
