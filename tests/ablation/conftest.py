"""A data set, an experiment that trains in a second, studies of it, and functions that other processes can call."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from seg.ablation.study import Study, Trial, Variant, trials_of
from seg.config import (
    BottleneckConfig,
    DataConfig,
    ExperimentConfig,
    NetworkConfig,
    OptimizerConfig,
    PatchConfig,
    TrainingConfig,
)
from seg.config.study import StudyConfig

JOBS = """
import multiprocessing, os, signal, sys, time
from pathlib import Path


def write(path, text="done"):
    Path(path).write_text(text)


def fail(message):
    raise ValueError(message)


def fail_first(path):
    if not Path(path).exists():
        Path(path).touch()
        raise ValueError("the first time")


def die_first(path):
    if not Path(path).exists():
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def describe(path):
    names = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
    Path(path).write_text("|".join(str(os.environ.get(name)) for name in names) + f"|{'torch' in sys.modules}")


def sleep(path, seconds=60):
    Path(path).write_text(str(os.getpid()))
    time.sleep(seconds)


def lock():
    global KEPT
    KEPT = multiprocessing.get_context("spawn").RLock()
"""


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "ablation_jobs.py").write_text(JOBS)
    monkeypatch.syspath_prepend(str(folder))
    # Processes that are no children of multiprocessing look here.
    monkeypatch.setenv("PYTHONPATH", str(folder))
    yield importlib.import_module("ablation_jobs")
    sys.modules.pop("ablation_jobs", None)


@pytest.fixture(scope="session")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of six cases with a box and its corner."""
    root = tmp_path_factory.mktemp("data") / "boxes"
    cases = []
    for index in range(6):
        rng = np.random.default_rng(index)
        label = np.zeros((12, 14, 10), dtype=np.uint8)
        x, y = rng.integers(2, 5, 2)
        label[x : x + 5, y : y + 5, 3:8] = 1
        label[x : x + 2, y : y + 2, 4:6] = 2
        image = (label * 3 + rng.normal(0, 1, label.shape)).astype(np.float32)
        for folder, array in (("imagesTr", image), ("labelsTr", label)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.eye(4)), root / folder / f"case_{index}.nii.gz")
        cases.append({"image": f"./imagesTr/case_{index}.nii.gz", "label": f"./labelsTr/case_{index}.nii.gz"})
    content = {
        "name": "boxes",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "box", "2": "corner"},
        "licence": "CC0",
        "numTraining": len(cases),
        "training": cases,
    }
    (root / "dataset.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="session")
def experiment(boxes: Path) -> ExperimentConfig:
    """Two steps of a network of two stages."""
    return ExperimentConfig(
        name="boxes",
        data=DataConfig(root=str(boxes), folds=2),
        patches=PatchConfig(size=(8, 8, 8), batch=2),
        network=NetworkConfig(channels=(4, 8), strides=((1, 1, 1), (2, 2, 2)), kernel_sizes=((3, 3, 3), (3, 3, 3))),
        optimizer=OptimizerConfig(warmup_steps=1),
        training=TrainingConfig(steps=2, validate_every=1, precision="fp32", device="cpu", progress=False),
    )


@pytest.fixture(scope="session")
def make_study(experiment: ExperimentConfig) -> Callable[..., Study]:
    """Gives a function that makes a study of the experiment and of a narrower one."""

    def make(seeds: tuple[int, ...] = (0,), steps: int = 2, **fields: Any) -> Study:
        base = replace(experiment, training=replace(experiment.training, steps=steps))
        narrow = replace(base, network=replace(base.network, skip_bottleneck=BottleneckConfig(ratio=0.5)))
        variants = (
            Variant(name="baseline", changes={}, config=base),
            Variant(name="skip_1-2", changes={"network.skip_bottleneck.ratio": 0.5}, config=narrow),
        )
        config = StudyConfig(name="boxes", base="boxes.yaml", seeds=seeds, **fields)
        return Study(config=config, command="", variants=variants, trials=trials_of(config, variants))

    return make


@pytest.fixture(scope="session")
def store() -> Callable[..., None]:
    """Gives a function that stores results of a trial that was never run."""
    from seg.ablation.store import TrialRecord  # not above: torch would begin before its threads are set
    from seg.ablation.trials import fingerprint, without_folders
    from seg.config import dump_config

    def store(study_dir: Path, trial: Trial, **values: Any) -> None:
        about = {"variant": trial.variant.name, "fold": trial.fold, "seed": trial.seed, "status": "finished"}
        record = TrialRecord.model_validate({**fingerprint(trial.config).model_dump(), **about, **values})
        folder = study_dir / "trials" / trial.id
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "trial.json").write_text(json.dumps(record.content()))
        (folder / "config.yaml").write_text(dump_config(without_folders(trial.config)))
        (folder / "cases.csv").write_text("case_id,class_index,dice\na,1,0.5\nb,1,0.7\nb,2,nan\n")

    return store
