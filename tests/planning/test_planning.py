"""From files to text, and plans of real data sets."""

from __future__ import annotations

import json
import os
from math import prod
from pathlib import Path

import numpy as np
import pytest

from seg.config import DataConfig, load_config
from seg.config.text import parse_yaml
from seg.data.datasets import read_dataset
from seg.errors import ConfigError
from seg.planning.experiment import plan_experiment
from seg.planning.fingerprint import fingerprint_dataset
from seg.planning.plan import plan_dataset
from seg.workflows.inputs import read_checked
from tests.data.builders import problems_of, save

AFFINE = np.diag([1.5, 1.5, 9.0, 1.0])


def write_acdc_like(root, count=10):
    """Thin volumes, two of each patient, in nnU-Net's layout, 48 x 40 x 6 or 7 voxels of 1.5 x 1.5 x 9 mm."""
    description = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "heart": 1}, "file_ending": ".nii.gz"}
    root.mkdir()
    (root / "dataset.json").write_text(json.dumps(description))
    random = np.random.default_rng(0)
    for index in range(count):
        name, shape = f"patient{index // 2}_frame{index % 2:02d}", (48, 40, 6 + index % 2)
        label = np.zeros(shape, dtype=np.uint8)
        label[10:30, 10:30] = 1
        save(root / f"imagesTr/{name}_0000.nii.gz", random.normal(size=shape).astype(np.float32), AFFINE)
        save(root / f"labelsTr/{name}.nii.gz", label, AFFINE)


@pytest.mark.parametrize("name", ["dataset.json", "labelsTr/patient0_frame00.nii.gz", "splits_final.json"])
def test_a_plan_never_falls_on_the_data_set(tmp_path, name):
    write_acdc_like(tmp_path / "data")
    (tmp_path / "link").symlink_to(tmp_path / "data" / name)
    for output in (tmp_path / "data" / name, tmp_path / "link"):
        with pytest.raises(ConfigError) as caught:
            plan_dataset(tmp_path / "data", output=output)
        assert [(one.path, one.kind) for one in caught.value.problems] == [("--output", "input")]


@pytest.mark.parametrize(("output", "written"), [("my.yaml", "scans/data"), ("conf/my.yaml", "../scans/data")])
def test_a_plan_names_the_data_from_where_it_is_written(tmp_path, monkeypatch, output, written):
    monkeypatch.chdir(tmp_path)
    for folder in ("scans", "conf"):
        (tmp_path / folder).mkdir()
    write_acdc_like(tmp_path / "scans" / "data")
    file = Path(output)
    file.write_text(plan_dataset(Path("scans/data"), output=file))
    assert parse_yaml(file.read_text())["data"]["root"] == written
    assert os.path.samefile(load_config([file]).data.root, "scans/data")
    monkeypatch.chdir("/")
    assert os.path.samefile(load_config([tmp_path / file]).data.root, tmp_path / "scans" / "data")


@pytest.mark.parametrize("beside", [True, False])
def test_a_plan_is_found_through_links(tmp_path, monkeypatch, beside):
    job = tmp_path / "app" / "job"
    for folder in (job, tmp_path / "in", tmp_path / "out"):
        folder.mkdir(parents=True)
    for name, place in (("data", "in"), ("runs", "out")):
        (job / name).symlink_to(tmp_path / place)
        if beside:  # so that ../data leads to it from the folder that is linked to too
            (tmp_path / name).symlink_to(tmp_path / place)
    write_acdc_like(tmp_path / "in" / "set")
    monkeypatch.chdir(job)
    file = Path("runs/my.yaml")
    file.write_text(plan_dataset(Path("data/set"), output=file))
    assert (parse_yaml(file.read_text())["data"]["root"] == "../data/set") == beside
    assert os.path.samefile(load_config([file]).data.root, tmp_path / "in" / "set")


def test_plan_is_text_that_reads_back(tmp_path):
    root = tmp_path / "Dataset999_Hearts"
    write_acdc_like(root)
    file = tmp_path / "plan.yaml"
    file.write_text(plan_dataset(root))
    config = load_config([file])
    assert (config.name, config.data.root) == ("hearts", str(root))
    assert config.data.patient_pattern.startswith("(?i)")
    assert config.patches.size == (48, 40, 7)
    assert config.network.strides == ((1, 1, 1), (2, 2, 1), (2, 2, 1), (2, 2, 1))
    assert config.training.steps == 1_000
    fingerprint = fingerprint_dataset(read_dataset(root))
    assert config == plan_experiment(fingerprint, config.data, name="hearts", memory_gib=4.0).config
    assert file.read_text().startswith("# Planned from 10 cases, fingerprint ")


def test_fewer_patients_than_folds_make_fewer_folds(tmp_path):
    write_acdc_like(tmp_path / "few", 6)
    for pattern in (None, r"(patient\d)"):
        text = plan_dataset(tmp_path / "few", patient_pattern=pattern)
        assert "\n  folds: 3\n" in text
        assert "patient_pattern: null" not in text


@pytest.mark.parametrize("read", [plan_dataset, lambda root: read_checked(DataConfig(root=str(root)), progress=False)])
def test_faulty_cases_are_reported_together_and_doubts_beside_them(tmp_path, caplog, read):
    root = tmp_path / "faulty"
    write_acdc_like(root)
    label, image = np.full((48, 40, 6), 7, dtype=np.uint8), np.full((48, 40, 7), np.nan, dtype=np.float32)
    save(root / "labelsTr/patient0_frame00.nii.gz", label, AFFINE)
    save(root / "imagesTr/patient1_frame01_0000.nii.gz", image, AFFINE)
    save(root / "labelsTr/patient2_frame00.nii.gz", label[1:], AFFINE)
    save(root / "labelsTr/patient3_frame00.nii.gz", label * 0, AFFINE)
    assert problems_of(read, root) == [
        ("case patient0_frame00", "values", "7"),
        ("case patient1_frame01", "finite", "13440 NaN or infinite voxels"),
        ("case patient2_frame00", "grid", "(47, 40, 6)"),
        ("case patient2_frame00", "values", "7"),
    ]
    (told,) = caplog.messages
    assert told.startswith("case patient3_frame00 label patient3_frame00.nii.gz ")


def test_what_training_refuses_is_not_planned(tmp_path):
    root = tmp_path / "bare"
    write_acdc_like(root)
    (root / "labelsTr/patient1_frame01.nii.gz").unlink()
    assert [path for path, _, _ in problems_of(plan_dataset, root)] == ["case patient1_frame01"]
    one, pattern = tmp_path / "one", r"(patient\d)"
    write_acdc_like(one, 2)
    assert problems_of(plan_dataset, one, patient_pattern=pattern) == [("the folds made", "patients", "1")]
    (one / "splits_final.json").write_text('[{"train": ["patient0_frame00"], "val": ["nobody"]}]')
    assert [value for _, _, value in problems_of(plan_dataset, one)] == ["nobody"]


def test_given_pattern_comes_first(tmp_path):
    root = tmp_path / "hearts"
    write_acdc_like(root)
    assert r"patient_pattern: (patient\d)" in plan_dataset(root, patient_pattern=r"(patient\d)").replace("'", "")


@pytest.mark.parametrize(
    ("name", "patch", "divisors"),
    [
        ("Task04_Hippocampus", (40, 56, 40), (8, 8, 8)),
        ("Dataset027_ACDC", (160, 160, 9), (32, 32, 1)),
        ("Dataset013_BraTS2013", (96, 128, 80), (16, 16, 16)),
    ],
)
def test_real_data_sets(data_root, tmp_path, name, patch, divisors):
    file = tmp_path / "plan.yaml"
    file.write_text(plan_dataset(data_root(name)))
    config = load_config([file])
    assert (config.patches.size, config.patches.batch, config.data.spacing_mm) == (patch, 2, None)
    assert tuple(prod(axis) for axis in zip(*config.network.strides, strict=True)) == divisors
