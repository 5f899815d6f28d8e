"""Files that an earlier version wrote are read by today's commands; see README.md beside this file."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from seg.config import load_config, load_study

STORED = Path(__file__).parent
CONFIGS = sorted((STORED / "configs").glob("*.yaml"))
STUDIES = sorted((STORED / "configs" / "ablation").glob("*.yaml"))
Call = Callable[..., str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Copies the stored files, so that commands can write beside them."""
    shutil.copytree(STORED, tmp_path / "stored")
    return tmp_path / "stored"


@pytest.fixture
def call(folder: Path, script: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Gives the function that runs a script in the folder of the files and returns what it said."""
    monkeypatch.chdir(folder)

    def run(name: str, *arguments: str) -> str:
        ended = script(name, *arguments)
        assert ended.code == 0, ended.out + ended.err
        return str(ended.out + ended.err)

    return run


def weights(run: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(run / "checkpoints" / "weights.pt", map_location="cpu", weights_only=True)["network"])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("path", [*CONFIGS, STORED / "experiment.yaml"], ids=lambda path: path.stem)
def test_an_experiment_is_read(path: Path) -> None:
    overlays = [CONFIGS[0].parent / "phantom.yaml"] if path.stem in ("cpu", "gpu") else []
    assert load_config([*overlays, path]).training.steps > 0


@pytest.mark.parametrize("path", [*STUDIES, STORED / "study.yaml"], ids=lambda path: path.stem)
def test_a_study_is_read(path: Path) -> None:
    study, problems = load_study(path, {})
    assert problems == []
    assert study is not None
    assert study.seeds


def test_a_killed_run_is_resumed_with_its_history_its_average_and_its_optimiser(folder: Path, call: Call) -> None:
    before = rows(folder / "killed" / "metrics.csv")
    assert [row["step"] for row in before] == ["2.0", "4.0"]
    checkpoints = folder / "killed" / "checkpoints"
    shutil.copy(checkpoints / "last.ckpt", checkpoints / "best.ckpt")  # which earlier versions wrote too
    call("train", "--run_dir", "killed", "--resume")
    after, whole = rows(folder / "killed" / "metrics.csv"), rows(folder / "finished" / "metrics.csv")
    assert [float(row["step"]) for row in after] == [2, 4, 6]
    for old, new in zip(before, after, strict=False):
        assert {name: float(value) for name, value in old.items()} == {name: float(new[name]) for name in old}
    for name in ("train_loss", "val_dice", "learning_rate"):
        assert float(after[-1][name]) == pytest.approx(float(whole[-1][name]), abs=2e-3)
    # To the last bit on the machine that made the files; on another one two steps differ by rounding alone. Without the
    # optimiser's state the largest weight is off by 0.02, without the average by 0.01.
    resumed, uninterrupted = weights(folder / "killed"), weights(folder / "finished")
    assert resumed.keys() == uninterrupted.keys()
    for name, value in resumed.items():
        torch.testing.assert_close(value, uninterrupted[name], rtol=0, atol=1e-3, msg=name)


def test_a_finished_run_without_a_digest_predicts_the_same_and_its_manifest_is_read(folder: Path, call: Call) -> None:
    call("predict", "--run_dir", "finished", "--input", "data/imagesTr", "--output", "new", "--device", "cpu")
    for path in sorted((folder / "predicted").glob("*.nii.gz")):
        old, new = (nibabel.load(place / path.name) for place in (folder / "predicted", folder / "new"))
        assert np.array_equal(old.affine, new.affine)
        assert np.count_nonzero(old.get_fdata()) > 100
        assert np.mean(old.get_fdata() != new.get_fdata()) < 0.002
    # A folder that was begun earlier is gone on with.
    (folder / "predicted" / "ball_3.nii.gz").unlink()
    kept = files(folder / "predicted")
    begun = ("--input", "data/imagesTr", "--output", "predicted", "--device", "cpu", "--skip_existing")
    call("predict", "--run_dir", "finished", *begun)
    now = files(folder / "predicted")
    assert "ball_3.nii.gz" in now
    assert all(now[name] == content for name, content in kept.items() if name.endswith(".nii.gz"))


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_an_exported_network_predicts_the_same(engine: str, folder: Path, call: Call) -> None:
    pytest.importorskip(engine, reason=f"needs the extra {engine}")
    given = ("--run_dir", "exported/finished.onnx", "--engine", engine)
    call("predict", *given, "--input", "data/imagesTr", "--output", "new")
    for path in sorted((folder / "predicted").glob("*.nii.gz")):
        old, new = (nibabel.load(place / path.name) for place in (folder / "predicted", folder / "new"))
        assert np.array_equal(old.affine, new.affine)
        assert np.mean(old.get_fdata() != new.get_fdata()) < 0.002


def test_a_finished_run_is_scored_the_same(folder: Path, call: Call) -> None:
    old = rows(folder / "finished" / "cases.csv")
    call("evaluate", "--run_dir", "finished")
    new = {(row["case_id"], row["class_index"]): row for row in rows(folder / "finished" / "cases.csv")}
    assert old
    for row in old:
        for name in ("dice", "iou", "hd95_mm", "nsd", "volume_difference_ml", "reference_ml"):
            found = float(new[row["case_id"], row["class_index"]][name])
            assert found == pytest.approx(float(row[name]), rel=1e-6), (row["case_id"], name)


def test_a_finished_study_is_reported_with_the_same_figures(folder: Path, call: Call) -> None:
    def figures() -> dict[tuple[str, ...], str]:
        identity = ("variant", "metric", "class_index", "place", "device")
        return {tuple(row[name] for name in identity): row["value"] for row in rows(folder / "study" / "results.csv")}

    old = figures()
    (folder / "study" / "results.csv").unlink()
    call("report", "--ablation_dir", "study")
    new = figures()
    common = [key for key in old if key in new and old[key] not in ("", "not measured")]
    assert {key[1] for key in common} >= {"dice", "parameters", "macs", "latency_ms"}
    for key in common:
        assert float(new[key]) == pytest.approx(float(old[key]), rel=1e-5, abs=1e-6), key


def test_every_trial_of_a_finished_study_counts_as_finished(folder: Path, call: Call) -> None:
    old = files(folder / "study")
    table = call("ablate", "--config", "study.yaml", "--ablation_dir", "study", "--dry_run").splitlines()
    trials = [line for line in table if ".fold_0.seed_0" in line]
    assert len(trials) == 3
    assert all(line.split()[-1] == "finished" for line in trials)
    assert files(folder / "study") == old
