"""A small experiment on four cases, a run of it that was never trained, and a clock that counts what is computed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from seg.benchmark.subjects import Subject
from seg.config import (
    BottleneckConfig,
    DataConfig,
    ExperimentConfig,
    NetworkConfig,
    PatchConfig,
    TrainingConfig,
    dump_config,
)
from seg.runs import save_weights

CLASSES = ("background", "box")


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of four cases."""
    root = tmp_path_factory.mktemp("scans")
    cases = []
    for index in range(4):
        label = np.zeros((10, 9, 8), dtype=np.uint8)
        label[2:6, 2:6, index : index + 3] = 1
        image = (label + np.random.default_rng(index).normal(0, 1, label.shape)).astype(np.float32)
        for folder, array in (("imagesTr", image), ("labelsTr", label)):
            (root / folder).mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.eye(4)), root / folder / f"case_{index}.nii.gz")
        cases.append({"image": f"./imagesTr/case_{index}.nii.gz", "label": f"./labelsTr/case_{index}.nii.gz"})
    content = {
        "name": "scans",
        "modality": {"0": "MRI"},
        "labels": {str(index): name for index, name in enumerate(CLASSES)},
        "licence": "CC0",
        "training": cases,
    }
    (root / "dataset.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="session")
def experiment(scans: Path) -> ExperimentConfig:
    return ExperimentConfig(
        name="scans",
        data=DataConfig(root=str(scans), folds=2),
        patches=PatchConfig(size=(8, 8, 8), batch=3),
        network=NetworkConfig(channels=(4, 6), strides=((1, 1, 1), (2, 2, 2)), kernel_sizes=((3, 3, 3), (3, 3, 3))),
        training=TrainingConfig(precision="fp32", progress=False),
    )


@pytest.fixture(scope="session")
def subject(experiment: ExperimentConfig) -> Subject:
    return Subject(name="full", config=experiment, channel_names=("MRI",), class_names=CLASSES)


@pytest.fixture(scope="session")
def narrow(subject: Subject) -> Subject:
    network = replace(subject.config.network, skip_bottleneck=BottleneckConfig(ratio=0.5))
    return replace(subject, name="narrow", config=replace(subject.config, network=network))


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[[Subject, str], Path]:
    """Gives a function that leaves what prediction needs of a run."""

    def write(subject: Subject, name: str) -> Path:
        run_dir = tmp_path / name
        run_dir.mkdir(parents=True)
        (run_dir / "config.yaml").write_text(dump_config(subject.config))
        model = {"schema_version": 1, "channel_names": subject.channel_names, "class_names": subject.class_names}
        (run_dir / "model.json").write_text(json.dumps(model))
        save_weights(subject.network(), run_dir, channel_names=subject.channel_names, class_names=subject.class_names)
        return run_dir

    return write
