"""What must not happen to a run unseen: other weights, other data, other cases, results of something else."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import pytest
import torch

from seg.config import ExperimentConfig
from seg.errors import DataError, RunError
from seg.runs import WEIGHTS_FILE, load_weights
from seg.workflows import train as training
from seg.workflows.train import train
from tests.problems import refused

Change = Callable[..., ExperimentConfig]
Writer = Callable[[Path], Path]


def killed_at_fold(number: int, monkeypatch: pytest.MonkeyPatch, begin: Callable[[], object]) -> None:
    """Runs something that is killed where a fold would begin its first step."""
    whole = training.train_fold

    def killed(config: ExperimentConfig, *rest: Any, **named: Any) -> Any:
        if config.fold == number:
            raise KeyboardInterrupt
        return whole(config, *rest, **named)

    with monkeypatch.context() as patched:
        patched.setattr(training, "train_fold", killed)
        with pytest.raises(KeyboardInterrupt):
            begin()


def mean_dice(folder: Path) -> float:
    return float(json.loads((folder / "evaluation.json").read_text())["mean_dice"])


def test_initial_weights_survive_a_kill_before_the_first_checkpoint(
    short: ExperimentConfig,
    other: Change,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    still = replace(other(short, "optimizer", learning_rate=1e-12, weight_decay=0.0), seed=5)
    begun = other(still, "training", init_from=str(trained))
    cv = tmp_path / "cv"
    with pytest.raises(DataError) as refused:
        train(begun, run_dir=cv)
    assert [(problem.path, problem.kind) for problem in refused.value.problems] == [("fold 1", "seen")]
    assert not cv.exists()
    killed_at_fold(0, monkeypatch, lambda: train(other(begun, "training", score_seen=True), run_dir=cv))
    with caplog.at_level(logging.INFO, logger="seg"):
        train(other(still, "training", score_seen=True), run_dir=cv, resume=True)
    assert (str(trained),) in [record.args for record in caplog.records]
    source = load_weights(trained)
    for fold in ("fold_0", "fold_1"):
        found = load_weights(cv / fold)
        assert all(torch.allclose(found[name], source[name], atol=1e-6) for name in source)
    seen = sorted(json.loads((trained / "environment.json").read_text())["split"]["train"])
    assert sorted(json.loads((cv / "fold_0" / "environment.json").read_text())["seen"]) == seen
    for folder, marked in (("fold_0", []), ("fold_1", seen), (".", seen)):
        assert sorted(json.loads((cv / folder / "evaluation.json").read_text())["seen"]) == marked
        assert ("Optimistic" in (cv / folder / "cases.html").read_text()) == bool(marked)
    assert re.search(r"optimistic: .* 3 of 6 cases", capsys.readouterr().out)


def test_initial_weights_that_changed_are_refused(
    short: ExperimentConfig, other: Change, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, moved = (Path(shutil.copytree(trained, tmp_path / name)) for name in ("source", "moved"))
    run_dir = tmp_path / "run"
    begun = other(short, "training", init_from=str(source))
    killed_at_fold(0, monkeypatch, lambda: train(begun, run_dir=run_dir, folds=(0,)))
    content = torch.load(source / WEIGHTS_FILE, weights_only=True)
    changed = {name: value + 1 for name, value in content["network"].items()}
    torch.save(content | {"network": changed}, source / WEIGHTS_FILE)
    (source / "model.json").unlink()  # whose digest would name the change first
    with pytest.raises(RunError) as caught:
        train(short, run_dir=run_dir, folds=(0,), resume=True)
    assert str(run_dir) in str(caught.value)
    assert str(source) in str(caught.value)
    # The same weights in another place are the same; a begun run needs them no more; none is another run.
    train(other(short, "training", init_from=str(moved)), run_dir=run_dir, folds=(0,), resume=True)
    shutil.rmtree(source)
    (run_dir / "evaluation.json").unlink()
    train(begun, run_dir=run_dir, folds=(0,), resume=True)
    with refused((str(trained), "resume", "other values of training.init_from")):
        train(begun, run_dir=trained, folds=(0,), resume=True)


def test_a_finished_run_with_other_weights_is_not_taken_as_it_is(
    short: ExperimentConfig, trained: Path, tmp_path: Path
) -> None:
    run_dir = Path(shutil.copytree(trained, tmp_path / "run"))
    content = torch.load(run_dir / WEIGHTS_FILE, weights_only=True)
    changed = {name: value + 1 for name, value in content["network"].items()}
    torch.save(content | {"network": changed}, run_dir / WEIGHTS_FILE)
    with pytest.raises(RunError) as caught:
        train(short, run_dir=run_dir, folds=(0,), resume=True)
    assert [problem.kind for problem in caught.value.problems] == ["digest"]


def test_a_cross_validation_leaves_a_single_run_alone(short: ExperimentConfig, trained: Path, tmp_path: Path) -> None:
    single = Path(shutil.copytree(trained, tmp_path / "single"))
    before = mean_dice(single)
    for resume in (False, True):
        with refused((str(single), "exists")):
            train(short, run_dir=single, resume=resume)
        (scores := tmp_path / f"scores_{resume}").mkdir()
        shutil.copy(single / "evaluation.json", scores)
        with refused((str(scores), "exists")):
            train(short, run_dir=scores, resume=resume)
    assert mean_dice(single) == before
    assert not list(tmp_path.rglob("fold_*"))


def test_all_folds_are_checked_before_the_first_is_trained(
    short: ExperimentConfig, other: Change, trained: Path, tmp_path: Path
) -> None:
    cv, splits = tmp_path / "cv", tmp_path / "splits.json"
    shutil.copytree(trained, cv / "fold_1")
    with refused((str(cv / "fold_1"), "exists")):
        train(short, run_dir=cv)
    assert not (cv / "fold_0").exists()
    twice = [{"train": ["case_0"], "val": ["case_1", "case_2"]}, {"train": ["case_3"], "val": ["case_2"]}]
    splits.write_text(json.dumps(twice))
    with pytest.raises(DataError, match=r"case_2"):
        train(other(short, "data", splits=str(splits)), run_dir=tmp_path / "twice")
    assert not (tmp_path / "twice").exists()


def test_a_side_that_faulty_cases_empty_ends_with_2(
    short: ExperimentConfig, tiny_file: Path, write_dataset: Writer, script: Callable[..., Any]
) -> None:
    root, run_dir = write_dataset(tiny_file.parent / "broken"), tiny_file.parent / "run"
    (root / "imagesTr" / "case_1.nii.gz").write_bytes(b"broken")
    splits = [{"train": ["case_0", "case_2"], "val": ["case_1"]}, {"train": ["case_1"], "val": ["case_0"]}]
    (root / "splits_final.json").write_text(json.dumps(splits))
    argv = ("--config", tiny_file, "--run_dir", run_dir, "--data.root", root, "--data.on_error", "skip")
    for fold, side in ((0, "val"), (1, "train")):
        ended = script("train", *argv, "--fold", fold)
        assert ended.code == 2
        assert ended.err.splitlines()[-1].startswith(f"error: fold {fold}: {side} ")
        assert "case_1" in ended.err.splitlines()[-1]
    assert not run_dir.exists()


def test_labels_without_foreground_end_a_run_before_it_begins(
    short: ExperimentConfig, other: Change, write_dataset: Writer, tmp_path: Path
) -> None:
    root = write_dataset(tmp_path / "empty")
    labels = sorted((root / "labelsTr").iterdir())
    for path in labels:
        label = nib.load(path)
        nib.save(nib.Nifti1Image(0 * label.get_fdata(), label.affine), path)  # type: ignore[attr-defined]
    with refused((str(root), "foreground", f"none in {len(labels)} cases")):
        train(other(short, "data", root=str(root)), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_final_model_needs_no_folds(
    short: ExperimentConfig, other: Change, write_dataset: Writer, tmp_path: Path
) -> None:
    root = write_dataset(tmp_path / "one")
    description = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(
        json.dumps(description | {"training": description["training"][:1], "numTraining": 1})
    )
    for path in [*root.glob("*Tr/case_[1-5].nii.gz")]:
        path.unlink()
    config = other(short, "data", root=str(root), folds=3)
    assert train(config, run_dir=tmp_path / "final", folds=(None,)) == 0
    split = json.loads((tmp_path / "final" / "environment.json").read_text())["split"]
    assert split == {"train": ["case_0"], "validation": []}
    with pytest.raises(DataError):
        train(config, run_dir=tmp_path / "fold", folds=(0,))


def test_what_a_killed_first_write_left_does_not_block_the_run(short: ExperimentConfig, tmp_path: Path) -> None:
    (run_dir := tmp_path / "run").mkdir()
    (run_dir / ".config.yaml.ab12_cd3").write_text("name: ti")
    (run_dir / "environment.json").write_text("{}")
    train(short, run_dir=run_dir, folds=(0,), resume=True)
    assert not list(run_dir.glob(".config*"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / ".bashrc").write_text("")
    with refused((str(tmp_path / "mine"), "folder")):
        train(short, run_dir=tmp_path / "mine", folds=(0,), resume=True)


def test_a_cross_validation_goes_on_from_its_folder_alone_with_one_cache(
    short: ExperimentConfig, other: Change, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: Callable[..., Any]
) -> None:
    cv = tmp_path / "cv"
    killed_at_fold(1, monkeypatch, lambda: train(other(short, "data", cache="disk"), run_dir=cv))
    assert not (cv / "evaluation.json").exists()
    ended = script("train", "--resume", "--run_dir", cv)
    assert ended.code == 0, ended.err
    assert json.loads((cv / "evaluation.json").read_text())["num_cases"] == 6
    assert len(list((cv / "cache").glob("*.pt"))) == 6
    assert not list(cv.glob("fold_*/cache"))


def test_an_early_stop_is_announced_and_recorded(
    short: ExperimentConfig, trained: Path, other: Change, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = other(short, "training", steps=6, early_stop=1)
    still = other(config, "optimizer", learning_rate=1e-12)  # no validation is better than the first
    train(still, run_dir=tmp_path / "run", folds=(0,))
    assert (2, 6) in [record.args for record in caplog.records]
    assert json.loads((tmp_path / "run" / "model.json").read_text())["stopped_early_at_step"] == 2
    assert json.loads((trained / "model.json").read_text())["stopped_early_at_step"] is None


def test_a_run_is_resumed_on_the_data_it_began_with(
    short: ExperimentConfig, other: Change, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_dataset: Writer
) -> None:
    root, run_dir = write_dataset(tmp_path / "data"), tmp_path / "run"
    config = other(short, "data", root=str(root))
    killed_at_fold(0, monkeypatch, lambda: train(config, run_dir=run_dir, folds=(0,)))
    begun = json.loads((run_dir / "environment.json").read_text())
    assert (begun["precision"], "torch" in begun["packages"]) == ("fp32", True)
    assert len(begun["data"]) == 6
    changed = []
    for name in ("case_1", "case_4"):
        path = root / "imagesTr" / f"{name}.nii.gz"
        image = nib.load(path)
        changed.append((path, path.read_bytes()))
        nib.save(nib.Nifti1Image(image.get_fdata() + 1, image.affine), path)
    with pytest.raises(RunError) as caught:
        train(config, run_dir=run_dir, folds=(0,), resume=True)
    assert str(run_dir) in str(caught.value)
    assert "case_1, case_4" in str(caught.value)
    for path, content in changed:
        path.write_bytes(content)
    moved = root.rename(tmp_path / "moved")
    assert train(other(config, "data", root=str(moved)), run_dir=run_dir, folds=(0,), resume=True) == 0


def test_a_run_is_resumed_with_its_own_sides_and_precision(
    short: ExperimentConfig, other: Change, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, run_dir = Path(shutil.copytree(tiny_root, tmp_path / "data")), tmp_path / "run"
    config = other(short, "data", root=str(root))
    killed_at_fold(0, monkeypatch, lambda: train(config, run_dir=run_dir, folds=(0,)))
    record = json.loads((run_dir / "environment.json").read_text())
    split = record["split"]
    first, second = split["train"][0], split["validation"][0]
    swapped = {
        "train": [second if case == first else case for case in split["train"]],
        "val": [first if case == second else case for case in split["validation"]],
    }
    (root / "splits_final.json").write_text(json.dumps([swapped, {"train": swapped["val"], "val": swapped["train"]}]))
    with refused((str(run_dir), "resume", f"others for {', '.join(sorted((first, second)))}")):
        train(config, run_dir=run_dir, folds=(0,), resume=True)
    (root / "splits_final.json").unlink()
    (run_dir / "environment.json").write_text(json.dumps(record | {"precision": "fp8"}))
    with refused((str(run_dir), "resume", f"{record['precision']} here")):
        train(config, run_dir=run_dir, folds=(0,), resume=True)
    (run_dir / "environment.json").write_text(json.dumps(record | {"schema_version": 2}))
    with refused((f"{run_dir / 'environment.json'}: schema_version", "version", "2")):
        train(config, run_dir=run_dir, folds=(0,), resume=True)


def test_the_same_files_under_two_ids_are_no_two_cases(
    short: ExperimentConfig, other: Change, tiny_root: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(tiny_root, tmp_path / "data"))
    content = json.loads((root / "dataset.json").read_text())
    names = sorted(path.name.removesuffix(".nii.gz") for path in (root / "labelsTr").iterdir())
    for folder in ("imagesTr", "labelsTr"):
        shutil.copy(root / folder / f"{names[0]}.nii.gz", root / folder / "copy.nii.gz")
    content["training"].append({"image": "./imagesTr/copy.nii.gz", "label": "./labelsTr/copy.nii.gz"})
    content["numTraining"] = len(content["training"])
    (root / "dataset.json").write_text(json.dumps(content))
    (root / "splits_final.json").write_text(json.dumps([{"train": names[:-1], "val": [names[-1], "copy"]}]))
    with refused(("fold 0: case copy", "copy", f"the files of training case {names[0]}")):
        train(other(short, "data", root=str(root)), run_dir=tmp_path / "run", folds=(0,))
    assert not (tmp_path / "run").exists()
