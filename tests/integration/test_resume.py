"""A run that was killed ends with the weights of one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from seg.cli import dump_config
from seg.config import ExperimentConfig
from seg.pipeline import train

SCRIPT = Path(__file__).parents[2] / "scripts" / "train.py"


def results(run_dir: Path) -> tuple[dict[str, torch.Tensor], list[list[str]]]:
    state = torch.load(run_dir / "checkpoints" / "weights.pt", weights_only=True)["network"]
    rows = [row.split(",") for row in (run_dir / "metrics.csv").read_text().splitlines()]
    return state, [[row[0], *row[2:]] for row in rows]


def kill_after_first_checkpoint(config: Path, run_dir: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--config", str(config), "--run_dir", str(run_dir)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (run_dir / "checkpoints" / "last.ckpt").exists():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("torn", [False, True], ids=["between", "during a checkpoint"])
def test_a_killed_run_ends_with_the_same_weights(tiny: ExperimentConfig, tmp_path: Path, torn: bool) -> None:

    config = replace(tiny, training=replace(tiny.training, steps=300, validate_every=10))
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config))
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    kill_after_first_checkpoint(path, killed)
    assert not (killed / "checkpoints" / "weights.pt").exists()
    if torn:
        good = (killed / "checkpoints" / "last.ckpt").read_bytes()
        (killed / "checkpoints" / "last.ckpt.partial").write_bytes(good[: len(good) // 2])
    train(config, run_dir=killed, folds=(0,), resume=True)
    train(config, run_dir=whole, folds=(0,))
    (resumed, rows), (straight, expected) = results(killed), results(whole)
    assert rows == expected
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)
