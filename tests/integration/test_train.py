"""A whole run: what it leaves, that it repeats itself, that it refuses what it must."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import pytest
import torch

from seg import processes
from seg.cli import read_command
from seg.config import ExperimentConfig
from seg.config.loading import config_digest
from seg.data import datamodule
from seg.data.datamodule import SegmentationData
from seg.errors import RunError
from seg.files import read_table
from seg.workflows.evaluate import evaluate_run
from seg.workflows.inputs import read_checked, read_splits
from seg.workflows.train import train
from tests.problems import refused

BATCH = 2 * 2 * 8**3 * 5  # twice two patches of a channel in floats and a label in bytes
Change = Callable[..., ExperimentConfig]


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(run_dir / "checkpoints" / "weights.pt", weights_only=True)["network"])


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_a_training_falls_back_from_an_apple_gpu_that_cannot_compute_it(
    short: ExperimentConfig,
    trained: Path,
    other: Change,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if torch.backends.mps.is_available() or torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    for device in ("auto", "mps"):
        caplog.clear()
        assert train(other(short, "training", device=device), run_dir=tmp_path / device, folds=(0,)) == 0
        assert [one.levelname for one in caplog.records if "mps" in one.getMessage()].count("WARNING") == 2
        assert same(weights(tmp_path / device), weights(trained))  # of the processor


def test_a_run_leaves_what_the_conventions_list(
    tiny: ExperimentConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    assert train(tiny, run_dir=run_dir, folds=(0,)) == 0
    printed = capsys.readouterr().out
    assert "box" in printed
    assert f"run directory: {run_dir}" in printed
    assert f"picture: {run_dir / 'predictions.png'}" in printed
    assert (run_dir / "predictions.png").read_bytes().startswith(b"\x89PNG")
    assert "<h1>tiny, fold 0</h1>" in (run_dir / "cases.html").read_text(encoding="utf-8")
    assert f"cases: {run_dir / 'cases.html'}" in printed
    assert "post-processing: " in printed
    chosen = json.loads((run_dir / "postprocessing.json").read_text())
    assert (chosen["cases"], [one["name"] for one in chosen["classes"]]) == (3, ["box", "corner"])
    for name in ("last.ckpt", "weights.pt"):
        torch.load(run_dir / "checkpoints" / name, weights_only=True)
    evaluation = json.loads((run_dir / "evaluation.json").read_text())
    assert next(iter(evaluation)) == "mean_dice"
    about = json.loads((run_dir / "model.json").read_text())
    assert "not for clinical use" in about["notice"]
    assert about["config_sha256"] == config_digest((run_dir / "config.yaml").read_text())
    assert json.loads((run_dir / "environment.json").read_text())["packages"]["torch"]
    rows = (run_dir / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "2.0", "4.0", "6.0"]
    predictions = sorted((run_dir / "predictions").iterdir())
    assert len(predictions) == evaluation["num_cases"] == 3
    assert nib.load(predictions[0]).shape == (12, 14, 10)
    (tmp_path / "again").mkdir()
    left = [tmp_path / "again" / name for name in (".shell.settings", ".cases.csv.0123abcd")]
    for path in left:
        path.touch()
        os.utime(path, (0, 0))
    assert evaluate_run(run_dir, output=tmp_path / "again") == 0
    assert [path.exists() for path in left] == [True, False]  # the first is the user's
    assert (tmp_path / "again" / "cases.csv").read_text() == (run_dir / "cases.csv").read_text()


@pytest.mark.usefixtures("undrawn")
def test_equal_seeds_give_equal_weights_bit_for_bit(short: ExperimentConfig, trained: Path, tmp_path: Path) -> None:
    for name, config in (("same", short), ("other", replace(short, seed=1))):
        train(config, run_dir=tmp_path / name, folds=(0,))
    assert same(weights(trained), weights(tmp_path / "same"))
    assert not same(weights(trained), weights(tmp_path / "other"))


@pytest.mark.usefixtures("undrawn")
def test_folds_that_are_trained_later_join_the_summary(
    short: ExperimentConfig, other: Change, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = other(short, "data", folds=3)
    for folds, scored in (((0, 1), [0, 1]), ((2, 1), [0, 1, 2])):
        train(config, run_dir=tmp_path, folds=folds, resume=True)
        evaluation = json.loads((tmp_path / "evaluation.json").read_text())
        assert [fold["fold"] for fold in evaluation["folds"]] == scored
        assert len(json.loads((tmp_path / "postprocessing.json").read_text())["models"]) == len(scored)
    assert "6 cases of 6 patients" in capsys.readouterr().out


def test_runs_that_nobody_names_lie_in_the_folder_of_the_configuration(
    short: ExperimentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = replace(short, training=replace(short.training, runs_dir=str(tmp_path / "results")))
    assert train(config, folds=(None,)) == 0
    assert (tmp_path / "results" / short.name / "seed_0" / "final" / "model.json").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_a_final_model_trains_on_all_cases_and_has_no_scores(
    short: ExperimentConfig,
    tiny_root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    script: Callable[..., Any],
) -> None:
    run_dir = tmp_path / "final"
    assert train(short, run_dir=run_dir, folds=(None,)) == 0
    assert "6 labelled cases" in capsys.readouterr().out
    split = json.loads((run_dir / "environment.json").read_text())["split"]
    assert (len(split["train"]), split["validation"]) == (6, [])
    assert not (run_dir / "evaluation.json").exists()
    assert [row["val_dice"] for row in read_table(run_dir / "metrics.csv", remedy="")] == ["nan", "nan"]
    before = (run_dir / "checkpoints" / "weights.pt").stat().st_mtime_ns
    assert script("train", "--resume", "--run_dir", run_dir).code == 0
    assert (run_dir / "checkpoints" / "weights.pt").stat().st_mtime_ns == before
    scan = sorted((tiny_root / "imagesTr").iterdir())[0]
    assert script("predict", "--run_dir", run_dir, "--input", scan, "--output", tmp_path / "out").code == 0
    with pytest.raises(RunError) as caught:
        evaluate_run(run_dir)
    assert [(problem.path, problem.kind) for problem in caught.value.problems] == [(str(run_dir), "held_out")]


THREE_STAGES = {
    "channels": (4, 4, 4),
    "strides": ((1, 1, 1), (2, 2, 2), (2, 2, 1)),
    "kernel_sizes": ((3, 3, 3),) * 3,
}


@pytest.mark.parametrize(
    "sections",
    [
        {
            "training": {"accumulate": 2, "ema_decay": 0.0},
            "network": {"residual": True, "upsample": "linear", "merge": "add"},
            "data": {"cache": "disk"},
            "loss": {"batch_dice": False, "include_background": True},
        },
        {
            "training": {"precision": "bf16"},
            "network": {"skip_bottleneck": None},
            "optimizer": {"name": "sgd", "schedule": "poly", "clip_norm": None},
            "data": {"spacing_mm": (1.5, 1.0, 1.0)},
        },
        {
            "training": {"early_stop": 1},
            "network": {**THREE_STAGES, "deep_supervision": True},
            "data": {"cache": "none", "workers": 1},
            "inference": {"tta": True, "window": (12, 16, 10)},
        },
    ],
)
def test_every_option_trains(
    short: ExperimentConfig, other: Change, tmp_path: Path, sections: dict[str, dict[str, object]]
) -> None:
    for section, values in sections.items():
        short = other(short, section, **values)
    assert train(short, run_dir=tmp_path / "run", folds=(0,)) == 0


def test_all_folds_lie_below_one_summary(
    tiny: ExperimentConfig, other: Change, tmp_path: Path, script: Callable[..., Any]
) -> None:
    train(other(tiny, "training", steps=2, validate_every=2), run_dir=tmp_path / "cv", folds=None)
    evaluation = json.loads((tmp_path / "cv" / "evaluation.json").read_text())
    assert evaluation["num_cases"] == 6
    assert [fold["fold"] for fold in evaluation["folds"]] == [0, 1]
    assert (tmp_path / "cv" / "fold_1" / "evaluation.json").exists()
    chosen = json.loads((tmp_path / "cv" / "postprocessing.json").read_text())
    assert (chosen["cases"], len(chosen["models"])) == (6, 2)
    assert not (tmp_path / "cv" / "fold_1" / "postprocessing.json").exists()
    page = (tmp_path / "cv" / "cases.html").read_text(encoding="utf-8")
    assert "<h1>tiny, 2 folds</h1>" in page
    assert page.count("<article ") == 5
    assert "licence: CC0" in page
    before = (tmp_path / "cv" / "cases.csv").read_text()
    assert script("evaluate", "--run_dir", tmp_path / "cv", "--output", tmp_path / "again").code == 0
    assert (tmp_path / "again" / "cases.csv").read_text() == before
    assert (tmp_path / "again" / "fold_1" / "evaluation.json").exists()


def test_another_data_set_is_told_by_its_classes(tiny: ExperimentConfig, trained: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny.data.root, other)
    description = json.loads((other / "dataset.json").read_text())
    description["labels"] = {"0": "background", "1": "kidney", "2": "tumour"}
    (other / "dataset.json").write_text(json.dumps(description))
    with refused((str(trained / "checkpoints/weights.pt"), "class_names", "['background', 'box', 'corner']")):
        evaluate_run(trained, data_root=other)


def test_an_existing_run_is_kept(
    short: ExperimentConfig, other: Change, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (trained / "checkpoints" / "weights.pt").stat().st_mtime_ns
    with refused((str(trained), "exists")):
        train(short, run_dir=trained, folds=(0,))
    with refused((str(trained), "resume", "other values of training.steps")):
        train(other(short, "training", steps=8), run_dir=trained, folds=(0,), resume=True)
    train(short, run_dir=trained, folds=(0,), resume=True)
    assert f"run directory: {trained}" in capsys.readouterr().out
    assert (trained / "checkpoints" / "weights.pt").stat().st_mtime_ns == before


@pytest.mark.usefixtures("undrawn")
def test_a_run_starts_from_another_ones_weights(
    short: ExperimentConfig, other: Change, trained: Path, tmp_path: Path
) -> None:
    still = other(replace(short, seed=5), "optimizer", learning_rate=1e-12, weight_decay=0.0)
    train(other(still, "training", init_from=str(trained)), run_dir=tmp_path / "second", folds=(0,))
    one, two = weights(trained), weights(tmp_path / "second")
    assert all(torch.allclose(one[name], two[name], atol=1e-6) for name in one)
    with pytest.raises(RunError, match=r"checkpoints/weights\.pt"):
        train(other(still, "training", init_from=str(tmp_path / "nowhere")), run_dir=tmp_path / "third", folds=(0,))


def test_a_comparison_marks_scores_of_patients_whom_initial_weights_saw(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = Path(shutil.copytree(trained, tmp_path / "other"))
    content = json.loads((other / "evaluation.json").read_text())
    (other / "evaluation.json").write_text(json.dumps(content | {"seen": ["case_0"]}))
    read_command("compare", ["--baseline", str(trained), "--variant", str(other)]).run()
    (problem,) = [record.args[0] for record in caplog.records]
    assert (problem.path, problem.kind, problem.value) == (str(other), "seen", "case_0")


@pytest.mark.usefixtures("undrawn")
def test_a_finished_run_gets_more_steps_as_a_new_run(trained: Path, tmp_path: Path) -> None:
    before = (trained / "checkpoints" / "weights.pt").read_bytes()
    argv = ["--config", str(trained / "config.yaml"), "--init_from", str(trained), "--seed", "5"]
    argv += ["--training.steps", "4", "--training.validate_every", "2", "--run_dir", str(tmp_path / "longer")]
    assert read_command("train", argv).run() == 0
    first, longer = (json.loads((folder / "environment.json").read_text()) for folder in (trained, tmp_path / "longer"))
    assert longer["initial_weights"] == hashlib.sha256(before).hexdigest()
    assert longer["split"] == first["split"]
    assert longer["seen"] == {case: first["data"][case] for case in first["split"]["train"]}
    assert not json.loads((tmp_path / "longer" / "evaluation.json").read_text()).get("seen")
    assert (trained / "checkpoints" / "weights.pt").read_bytes() == before
    one, two = weights(trained), weights(tmp_path / "longer")
    assert any(not torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("free", "workers"), [(7 * BATCH, 3), (7 * BATCH - 1, 2), (3 * BATCH, 1), (2 * BATCH, 0), (0, 0)]
)
def test_there_are_as_many_workers_as_shared_memory_bears(
    tiny: ExperimentConfig,
    other: Change,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    free: int,
    workers: int,
) -> None:
    still = replace(tiny.augmentation.spatial, probability=0.0)
    config = other(other(tiny, "data", workers=3, cache="none"), "augmentation", spatial=still)
    dataset, _ = read_checked(tiny.data, progress=False)
    data = SegmentationData(config, dataset, read_splits(config, [])[0], tmp_path)
    data.setup("fit")
    monkeypatch.setattr(processes, "usable_cores", lambda: 3)
    monkeypatch.setattr(datamodule, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    assert data.train_dataloader().num_workers == workers
    assert [f"data.workers: {workers} in place of 3" in message for message in caplog.messages] == [True] * (
        workers < 3
    )
    monkeypatch.setattr(processes, "usable_cores", lambda: 1)
    assert data.train_dataloader().num_workers == min(workers, 1)
    assert ("data.workers", 1, 3) in [record.args[:3] for record in caplog.records if record.args]
