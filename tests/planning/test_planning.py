"""From files to text, and plans of real data sets."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import prod

import nibabel as nib
import numpy as np
import pytest

from seg.config import DataConfig, load_config
from seg.data.datasets import read_dataset
from seg.errors import DataError
from seg.planning.experiment import detect_patient_pattern, plan_experiment
from seg.planning.fingerprint import fingerprint_dataset
from seg.planning.plan import plan_dataset
from seg.workflows.inputs import read_checked


def write_acdc_like(root, count=10):
    """Thin volumes, two of each patient, in nnU-Net's layout, 48 x 40 x 6 or 7 voxels of 1.5 x 1.5 x 9 mm."""
    description = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "heart": 1}, "numTraining": count}
    root.mkdir()
    (root / "dataset.json").write_text(json.dumps({**description, "file_ending": ".nii.gz"}))
    random = np.random.default_rng(0)
    for index in range(count):
        name = f"patient{index // 2}_frame{index % 2:02d}"
        shape = (48, 40, 6 + index % 2)
        label = np.zeros(shape, dtype=np.uint8)
        label[10:30, 10:30] = 1
        for folder, file, array in (
            ("imagesTr", f"{name}_0000.nii.gz", random.normal(size=shape).astype(np.float32)),
            ("labelsTr", f"{name}.nii.gz", label),
        ):
            (root / folder).mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.diag([1.5, 1.5, 9.0, 1.0])), root / folder / file)


def test_plan_is_text_that_reads_back(tmp_path):
    root = tmp_path / "Dataset999_Hearts"
    write_acdc_like(root)
    file = tmp_path / "plan.yaml"
    file.write_text(plan_dataset(root))
    config = load_config([file])
    assert (config.name, config.data.root) == ("hearts", str(root))
    assert config.data.patient_pattern == detect_patient_pattern(
        [f"patient{i}_frame{j}" for i in range(5) for j in "01"]
    )
    assert config.patches.size == (32, 32, 7)
    assert config.network.strides == ((1, 1, 1), (2, 2, 1), (2, 2, 1), (2, 2, 1))
    assert config.training.steps == 1_000
    assert (
        config
        == plan_experiment(fingerprint_dataset(read_dataset(root)), config.data, name="hearts", memory_gib=4.0).config
    )
    assert file.read_text().startswith("# Planned from 10 cases, fingerprint ")


def test_fewer_patients_than_folds_make_fewer_folds(tmp_path):
    write_acdc_like(tmp_path / "few", 6)
    for pattern in (None, r"(patient\d)"):
        text = plan_dataset(tmp_path / "few", patient_pattern=pattern)
        assert "\n  folds: 3\n" in text
        assert "patient_pattern: null" not in text


def test_faulty_cases_are_reported_together(tmp_path):
    root = tmp_path / "faulty"
    write_acdc_like(root)
    label = np.full((48, 40, 6), 7, dtype=np.uint8)
    image = np.full((48, 40, 7), np.nan, dtype=np.float32)
    affine = np.diag([1.5, 1.5, 9.0, 1.0])
    nib.save(nib.Nifti1Image(label, affine), root / "labelsTr/patient0_frame00.nii.gz")
    nib.save(nib.Nifti1Image(image, affine), root / "imagesTr/patient1_frame01_0000.nii.gz")
    nib.save(nib.Nifti1Image(label[1:], affine), root / "labelsTr/patient2_frame00.nii.gz")
    with pytest.raises(DataError) as caught:
        plan_dataset(root)
    assert [(problem.path, problem.kind, problem.value) for problem in caught.value.problems] == [
        ("case patient0_frame00", "values", "7"),
        ("case patient1_frame01", "finite", "13440 NaN or infinite voxels"),
        ("case patient2_frame00", "grid", "(47, 40, 6)"),
        ("case patient2_frame00", "values", "7"),
    ]


def test_what_deserves_a_look_is_told_beside_faulty_cases(tmp_path, caplog):
    root = tmp_path / "both"
    write_acdc_like(root)
    affine = np.diag([1.5, 1.5, 9.0, 1.0])
    nib.save(nib.Nifti1Image(np.zeros((48, 40, 6), np.uint8), affine), root / "labelsTr/patient0_frame00.nii.gz")
    nib.save(nib.Nifti1Image(np.full((48, 40, 6), 7, np.uint8), affine), root / "labelsTr/patient2_frame00.nii.gz")
    readers: tuple[Callable[[], object], ...] = (
        lambda: plan_dataset(root),
        lambda: read_checked(DataConfig(root=str(root)), progress=False),
    )
    for read in readers:
        caplog.clear()
        with pytest.raises(DataError, match=r"^case patient2_frame00 ") as caught:
            read()
        assert len(caught.value.sentences) == 1
        (told,) = caplog.messages
        assert told.startswith("case patient0_frame00 label patient0_frame00.nii.gz ")


def test_what_training_refuses_is_not_planned(tmp_path):
    root = tmp_path / "bare"
    write_acdc_like(root)
    (root / "labelsTr/patient1_frame01.nii.gz").unlink()
    with pytest.raises(DataError) as caught:
        plan_dataset(root)
    assert [problem.path for problem in caught.value.problems] == ["case patient1_frame01"]
    write_acdc_like(tmp_path / "one", 2)
    with pytest.raises(DataError, match=r"^the folds made: at least two patients with a label are needed, .*got 1; "):
        plan_dataset(tmp_path / "one", patient_pattern=r"(patient\d)")
    (tmp_path / "one/splits_final.json").write_text('[{"train": ["patient0_frame00"], "val": ["nobody"]}]')
    with pytest.raises(DataError, match="nobody"):
        plan_dataset(tmp_path / "one")


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
