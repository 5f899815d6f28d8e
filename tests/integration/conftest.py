"""A tiny data set and a tiny experiment that trains on it in seconds."""

from __future__ import annotations

import json
import logging
import runpy
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
import pytest

from seg.compression import compress
from seg.compression.speed import Latency
from seg.config import (
    BottleneckConfig,
    DataConfig,
    ExperimentConfig,
    NetworkConfig,
    OptimizerConfig,
    PatchConfig,
    TrainingConfig,
    dump_config,
)

SHAPE = (12, 14, 10)
SCRIPTS = Path(__file__).parents[2] / "scripts"


def write_case(root: Path, name: str, seed: int) -> dict[str, str]:
    rng = np.random.default_rng(seed)
    label = np.zeros(SHAPE, dtype=np.uint8)
    x, y = rng.integers(2, 5, 2)
    label[x : x + 5, y : y + 5, 3:8] = 1
    label[x : x + 2, y : y + 2, 4:6] = 2
    image = (label * 3 + rng.normal(0, 1, SHAPE)).astype(np.float32)
    for folder, array in (("imagesTr", image), ("labelsTr", label)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, np.eye(4)), root / folder / f"{name}.nii.gz")
    return {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}


@pytest.fixture(scope="session")
def write_dataset() -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        cases = [write_case(root, f"case_{index}", index) for index in range(6)]
        description = {
            "name": "tiny",
            "modality": {"0": "MRI"},
            "labels": {"0": "background", "1": "box", "2": "corner"},
            "licence": "CC0",
            "numTraining": len(cases),
            "training": cases,
        }
        (root / "dataset.json").write_text(json.dumps(description))
        return root

    return write


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory, write_dataset: Callable[[Path], Path]) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture(scope="session")
def tiny(tiny_root: Path) -> ExperimentConfig:
    return ExperimentConfig(
        name="tiny",
        data=DataConfig(root=str(tiny_root), folds=2),
        patches=PatchConfig(size=(8, 8, 8), batch=2),
        network=NetworkConfig(
            channels=(4, 8),
            strides=((1, 1, 1), (2, 2, 2)),
            kernel_sizes=((3, 3, 3), (3, 3, 3)),
            skip_bottleneck=BottleneckConfig(ratio=0.5),
        ),
        optimizer=OptimizerConfig(warmup_steps=1),
        training=TrainingConfig(steps=6, validate_every=2, precision="fp32", progress=False),
    )


@pytest.fixture
def other() -> Callable[..., ExperimentConfig]:
    def change(config: ExperimentConfig, section: str, **values: object) -> ExperimentConfig:
        return replace(config, **{section: replace(getattr(config, section), **values)})

    return change


@pytest.fixture
def tiny_file(tiny: ExperimentConfig, tmp_path: Path) -> Path:
    """The tiny experiment as a file."""
    path = tmp_path / "tiny.yaml"
    path.write_text(dump_config(tiny))
    return path


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a script ended, and what it said."""

    code: object
    out: str
    err: str


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Gives the function that runs a script as the command line does, in this process."""
    # run() sends announcements to the stderr of the day; they go back to nobody afterwards.
    monkeypatch.setattr(logging.getLogger("seg"), "handlers", [])

    def execute(name: str, *argv: object) -> Ended:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, argv)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
        said = capsys.readouterr()
        return Ended(code=ended.value.code, out=said.out, err=said.err)

    return execute


def write_patients(root: Path, patients: Mapping[str, str]) -> None:
    """Writes the table of a data set that names the patient of each case."""
    (root / "patients.csv").write_text("\n".join(["case,patient", *map(",".join, patients.items()), ""]))


def name_patients(root: Path, run_dir: Path) -> None:
    """Gives each two cases on one side of a run one patient, in the table of its data set."""
    sides = json.loads((run_dir / "environment.json").read_text())["split"]
    write_patients(
        root, {case: f"{side}_{place // 2}" for side, cases in sides.items() for place, case in enumerate(cases)}
    )


def tell_costs(monkeypatch: pytest.MonkeyPatch, module: ModuleType = compress) -> None:
    """Replaces what a command measures of time and memory by fixed numbers, as measuring takes seconds."""
    latency = Latency(ms=1.0, ratio=0.9, q1=0.9, q3=0.9)
    monkeypatch.setattr(module, "measure_latency", lambda networks, *_, **__: dict.fromkeys(networks, latency))
    monkeypatch.setattr(module, "measure_memory", lambda networks, *_, **__: dict.fromkeys(networks, 1.0))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves pictures and pages of scored cases out, for tests that look at neither."""
    for name in ("draw_predictions", "write_page"):
        monkeypatch.setattr(f"seg.workflows.evaluate.{name}", lambda *_: None)


@pytest.fixture(scope="session")
def short(tiny: ExperimentConfig) -> ExperimentConfig:
    return replace(tiny, training=replace(tiny.training, steps=2, validate_every=1))


@pytest.fixture(scope="session")
def trained(short: ExperimentConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, to be read alone."""
    from seg.workflows.train import train  # not above: torch would begin before its threads are set

    run_dir = tmp_path_factory.mktemp("trained") / "run"
    train(short, run_dir=run_dir, folds=(0,))
    return run_dir
