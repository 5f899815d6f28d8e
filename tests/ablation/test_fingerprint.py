"""A fingerprint changes with what decides weights and predictions, and with nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from seg.ablation import trials as module
from seg.ablation.trials import config_digest, data_digest
from seg.config import BottleneckConfig, DataConfig, ExperimentConfig
from seg.errors import RunError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    cases = []
    for index in range(4):
        for kind, value in (("imagesTr", index), ("labelsTr", index % 2)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            array = np.full((3, 3, 3), value, dtype=np.uint8)
            nib.save(nib.Nifti1Image(array, np.eye(4)), folder / kind / f"case_{index}.nii.gz")
        cases.append({"image": f"./imagesTr/case_{index}.nii.gz", "label": f"./labelsTr/case_{index}.nii.gz"})
    names = {"0": "background", "1": "box"}
    content = {"name": "t", "modality": {"0": "MRI"}, "labels": names, "numTraining": 4, "training": cases}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def config(root: Path) -> ExperimentConfig:
    return ExperimentConfig(data=DataConfig(root=str(root), folds=2))


def changed(config: ExperimentConfig, section: str, **values: Any) -> ExperimentConfig:
    return replace(config, **{section: replace(getattr(config, section), **values)})


def forget() -> None:
    """Makes this process read files again, as a new one would."""
    module._files.cache_clear()
    module._splits.cache_clear()


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("data", {"root": "elsewhere"}),
        ("data", {"cache": "disk"}),
        ("data", {"cache_dir": "somewhere"}),
        ("data", {"workers": 3}),
        ("training", {"progress": False}),
    ],
)
def test_where_and_how_a_trial_is_computed_does_not_change_its_configuration(
    config: ExperimentConfig, section: str, values: dict[str, Any]
) -> None:
    assert config_digest(changed(config, section, **values)) == config_digest(config)


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("network", {"skip_bottleneck": BottleneckConfig(ratio=0.25)}),
        ("network", {"channels": (8, 16, 32, 64)}),
        ("training", {"steps": 2001}),
        ("data", {"spacing_mm": (1.0, 1.0, 1.0)}),
        ("optimizer", {"learning_rate": 0.004}),
        ("augmentation", {"intensity": replace(ExperimentConfig().augmentation.intensity, noise_std=0.2)}),
    ],
)
def test_what_decides_weights_changes_it(config: ExperimentConfig, section: str, values: dict[str, Any]) -> None:
    assert config_digest(changed(config, section, **values)) != config_digest(config)


def test_seed_and_fold_change_it(config: ExperimentConfig) -> None:
    digests = {config_digest(replace(config, seed=seed, fold=fold)) for seed in (0, 1) for fold in (0, 1)}
    assert len(digests) == 4


def test_a_data_set_is_its_files_wherever_it_lies(config: ExperimentConfig, root: Path) -> None:
    before = data_digest(config)
    moved = root.rename(root.with_name("moved"))
    config = changed(config, "data", root=str(moved))
    assert data_digest(config) == before
    image = moved / "imagesTr" / "case_0.nii.gz"
    nib.save(nib.Nifti1Image(np.full((3, 3, 3), 9, dtype=np.uint8), np.eye(4)), image)
    forget()
    assert data_digest(config) != before


def test_the_sides_of_the_fold_belong_to_the_data(config: ExperimentConfig, root: Path) -> None:
    before = data_digest(config)
    assert data_digest(replace(config, fold=1)) != before
    assert data_digest(changed(config, "data", split_seed=5)) != before
    assert data_digest(changed(config, "data", train_cases=1)) != before
    ids = [f"case_{index}" for index in range(4)]
    splits = root.parent / "few.json"
    splits.write_text(json.dumps([{"train": ids[:1], "val": ids[1:]}]))
    assert data_digest(changed(config, "data", splits=str(splits))) != before


def test_the_meaning_of_labels_belongs_to_the_data(config: ExperimentConfig, root: Path) -> None:
    before = data_digest(config)
    path = root / "dataset.json"
    path.write_text(path.read_text().replace('"box"', '"ball"'))
    forget()
    assert data_digest(config) != before


def test_a_fold_that_does_not_exist_is_refused(config: ExperimentConfig, root: Path) -> None:
    with pytest.raises(RunError) as error:
        data_digest(replace(config, fold=2))
    (problem,) = error.value.problems
    assert (problem.path, problem.kind, problem.value) == (str(root), "range", "2")
