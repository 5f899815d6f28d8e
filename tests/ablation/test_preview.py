"""Predicted times against closed forms, and the table as it is printed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from seg.ablation import preview, trials
from seg.ablation.preview import (
    Timed,
    count_windows,
    expect,
    fit_line,
    preview_study,
    shortest,
    speed_seconds,
    time_network,
    trial_seconds,
)
from seg.ablation.store import TrialRecord
from seg.ablation.study import Study, choose_variants
from seg.benchmark import subjects
from seg.config import DataConfig, ExperimentConfig, PatchConfig
from seg.config.study import SpeedConfig
from seg.data.datasets import read_folds
from seg.networks import network_from_config

Make = Callable[..., Study]


def record(variant: str, seconds: float) -> TrialRecord:
    return TrialRecord(variant=variant, fold=0, seed=0, status="finished", seconds=seconds)


def test_a_line_through_exact_times_is_found() -> None:
    line = fit_line([(macs, 5 + 2e-9 * macs) for macs in (10**9, 3 * 10**9, 7 * 10**9)])
    assert (line.fixed, line.per_mac) == pytest.approx((5, 2e-9))
    assert line.seconds(2 * 10**9) == pytest.approx(9)


@pytest.mark.parametrize(
    ("times", "per_mac"),
    [
        ([(10, 40.0), (10, 20.0), (10, 30.0)], 3.0),  # one amount of work alone
        ([(10, 30.0), (20, 20.0), (30, 120.0), (1, 3.0)], 3.0),  # a line that is below 0 without work
        ([(10, 30.0), (20, 10.0), (1, 30.0)], 3.0),  # a line that falls
    ],
)
def test_where_no_line_fits_time_is_in_proportion_to_work(times: list[tuple[int, float]], per_mac: float) -> None:
    line = fit_line(times)
    assert (line.fixed, line.per_mac) == (0, per_mac)


def test_a_trial_takes_its_own_time_else_its_variants_else_that_of_its_work(make_study: Make) -> None:
    line = fit_line([(100, 50.0), (80, 44.0)])
    records = {"baseline.fold_0.seed_0": record("baseline", 60.0)}
    assert expect(make_study(seeds=(0, 1)).trials, records, line, {"baseline": 100, "skip_1-2": 80}) == {
        "baseline.fold_0.seed_0": (60.0, "finished"),
        "skip_1-2.fold_0.seed_0": (pytest.approx(44.0), "GMAC"),
        "baseline.fold_0.seed_1": (60.0, "same variant"),
        "skip_1-2.fold_0.seed_1": (pytest.approx(44.0), "GMAC"),
    }


def test_a_table_from_finished_trials(make_study: Make, store: Callable[..., None], tmp_path: Path) -> None:
    study = make_study(seeds=(0, 1))
    store(tmp_path, study.trials[0], seconds=500.0, measuring_seconds=100.0)
    store(tmp_path, study.trials[1], status="failed")
    lines = preview_study(choose_variants(study, ["baseline", "skip_1-2"]), tmp_path).splitlines()
    wide, narrow = (
        f"{sum(p.numel() for p in network_from_config(variant.config.network, 1, 3).parameters()):,}"
        for variant in study.variants
    )
    assert [line.split() for line in lines[:5]] == [
        ["trial", "parameters", "GMAC", "time", "from"],
        ["baseline.fold_0.seed_0", wide, "0.00", "10", "min", "finished"],
        ["skip_1-2.fold_0.seed_0", narrow, "0.00", "9", "min", "GMAC"],
        ["baseline.fold_0.seed_1", wide, "0.00", "10", "min", "same", "variant"],
        ["skip_1-2.fold_0.seed_1", narrow, "0.00", "9", "min", "GMAC"],
    ]
    assert lines[5] == ""
    ending = "; to measure speed takes about "
    assert re.findall(r"\d+ min|\d+", lines[6])[:4] == ["4", "1", "3", "28 min"]  # trials, finished, left, time
    assert ending in lines[6]
    silent = replace(study, config=replace(study.config, speed=SpeedConfig(enabled=False)))
    assert ending not in preview_study(silent, tmp_path)
    baseline = preview_study(choose_variants(study, ["baseline"]), tmp_path)
    assert float(baseline.partition(ending)[2].split()[0]) < float(lines[6].partition(ending)[2].split()[0])


def test_measuring_speed_takes_its_rounds_its_predictions_and_its_processes(experiment: ExperimentConfig) -> None:
    """A window of 1 s: steps of 2 patches take 6 windows; 5 rounds and 3 predictions of 2 cases; 5 processes."""
    config = replace(experiment, training=replace(experiment.training, steps=100, validate_every=10))
    trial = 100 * 6 + (10 + 1 + 1 + preview.PRESERVATION_PASSES) * 2 * 3
    rounds, predictions, processes = 5 * (1 + 2 + 6), (3 + 1) * 2 * 3, 5 * 2 * (1 + 6)
    seconds = speed_seconds(SpeedConfig(rounds=4, warmup=1), config, trial, windows=3, cases=2)
    assert seconds == pytest.approx(rounds + predictions + processes)
    assert speed_seconds(SpeedConfig(rounds=4, warmup=1), config, 1e-9, windows=3, cases=2) == pytest.approx(
        5 * 3 * 0.02
    )


def test_a_study_without_a_trial_left_takes_no_time(
    make_study: Make, store: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study()
    for trial in study.trials:
        store(tmp_path, trial, seconds=60.0)
    (tmp_path / "speed.json").touch()
    assert preview_study(study, tmp_path).splitlines()[3:] == ["", "2 trials, 2 finished."]
    # A trial of another version is trained anew by the run, so the preview does not call it finished.
    monkeypatch.setattr(trials, "TRAINING_VERSION", 2)
    monkeypatch.setattr(preview, "time_network", lambda *_, **__: Timed(step=0.5, window=0.1, device="a test"))
    assert "2 trials, 0 finished" in preview_study(study, tmp_path)


def test_a_trial_takes_its_steps_and_its_predictions(experiment: ExperimentConfig) -> None:
    """100 steps of 0.5 s; 10 validations, a scoring, a generalisation and preservation of 2 cases of 3 windows."""
    config = replace(experiment, training=replace(experiment.training, steps=100, validate_every=10))
    expected = 50 + (10 + 1 + 1 + preview.PRESERVATION_PASSES) * 2 * 3 * 0.25
    timed = Timed(step=0.5, window=0.25, device="a test")
    assert trial_seconds(config, timed, windows=3, cases=2) == pytest.approx(expected)


def test_windows_are_counted_from_headers(experiment: ExperimentConfig, tmp_path: Path) -> None:
    shapes = [(16, 16, 8), (17, 16, 8), (24, 24, 8), (32, 16, 16)]
    cases = [{"id": f"c{n}", "image": f"c{n}.nii", "label": f"l{n}.nii"} for n in range(7)]
    manifest = {"labels": {"background": 0, "box": 1}, "channel_names": ["x"], "cases": cases}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    for index in range(7):
        image = nib.Nifti1Image(np.zeros(shapes[index % 4], dtype=np.uint8), np.diag((2, 1, 1, 1)))
        nib.save(image, tmp_path / f"c{index}.nii")
    config = replace(experiment, data=DataConfig(root=str(tmp_path)), patches=PatchConfig(size=(16, 16, 8)))
    _, splits = read_folds(config.data)
    # Windows that overlap by half: 2 n / window - 1 of them cover n voxels of an axis, rounded up.
    windows = {(16, 16, 8): 1, (17, 16, 8): 2, (24, 24, 8): 4, (32, 16, 16): 9}
    expected = [windows[shapes[int(name[1:]) % 4]] for name in splits[1].validation]
    assert count_windows(config, fold=1) == (np.mean(expected), len(expected))


def test_the_shortest_of_the_timed_calls_counts() -> None:
    lengths = iter([0.5, 3.0, 2.0, 9.0, 2.5, 4.0])
    now = [0.0]

    def call() -> None:
        now[0] += next(lengths)

    assert shortest(call, lambda: None, lambda: now[0]) == 2.0
    lengths = iter([preview.LONGEST_S + 1])
    assert shortest(call, lambda: None, lambda: now[0]) == preview.LONGEST_S + 1


def test_without_finished_trials_the_networks_are_timed(
    make_study: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def timed(config: ExperimentConfig, *ends: int, threads: int) -> Timed:
        bottleneck = config.network.skip_bottleneck
        asked.append((bottleneck and bottleneck.ratio, ends, threads))
        return Timed(step=25 if bottleneck is None else 24.5, window=0.0, device="a test")

    monkeypatch.setattr(preview, "time_network", timed)
    monkeypatch.delattr(os, "getloadavg")  # as on Windows
    lines = preview_study(make_study(seeds=(0, 1)), tmp_path / "absent").splitlines()
    assert "busy meanwhile is not known" in " ".join(lines)
    assert asked == [(None, (1, 3), 0), (0.5, (1, 3), 0)]
    times = {line.split()[0]: " ".join(line.split()[3:]) for line in lines[1:5]}
    assert times["baseline.fold_0.seed_0"] == "50 s GMAC"
    assert times["skip_1-2.fold_0.seed_1"] == "49 s GMAC"
    assert not (tmp_path / "absent").exists()


def test_steps_and_predictions_are_really_computed(
    experiment: ExperimentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    updates: list[float] = []
    build = subjects.build_optimizer

    def watched(network: torch.nn.Module, config: object) -> torch.optim.Optimizer:
        optimizer = build(network, config)  # type: ignore[arg-type]
        optimizer.register_step_post_hook(lambda *_: updates.append(float(next(network.parameters()).detach().sum())))
        return optimizer

    monkeypatch.setattr(subjects, "build_optimizer", watched)
    before = torch.get_num_threads()
    timed = time_network(experiment, 1, 2, threads=before)
    assert min(timed.window, timed.step) > 0
    assert len(set(updates)) == preview.TIMED + 1
    assert timed.device.startswith(f"this processor with {before} thread")
    assert torch.get_num_threads() == before
