"""Predicted times against closed forms, and the table as it is printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from seg.ablation import calibration, preview
from seg.ablation.calibration import StepTime, time_step
from seg.ablation.grid import Study, choose_variants, plan_study
from seg.ablation.preview import expect, fit_line, preview_study
from seg.ablation.store import TrialRecord, read_trials
from seg.ablation.study import trials_left
from seg.ablation.trials import Fingerprint, Places
from seg.benchmark import step
from seg.config import ExperimentConfig
from seg.networks.build import network_from_config

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


def test_without_finished_trials_steps_are_timed_and_that_is_said(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def timed(config: ExperimentConfig, *ends: int, threads: int) -> StepTime:
        bottleneck = config.network.skip_bottleneck
        asked.append((bottleneck and bottleneck.ratio, ends, threads))
        return StepTime(seconds=0.5 if bottleneck is None else 0.49, steps=5, device="a test")

    monkeypatch.setattr(calibration, "time_step", timed)
    lines = preview_study(study, tmp_path / "absent").splitlines()
    assert asked == [(None, (1, 2), 0), (0.5, (1, 2), 0)]
    times = {line.split()[0]: " ".join(line.split()[3:]) for line in lines[1:7]}
    assert times["baseline.fold_0.seed_0"] == "50 s GMAC"
    assert times["skip_1-2.fold_0.seed_1"] == "49 s GMAC"
    assert lines[-1].startswith(
        "No trial is finished: times are those of 100 training steps alone, without validation, scoring and what is "
        "measured of trained networks. A step takes 500 ms for baseline and 490 ms for skip_1-2, the median of 5 timed "
        "now on a test; the other variants "
    )
    assert not (tmp_path / "absent").exists()


def test_steps_are_really_computed(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(calibration.time, "perf_counter", lambda: float(next(clock)))
    updates: list[float] = []
    build = step.build_optimizer

    def watched(network: torch.nn.Module, config: object) -> torch.optim.Optimizer:
        optimizer = build(network, config)  # type: ignore[arg-type]
        optimizer.register_step_post_hook(lambda *_: updates.append(float(next(network.parameters()).detach().sum())))
        return optimizer

    monkeypatch.setattr(step, "build_optimizer", watched)
    before = torch.get_num_threads()
    timed = time_step(study.baseline.config, 1, 2, threads=before)
    assert timed.seconds == 1.0  # the clock ticks once between the beginning and the end of a step
    assert timed.steps == 5
    assert len(set(updates)) == 7
    assert timed.device.startswith(f"this processor with {before} thread")
    assert torch.get_num_threads() == before


def test_the_preview_and_the_run_agree_on_what_is_finished(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial of another version is trained anew by the run, so the preview does not call it finished."""
    monkeypatch.setattr(calibration, "time_step", lambda *_, **__: StepTime(seconds=0.5, steps=5, device="a test"))
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
