"""Predicted times against closed forms, and the table as it is printed."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml

from seg.ablation import preview
from seg.ablation.preview import (
    Timed,
    count_windows,
    expect,
    fit_line,
    preview_study,
    shortest,
    time_network,
    trial_seconds,
)
from seg.ablation.run import trials_left
from seg.ablation.store import TrialRecord, read_trials
from seg.ablation.study import Study, choose_variants, plan_study
from seg.ablation.trials import Fingerprint, Places
from seg.benchmark import subjects
from seg.config import ExperimentConfig
from seg.data.datasets import read_folds
from seg.networks import network_from_config

BASE = """
patches: {size: [16, 16, 8]}
network:
  channels: [4, 8]
  strides: [[1, 1, 1], [2, 2, 2]]
  kernel_sizes: [[3, 3, 3], [3, 3, 3]]
training: {steps: 100, validate_every: 10, device: cpu}
optimizer: {warmup_steps: 0}
"""
MANIFEST = {
    "labels": {"background": 0, "box": 1},
    "channel_names": ["x"],
    "cases": [{"id": f"c{n}", "image": f"c{n}.nii", "label": f"l{n}.nii"} for n in range(7)],
}
FIXED, PER_GMAC = 30.0, 1000.0


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A baseline and two skip widths, two seeds."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "manifest.json").write_text(json.dumps(MANIFEST))
    (tmp_path / "base.yaml").write_text(BASE)
    fields = {
        "name": "widths",
        "base": "base.yaml",
        "set": {"data.root": str(tmp_path / "data")},
        "design": "sweep",
        "axes": [{"path": "network.skip_bottleneck.ratio", "label": "skip", "values": [0.5, 4]}],
        "seeds": [0, 1],
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(fields))
    return plan_study(tmp_path / "study.yaml")


def finish(study_dir: Path, trial_id: str, seconds: float, status: str = "finished") -> None:
    variant, _, seed = trial_id.rsplit(".", 2)
    folder = study_dir / "trials" / trial_id
    folder.mkdir(parents=True)
    one = record(variant, seconds).model_copy(update={"status": status, "seed": int(seed.removeprefix("seed_"))})
    (folder / "trial.json").write_text(json.dumps({"schema_version": 1, **one.model_dump()}))


def record(variant: str, seconds: float) -> TrialRecord:
    fingerprint = {"config": "", "data": ""}
    return TrialRecord(
        variant=variant, fold=0, seed=0, status="finished", seconds=seconds, threads=1, fingerprint=fingerprint
    )


def test_a_line_through_exact_times_is_found() -> None:
    line = fit_line([(macs, 5 + 2e-9 * macs) for macs in (10**9, 3 * 10**9, 7 * 10**9)])
    assert (line.fixed, line.per_mac) == pytest.approx((5, 2e-9))
    assert line.seconds(2 * 10**9) == pytest.approx(9)
    assert line.words == "a line in GMAC through these"


@pytest.mark.parametrize(
    "times",
    [
        [(10, 40.0), (10, 20.0), (10, 30.0)],  # one amount of work alone
        [(10, 30.0), (20, 20.0), (30, 120.0), (1, 3.0)],  # a line that is below 0 without work
        [(10, 30.0), (20, 10.0), (1, 30.0)],  # a line that falls
    ],
)
def test_where_no_line_fits_time_is_in_proportion_to_work(times: list[tuple[int, float]]) -> None:
    line = fit_line(times)
    assert line.fixed == 0
    assert line.per_mac == sorted(seconds / macs for macs, seconds in times)[len(times) // 2] or len(times) % 2 == 0
    assert line.words == "these in proportion to GMAC"


def test_a_trial_takes_its_own_time_else_its_variants_else_that_of_its_work(study: Study) -> None:
    work = {"baseline": 100, "skip_1-2": 80, "skip_4": 200}
    records = {"baseline.fold_0.seed_0": record("baseline", 50.0), "skip_1-2.fold_0.seed_0": record("skip_1-2", 44.0)}
    line = fit_line([(100, 50.0), (80, 44.0)])
    expected = expect(study.trials, records, line, work)
    assert {name: (round(one.seconds, 6), one.source) for name, one in expected.items()} == {
        "baseline.fold_0.seed_0": (50.0, "finished"),
        "skip_1-2.fold_0.seed_0": (44.0, "finished"),
        "skip_4.fold_0.seed_0": (80.0, "GMAC"),
        "baseline.fold_0.seed_1": (50.0, "same variant"),
        "skip_1-2.fold_0.seed_1": (44.0, "same variant"),
        "skip_4.fold_0.seed_1": (80.0, "GMAC"),
    }


def test_a_table_from_finished_trials(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview, "fingerprint", lambda config: Fingerprint(config="", data=""))
    finish(tmp_path / "out", "baseline.fold_0.seed_0", 600.0)
    finish(tmp_path / "out", "skip_4.fold_0.seed_0", 9.0, status="failed")
    chosen = choose_variants(study, ["baseline", "skip_1-2"])
    lines = preview_study(chosen, tmp_path / "out").splitlines()
    wide, narrow = (
        f"{sum(p.numel() for p in network_from_config(variant.config.network, 1, 2).parameters()):,}"
        for variant in chosen.variants[:2]
    )
    assert [line.split() for line in lines[:5]] == [
        ["trial", "parameters", "GMAC", "time", "from"],
        ["baseline.fold_0.seed_0", wide, "0.00", "10", "min", "finished"],
        ["skip_1-2.fold_0.seed_0", narrow, "0.00", "9", "min", "GMAC"],
        ["baseline.fold_0.seed_1", wide, "0.00", "10", "min", "same", "variant"],
        ["skip_1-2.fold_0.seed_1", narrow, "0.00", "9", "min", "GMAC"],
    ]
    assert lines[5] == ""
    assert lines[6].startswith("4 trials, 1 finished; the other 3 take about ")
    assert lines[7] == (
        "Times are predicted from 1 finished trials, from training to measures of preservation, on the device that "
        "they ran on; those of variants without one follow these in proportion to GMAC."
    )


def test_a_trial_takes_its_steps_and_its_predictions(study: Study) -> None:
    """100 steps of 0.5 s; 10 validations, a scoring, a generalisation and preservation of 2 cases of 3 windows."""
    config = study.baseline.config
    timed = Timed(step=0.5, window=0.25, device="a test")
    expected = 50 + (10 + 1 + 1 + preview.PRESERVATION_PASSES) * 2 * 3 * 0.25
    assert trial_seconds(config, timed, windows=3, cases=2) == pytest.approx(expected)


def test_windows_are_counted_from_headers(study: Study, tmp_path: Path) -> None:
    shapes = [(16, 16, 8), (17, 16, 8), (24, 24, 8), (32, 16, 16)]
    for index in range(7):
        image = nib.Nifti1Image(np.zeros(shapes[index % 4], dtype=np.uint8), np.diag((2, 1, 1, 1)))
        nib.save(image, tmp_path / "data" / f"c{index}.nii")
    _, splits = read_folds(study.baseline.config.data)
    # Windows that overlap by half: 2 n / window - 1 of them cover n voxels of an axis, rounded up.
    windows = {(16, 16, 8): 1, (17, 16, 8): 2, (24, 24, 8): 4, (32, 16, 16): 9}
    expected = [windows[shapes[int(name[1:]) % 4]] for name in splits[1].validation]
    assert count_windows(study.baseline.config, fold=1) == (np.mean(expected), len(expected))


def test_the_shortest_of_the_timed_calls_counts() -> None:
    lengths = iter([0.5, 3.0, 2.0, 9.0, 2.5, 4.0])
    now = [0.0]

    def call() -> None:
        now[0] += next(lengths)

    assert shortest(call, lambda: None, lambda: now[0]) == 2.0
    lengths = iter([preview.LONGEST_S + 1])
    assert shortest(call, lambda: None, lambda: now[0]) == preview.LONGEST_S + 1


def test_without_finished_trials_networks_are_timed_and_that_is_said(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = []

    def timed(config: ExperimentConfig, *ends: int, threads: int) -> Timed:
        bottleneck = config.network.skip_bottleneck
        asked.append((bottleneck and bottleneck.ratio, ends, threads))
        return Timed(step=0.5 if bottleneck is None else 0.49, window=0.0, device="a test")

    monkeypatch.setattr(preview, "time_network", timed)
    monkeypatch.setattr(preview, "count_windows", lambda config, fold: (1.0, 2))
    lines = preview_study(study, tmp_path / "absent").splitlines()
    assert asked == [(None, (1, 2), 0), (0.5, (1, 2), 0)]
    times = {line.split()[0]: " ".join(line.split()[3:]) for line in lines[1:7]}
    assert times["baseline.fold_0.seed_0"] == "50 s GMAC"
    assert times["skip_1-2.fold_0.seed_1"] == "49 s GMAC"
    assert [record.args for record in caplog.records] == [("baseline",), ("skip_1-2",)]
    assert not (tmp_path / "absent").exists()


def test_steps_and_predictions_are_really_computed(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    updates: list[float] = []
    build = subjects.build_optimizer

    def watched(network: torch.nn.Module, config: object) -> torch.optim.Optimizer:
        optimizer = build(network, config)  # type: ignore[arg-type]
        optimizer.register_step_post_hook(lambda *_: updates.append(float(next(network.parameters()).detach().sum())))
        return optimizer

    monkeypatch.setattr(subjects, "build_optimizer", watched)
    before = torch.get_num_threads()
    timed = time_network(study.baseline.config, 1, 2, threads=before)
    assert timed.window > 0
    assert timed.step > 0
    assert len(set(updates)) == preview.TIMED + 1
    assert timed.device.startswith(f"this processor with {before} thread")
    assert torch.get_num_threads() == before


def test_the_preview_and_the_run_agree_on_what_is_finished(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial of another version is trained anew by the run, so the preview does not call it finished."""
    timed = Timed(step=0.5, window=0.1, device="a test")
    monkeypatch.setattr(preview, "time_network", lambda *_, **__: timed)
    monkeypatch.setattr(preview, "count_windows", lambda config, fold: (1.0, 2))
    for trial in study.trials:
        finish(tmp_path / "out", trial.id, 600.0)
    for version, finished in ((1, 6), (2, 0)):
        own = Fingerprint(config="", data="", training_version=version)
        monkeypatch.setattr(preview, "fingerprint", lambda config, own=own: own)
        lines = preview_study(study, tmp_path / "out").splitlines()
        assert sum("finished" in line for line in lines[1:7]) == finished
        stored = read_trials(tmp_path / "out")
        prints = {trial.id: own for trial in study.trials}
        places = Places(study_dir=tmp_path / "out", runs_dir=tmp_path / "runs")
        assert len(trials_left(study.trials, places, prints, stored)) == 6 - finished
