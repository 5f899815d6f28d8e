"""A run is scored again: its own cases, wherever they lie, and what changed is announced."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from seg.config import ExperimentConfig
from seg.runs import CONFIG_FILE, MODEL_FILE, WEIGHTS_FILE, load_weights
from tests.problems import refused


def mean_dice(folder: Path) -> float:
    return float(json.loads((folder / "evaluation.json").read_text())["mean_dice"])


@pytest.fixture(scope="session")
def folds(short: ExperimentConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished cross-validation of two folds, to be read alone."""
    from seg.workflows.train import train  # not above: torch would begin before its threads are set

    train(short, run_dir=(run_dir := tmp_path_factory.mktemp("trained") / "folds"))
    return run_dir


def test_evaluation_scores_the_run_it_is_given_whatever_lies_in_the_output(
    trained: Path, tmp_path: Path, script: Callable[..., Any]
) -> None:
    (folder := tmp_path / "again").mkdir()
    stale = json.dumps(json.loads((trained / "evaluation.json").read_text()) | {"mean_dice": 0.123})
    (folder / "evaluation.json").write_text(stale)
    assert script("evaluate", "--run_dir", trained, "--output", folder).code == 0
    assert mean_dice(folder) == mean_dice(trained) != 0.123
    own = Path(shutil.copytree(trained, tmp_path / "own"))
    (own / "evaluation.json").write_text(stale)
    trained_with = (own / "environment.json").read_bytes()
    assert script("evaluate", "--run_dir", own).code == 0
    assert mean_dice(own) == mean_dice(trained)
    assert (own / "environment.json").read_bytes() == trained_with
    scored = json.loads((own / "scoring_environment.json").read_text())
    assert scored["packages"]["torch"]
    assert len(scored["data"]) == 3


def test_a_data_set_that_moved_is_named_to_the_evaluation(
    trained: Path, tiny_root: Path, tmp_path: Path, script: Callable[..., Any]
) -> None:
    run_dir, output = Path(shutil.copytree(trained, tmp_path / "run")), tmp_path / "again"
    config = (run_dir / CONFIG_FILE).read_text()
    (run_dir / CONFIG_FILE).write_text(config.replace(str(tiny_root), str(tmp_path / "gone")))
    lost = script("evaluate", "--run_dir", run_dir, "--output", output)
    assert (lost.code, "got no such folder" in lost.err) == (2, True)
    assert script("evaluate", "--run_dir", run_dir, "--output", output, "--data.root", tiny_root).code == 0
    assert mean_dice(output) == mean_dice(run_dir)


def test_a_data_set_that_changed_since_training_is_announced(
    trained: Path, tiny_root: Path, tmp_path: Path, script: Callable[..., Any]
) -> None:
    root, output = Path(shutil.copytree(tiny_root, tmp_path / "data")), tmp_path / "again"
    argv = ("evaluate", "--run_dir", trained, "--output", output, "--data.root", root)
    assert "other files" not in script(*argv).err
    held_out = sorted(path.name.removesuffix(".nii.gz") for path in (output / "predictions").iterdir())
    label = root / "labelsTr" / f"{held_out[0]}.nii.gz"
    with gzip.open(label) as file:
        content = file.read()
    label.write_bytes(gzip.compress(content, compresslevel=1, mtime=1))  # the same voxels in other bytes
    said = script(*argv)
    assert said.code == 0
    changed = f"warning: {root}: held-out cases have other files than when the run began: {held_out[0]}\n"
    assert said.err.count(changed) == 1


def test_the_cases_that_a_run_held_out_are_scored_whatever_the_splits_say_now(
    trained: Path, tiny_root: Path, tmp_path: Path, script: Callable[..., Any]
) -> None:
    root, output = Path(shutil.copytree(tiny_root, tmp_path / "data")), tmp_path / "again"
    split = json.loads((trained / "environment.json").read_text())["split"]
    sides = {"train": split["validation"], "val": split["train"]}
    (root / "splits_final.json").write_text(json.dumps([sides, {"train": sides["val"], "val": sides["train"]}]))
    assert script("evaluate", "--run_dir", trained, "--output", output, "--data.root", root).code == 0
    scored = {path.name.removesuffix(".nii.gz") for path in (output / "predictions").iterdir()}
    assert scored == set(split["validation"])
    assert mean_dice(output) == mean_dice(trained)


def test_folds_that_cannot_be_summarised_are_refused_before_one_is_scored(
    folds: Path, tmp_path: Path, script: Callable[..., Any]
) -> None:
    cv, output = Path(shutil.copytree(folds, tmp_path / "cv")), tmp_path / "again"
    one, two = cv / "fold_0", cv / "fold_1"
    argv = ("evaluate", "--run_dir", cv, "--output", output)
    config, weights = (two / CONFIG_FILE).read_text(), (one / WEIGHTS_FILE).read_bytes()
    for fold in (one, two):  # the digests of the configuration would name the change first
        (fold / MODEL_FILE).unlink()
        begun = json.loads((fold / "environment.json").read_text())
        del begun["config_sha256"]
        (fold / "environment.json").write_text(json.dumps(begun))
    (two / CONFIG_FILE).write_text(config.replace("nsd_tolerance_mm: 1.0", "nsd_tolerance_mm: 2.0"))
    ended = script(*argv)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"error: {two} ")
    assert "evaluation.nsd_tolerance_mm" in ended.err
    (two / CONFIG_FILE).unlink()
    assert script(*argv).err.startswith(f"error: {two} must be a run directory")
    (two / CONFIG_FILE).write_text(config)
    (one / WEIGHTS_FILE).unlink()
    assert f"{one}" in (unfinished := script(*argv).err)
    assert WEIGHTS_FILE in unfinished
    (one / WEIGHTS_FILE).write_bytes(weights)
    shutil.copytree(one, two, dirs_exist_ok=True)
    (two / CONFIG_FILE).write_text(config)
    held_out = sorted(json.loads((one / "environment.json").read_text())["split"]["validation"])
    twice = script(*argv).err
    assert twice.startswith(f"error: {two} ")
    assert ", ".join(held_out) in twice
    assert not output.exists()


def test_scores_replace_none_of_another_run(
    folds: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from seg.workflows import evaluate

    monkeypatch.setattr(evaluate, "read_held_out", lambda *_, **__: pytest.fail("read"))
    cv, run_dir, part = (tmp_path / name for name in ("cv", "run", "part"))
    for path in (cv, part):
        shutil.copytree(folds, path)
    shutil.copytree(trained, run_dir)
    for scored, output, places in (
        (run_dir, cv / "fold_0", [""]),
        (run_dir, cv, ["fold_0", "fold_1"]),
        (cv / "fold_0", cv, ["fold_0", "fold_1"]),
        (cv, run_dir, [""]),
        (cv, cv / "fold_0", [""]),
        (cv, part, ["fold_0", "fold_1"]),
    ):
        with refused(*((str(output / place), "exists") for place in places)):
            evaluate.evaluate_run(scored, output=output)
    shutil.rmtree(part / "fold_0")
    (part / "fold_1" / CONFIG_FILE).unlink()  # as results alone
    with refused((str(part / "fold_1"), "exists")):
        evaluate.evaluate_run(cv / "fold_0", output=part)
    (part / "fold_1").rename(part / "fold_2")
    with refused((str(part / "fold_2"), "exists")):
        evaluate.evaluate_run(cv, output=part)


def test_a_run_is_scored_into_itself_and_results_over_themselves(
    folds: Path, tmp_path: Path, script: Callable[..., Any]
) -> None:
    cv, results = Path(shutil.copytree(folds, tmp_path / "cv")), tmp_path / "results"
    (cv / "cases.csv").write_text("damaged")
    for output in (cv / ".." / "cv", results, results):
        assert script("evaluate", "--run_dir", cv, "--output", output).code == 0
        assert mean_dice(output) == mean_dice(folds)


def test_another_data_set_is_refused_before_its_volumes_are_read(
    trained: Path, tiny_root: Path, tmp_path: Path, script: Callable[..., Any]
) -> None:
    root, output = Path(shutil.copytree(tiny_root, tmp_path / "other")), tmp_path / "again"
    content = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps(content | {"modality": {"0": "CT"}}))
    (root / "imagesTr" / "case_0.nii.gz").write_bytes(b"broken")  # of no interest in another data set
    ended = script("evaluate", "--run_dir", trained, "--output", output, "--data.root", root)
    assert ended.err.startswith(f"error: {trained / WEIGHTS_FILE}")
    assert "['CT'], got ['MRI']" in ended.err
    assert not output.exists()


def test_a_case_that_the_network_cannot_segment_is_named(
    trained: Path, tmp_path: Path, script: Callable[..., Any]
) -> None:
    run_dir = Path(shutil.copytree(trained, tmp_path / "run"))
    weights = {name: torch.full_like(value, 3e38) for name, value in load_weights(run_dir).items()}
    stored = torch.load(run_dir / WEIGHTS_FILE, weights_only=True)
    torch.save(stored | {"network": weights}, run_dir / WEIGHTS_FILE)
    model = json.loads((run_dir / "model.json").read_text())
    digest = hashlib.sha256((run_dir / WEIGHTS_FILE).read_bytes()).hexdigest()
    (run_dir / "model.json").write_text(json.dumps(model | {"weights_sha256": digest}))
    ended = script("evaluate", "--run_dir", run_dir, "--output", tmp_path / "again")
    assert ended.code == 2
    assert re.match(r"error: case case_\d: logits ", ended.err.splitlines()[-1])
