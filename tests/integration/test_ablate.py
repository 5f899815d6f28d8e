"""A study from its file to its report, killed on the way or not."""

from __future__ import annotations

import csv
import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from seg.benchmark import memory
from tests.forks import forked

SCRIPT = Path(__file__).parents[2] / "scripts" / "ablate.py"
TRIALS = [f"{name}.fold_0.seed_0" for name in ("baseline", "skip_1-2")]
STUDY = {
    "name": "tiny",
    "base": "tiny.yaml",
    "set": {"training.steps": 16, "training.validate_every": 4, "inference.tta": False},
    "baseline": {"name": "baseline", "set": {"network.skip_bottleneck": None}},
    "design": "sweep",
    "axes": [{"path": "network.skip_bottleneck.ratio", "label": "skip", "values": [0.5]}],
    "seeds": [0],
    "speed": {"rounds": 3, "warmup": 1},
}


@pytest.fixture
def study_file(tiny_file: Path) -> Path:
    path = tiny_file.with_name("study.yaml")
    path.write_text(yaml.safe_dump(STUDY))
    return path


def kill_during_the_second_trial(study_file: Path, study_dir: Path) -> None:
    said = study_file.with_name("said")
    process = forked(SCRIPT, "--config", study_file, "--ablation_dir", study_dir, said=said)
    deadline = time.monotonic() + 120
    second = study_dir / "runs" / "skip_1-2" / "fold_0_seed_0" / "checkpoints" / "last.ckpt"
    while not second.exists():
        assert process.is_alive(), "the study ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.join()


def weights(study_dir: Path, trial: str) -> dict[str, torch.Tensor]:
    variant, fold, seed = trial.rsplit(".", 2)
    path = study_dir / "runs" / variant / f"{fold}_{seed}" / "checkpoints" / "weights.pt"
    return dict(torch.load(path, weights_only=True)["network"])


def test_a_study_from_its_file_to_its_report(
    script: Callable[..., Any], study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(memory.PROCESSES, "cpu", 1)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    ended = script("ablate", "--config", study_file, "--ablation_dir", whole)
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[-1] == f"report: {whole / 'report.html'}"
    assert sorted(path.name for path in (whole / "trials").iterdir()) == sorted(TRIALS)

    with (whole / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    measured = {(row["variant"], row["metric"]) for row in rows if row["value"] != "not measured"}
    metrics = ("dice_difference", "macs", "latency_ms", "training_step_ms", "prediction_s", "preservation_r2")
    assert {("skip_1-2", metric) for metric in metrics} <= measured
    dice = [json.loads((whole / "trials" / trial / "evaluation.json").read_text())["mean_dice"] for trial in TRIALS]
    reported = [float(row["value"]) for row in rows if (row["metric"], row["class_index"]) == ("dice", "")]
    assert reported == pytest.approx(dice, abs=1e-9)

    # What is done is not done again, and equal records give an equal report.
    made = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.parent.name in TRIALS}
    before = [(whole / name).read_bytes() for name in ("speed.json", "results.csv", "report.html")]
    assert script("ablate", "--config", study_file, "--ablation_dir", whole).code == 0
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert [(whole / name).read_bytes() for name in ("speed.json", "results.csv", "report.html")] == before

    # A study that was killed loses the trial in flight at most, which goes on from its checkpoint.
    kill_during_the_second_trial(study_file, killed)
    assert [path.name for path in (killed / "trials").iterdir()] == TRIALS[:1]
    shutil.copy(whole / "speed.json", killed)  # speed is not measured twice
    first = killed / "trials" / TRIALS[0] / "trial.json"
    at = first.stat().st_mtime_ns
    ended = script("ablate", "--config", study_file, "--ablation_dir", killed)
    assert ended.code == 0, ended.err
    assert re.findall(r"\d+/\d+ done", ended.out)[0] == "1/2 done"
    assert first.stat().st_mtime_ns == at
    for trial in TRIALS:
        own, other = weights(killed, trial), weights(whole, trial)
        assert all(torch.equal(own[name], other[name]) for name in other), trial
        scores = [(folder / "trials" / trial / "cases.csv").read_text() for folder in (killed, whole)]
        assert scores[0] == scores[1]
