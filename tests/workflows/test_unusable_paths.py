"""Paths that the file system refuses end every command in a problem that names them."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from seg.config import DataConfig, ExperimentConfig
from seg.errors import SegError
from seg.files import locked
from seg.inference.cases import find_sources
from seg.workflows import evaluate, folders
from seg.workflows.evaluate import evaluate_run
from seg.workflows.folders import evaluate_folders
from seg.workflows.predict import predict
from seg.workflows.train import train
from tests.problems import refused

CONFIG = ExperimentConfig(data=DataConfig(root="data"))


def train_on(path: Path) -> None:
    train(replace(CONFIG, data=replace(CONFIG.data, root=str(path))))


def train_into(path: Path) -> None:
    train(CONFIG, run_dir=path)


def score_folders(path: Path) -> None:
    evaluate_folders(path, path, path, nsd_tolerance_mm=1.0)


def predict_on(path: Path) -> None:
    predict(run_dirs=[path], input=path, output=path)


Make = Callable[..., Path]
COMMANDS = (train_on, train_into, evaluate_run, score_folders, predict_on)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_path_that_is_too_long(command: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path.joinpath(*["n" * 200] * 30)
    with pytest.raises(SegError) as caught:
        command(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_without_permission(
    command: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed, real = tmp_path / "closed", Path.stat

    def stat(path: Path, **named: bool) -> object:
        if closed in (path, *path.parents):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, **named)

    monkeypatch.setattr(Path, "stat", stat)
    with pytest.raises(SegError) as caught:
        command(closed)
    assert str(closed) in str(caught.value)
    assert "Permission denied" in str(caught.value)


def test_names_that_no_result_could_hold_are_named_before_any_work(tmp_path: Path) -> None:
    name = "case_\udcff"  # as Python shows a file name that is not in UTF-8
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / f"{name}.nii.gz").touch()
    for ask in (
        lambda: find_sources(folder, tmp_path / "out"),
        lambda: evaluate_folders(folder, folder, tmp_path / "out", nsd_tolerance_mm=1.0),
        lambda: evaluate_folders(
            folder, folder, tmp_path / "out", nsd_tolerance_mm=1.0, class_names=["background", name]
        ),
    ):
        with pytest.raises(SegError) as caught:
            ask()
        assert [(problem.path, problem.kind) for problem in caught.value.problems] == [(repr(name), "encoding")]
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which nobody can write")
def test_an_output_that_cannot_be_written_is_named_before_any_work(
    tmp_path: Path, make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictions, labels, out = tmp_path / "p", tmp_path / "l", Path("/proc/w")
    for folder in (predictions, labels):
        folder.mkdir()
        nib.save(nib.Nifti1Image(np.ones((6, 6, 5), np.uint8), np.eye(4)), folder / "case.nii.gz")
    monkeypatch.setattr(folders, "_score_all", lambda *_: pytest.fail("scored"))
    monkeypatch.setattr(evaluate, "read_held_out", lambda *_, **__: pytest.fail("read"))
    for ask in (
        lambda: evaluate_folders(predictions, labels, out, nsd_tolerance_mm=1.0),
        lambda: evaluate_run(make_run(), output=out),
    ):
        with refused((str(out), "unwritable")):
            ask()


@pytest.mark.parametrize("name", ["file", "file/below/out"])
def test_a_file_in_the_place_of_the_output_is_named_before_any_work(tmp_path: Path, make_run: Make, name: str) -> None:
    scan, out, file = tmp_path / "in" / "scan.nii.gz", tmp_path / name, tmp_path / "file"
    scan.parent.mkdir()
    nib.save(nib.Nifti1Image(np.eye(6, dtype=np.uint8)[..., None].repeat(5, 2), np.eye(4)), scan)
    file.touch()
    run_dir = make_run()
    for ask in (
        lambda: predict(run_dirs=[run_dir], input=scan.parent, output=out),
        lambda: evaluate_folders(scan.parent, scan.parent, out, nsd_tolerance_mm=1.0),
        lambda: evaluate_run(run_dir, output=out),
        lambda: locked(out / ".lock").__enter__(),  # as a study does
    ):
        with pytest.raises(SegError) as caught:
            ask()
        (problem,) = caught.value.problems
        assert str(out) in (problem.path, problem.value)
        assert problem.kind == "folder"
