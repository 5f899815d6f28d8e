"""Prediction from file to file: the cases it is measured on, and one whole volume with the account of its memory."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from seg.benchmark import prediction
from seg.benchmark.prediction import FilePrediction, held_out_images, measure_volume, write_volume
from seg.benchmark.subjects import Subject
from seg.benchmark.table import volume_text
from seg.errors import RunError, SegError

CPU = torch.device("cpu")


def test_the_volume_is_an_image_of_that_shape_on_that_grid(tmp_path: Path) -> None:
    path = tmp_path / "image.nii.gz"
    write_volume(path, (5, 6, 7), 2, spacing_mm=(1, 2, 3))
    image = nib.load(path)
    values = np.asarray(image.dataobj)  # type: ignore[attr-defined]
    assert values.shape == (5, 6, 7, 2)
    assert list(np.abs(np.diag(image.affine))[:3]) == [1, 2, 3]  # type: ignore[attr-defined]
    assert values.dtype == np.float32
    assert (values == values[:, :, :1]).all()
    assert len(np.unique(values)) > 30


def test_the_account_adds_up(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    predict = FilePrediction.__call__

    def with_a_block(own: FilePrediction) -> None:
        block = np.ones(100 * 2**17)  # 100 MiB
        predict(own)
        del block

    monkeypatch.setattr(FilePrediction, "__call__", with_a_block)
    ticks = iter((3.0, 5.5))
    monkeypatch.setattr(prediction.time, "perf_counter", lambda: next(ticks, 9.0))
    own = replace(subject, channel_names=("T1", "T2"), class_names=tuple(map(str, range(300))))
    found = measure_volume(own, (16, 12, 20), CPU)
    voxels = 16 * 12 * 20
    assert found["image_mib"] == voxels * 2 * 4 / 2**20
    assert found["labels_mib"] == voxels * 2 / 2**20  # 300 classes need two bytes
    assert found["beyond_image_and_labels_mib"] == pytest.approx(
        found["peak_beyond_start_mib"] - found["image_mib"] - found["labels_mib"]
    )
    assert 95 < found["peak_beyond_start_mib"] < 200
    assert found["peak_memory_gpu_mib"] is None
    assert (found["volume_shape"], found["num_channels"], found["num_classes"]) == ([16, 12, 20], 2, 300)
    text = volume_text(found)
    assert text.startswith("full: 16 x 12 x 20 voxels, 2 channel(s), 300 classes, ")
    assert "GPU" not in text
    assert "resident at the start             not measured" in volume_text(found | {"start_mib": None})


def test_a_volume_of_other_voxels_is_resampled(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    predict = FilePrediction.__call__

    def look(own: FilePrediction) -> None:
        ((path,),) = (source.paths for source in own._sources)
        seen.append(nib.load(path).header.get_zooms()[:3])
        predict(own)

    monkeypatch.setattr(FilePrediction, "__call__", look)
    config = replace(subject.config, data=replace(subject.config.data, spacing_mm=(2.0, 2.0, 2.0)))
    found = measure_volume(replace(subject, config=config), (16, 12, 20), CPU, spacing_mm=(1.0, 1.0, 1.5))
    assert seen == [(1.0, 1.0, 1.5)]
    assert found["labels_mib"] == 16 * 12 * 20 / 2**20
    assert "voxels of 1 x 1 x 1.5 mm, network at 2 x 2 x 2 mm" in volume_text(found)
    assert "voxels of 1 x 1 x 1 mm, network at 1 x 1 x 1 mm" in volume_text(measure_volume(subject, (8, 8, 8), CPU))


def test_seconds_are_those_of_the_prediction(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FilePrediction, "__call__", lambda own: None)
    ticks = iter((3.0, 5.5))
    monkeypatch.setattr(prediction.time, "perf_counter", lambda: next(ticks))
    assert measure_volume(subject, (8, 8, 8), CPU)["seconds"] == 2.5


def test_held_out_cases_are_those_of_the_fold(subject: Subject) -> None:
    config = subject.config
    sides = [{paths[0].name for paths in held_out_images(config, 8, fold=fold)} for fold in (0, 1)]
    assert [len(side) for side in sides] == [2, 2]
    assert sides[0].isdisjoint(sides[1])
    assert {paths[0].name for paths in held_out_images(replace(config, fold=1), 8)} == sides[1]
    assert len(held_out_images(config, 1)) == 1
    with pytest.raises(RunError, match="fold"):
        held_out_images(config, 8, fold=2)


def test_a_case_that_cannot_be_read_is_left_out_and_named(
    subject: Subject, scans: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = shutil.copytree(scans, tmp_path / "broken")
    config = replace(subject.config, data=replace(subject.config.data, root=str(root)))
    paths = held_out_images(config, 8)
    paths[0][0].write_bytes(b"no image")
    assert held_out_images(config, 8) == paths[1:]
    assert str(paths[0][0]) in caplog.text


def test_a_volume_beyond_memory_is_refused(subject: Subject) -> None:
    with pytest.raises(SegError) as caught:
        measure_volume(subject, (100_000, 100_000, 100_000), CPU)
    assert [(one.path, one.kind) for one in caught.value.problems] == [("--volume_shape", "memory")]
