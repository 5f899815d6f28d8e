"""Run directories of untrained networks, and scans for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from seg.config import DataConfig, ExperimentConfig, NetworkConfig, PatchConfig, TrainingConfig, dump_config
from seg.networks import network_from_config
from seg.networks.blocks import initialise
from seg.runs import save_weights

CONFIG = ExperimentConfig(
    name="tiny",
    data=DataConfig(root="nowhere"),
    patches=PatchConfig(size=(8, 8, 8)),
    network=NetworkConfig(channels=(4, 8), strides=((1, 1, 1), (2, 2, 2)), kernel_sizes=((3, 3, 3), (3, 3, 3))),
    training=TrainingConfig(precision="fp32", progress=False),
)


def write_run(
    folder: Path,
    *,
    config: ExperimentConfig = CONFIG,
    channels: tuple[str, ...] = ("MRI",),
    classes: tuple[str, ...] = ("background", "left", "right"),
    seed: int = 0,
    verdict: str | None = None,
) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(dump_config(replace(config, seed=seed)))
    description: dict[str, object] = {
        "schema_version": 1,
        "channel_names": list(channels),
        "class_names": list(classes),
    }
    if verdict is not None:
        description["certificate"] = {"verdict": verdict}
    (folder / "model.json").write_text(json.dumps(description))
    network = network_from_config(config.network, len(channels), len(classes))
    initialise(network, seed)
    with torch.no_grad():  # without which an untrained head may give one class alone
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)) * 0.1)
    save_weights(network, folder, channel_names=channels, class_names=classes)
    return folder


@pytest.fixture(scope="session")
def tiny_config() -> ExperimentConfig:
    return CONFIG


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    def make(name: str = "run", **changes: object) -> Path:
        return write_run(tmp_path / name, **changes)  # type: ignore[arg-type]

    return make


@pytest.fixture
def write_scan() -> Callable[..., Path]:
    def write(path: Path, *, seed: int = 0, shape: tuple[int, ...] = (12, 10, 9), affine: object = None) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        array = np.random.default_rng(seed).normal(0, 100, shape).astype(np.int16)
        nib.save(nib.Nifti1Image(array, np.diag([1.0, 2.0, 1.5, 1.0]) if affine is None else affine), path)
        return path

    return write


@pytest.fixture
def scans(write_scan: Callable[..., Path], tmp_path: Path) -> Path:
    for number in range(3):
        write_scan(tmp_path / "in" / f"scan_{number}.nii.gz", seed=number)
    return tmp_path / "in"
