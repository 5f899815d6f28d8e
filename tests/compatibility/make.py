"""Make the stored files of this folder with an earlier version of the project; see README.md.

python tests/compatibility/make.py CHECKOUT PYTHON FOLDER
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import yaml

# Ends the process without a word after the second validation, as a kill from outside would.
KILLED = """
import os, runpy, signal, sys
from seg import callbacks
written = callbacks.Checkpoints.on_train_epoch_end
def write_and_die(self, trainer, module):
    written(self, trainer, module)
    if trainer.global_step == 4:
        os.kill(os.getpid(), signal.SIGKILL)
callbacks.Checkpoints.on_train_epoch_end = write_and_die
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
EXPERIMENT = {
    "schema_version": 1,
    "name": "tiny",
    "data": {"root": "data", "folds": 2, "workers": 0},
    "patches": {"size": [16, 16, 16]},
    "network": {
        "name": "unet",
        "channels": [4, 8],
        "strides": [[1, 1, 1], [2, 2, 2]],
        "kernel_sizes": [[3, 3, 3], [3, 3, 3]],
        "skip_bottleneck": {"ratio": 0.5, "activation": "leaky_relu"},
        "upsample": "linear",
    },
    "optimizer": {"name": "muon", "momentum": 0.9, "learning_rate": 0.02, "warmup_steps": 2},
    "training": {
        "steps": 6, "validate_every": 2, "ema_decay": 0.9, "device": "cpu", "precision": "fp32", "progress": False,
    },
}  # fmt: skip
STUDY = {
    "schema_version": 1,
    "name": "tiny",
    "base": "experiment.yaml",
    "baseline": {"name": "baseline", "set": {"network.skip_bottleneck": None}},
    "design": "sweep",
    "axes": [{"path": "network.skip_bottleneck.ratio", "label": "skip", "values": [0.5, 0.25]}],
    "folds": [0],
    "seeds": [0],
    "margin": 0.005,
    "reuse": "any_code",
    "launch": {"backend": "process", "workers": 1, "retries": 0},
    "speed": {"rounds": 3, "warmup": 1},
}


def main() -> None:
    """Writes every fixture below the folder that the command line names."""
    checkout, python, folder = (Path(argument).absolute() for argument in sys.argv[1:])

    def call(*arguments: str, killed: bool = False) -> None:
        start = [python, "-c", KILLED] if killed else [python]
        environment = os.environ | {"PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"}
        script = str(checkout / "scripts" / f"{arguments[0]}.py")
        code = subprocess.run([*start, script, *arguments[1:]], cwd=folder, env=environment, check=False).returncode
        assert code == (-9 if killed else 0)

    write_data(folder / "data")
    (folder / "experiment.yaml").write_text(yaml.safe_dump(EXPERIMENT, sort_keys=False))
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    call("train", "--config", "experiment.yaml", "--run_dir", "killed", killed=True)
    call("train", "--config", "experiment.yaml", "--run_dir", "finished")
    call("predict", "--run_dir", "finished", "--input", "data/imagesTr", "--output", "predicted", "--device", "cpu")
    call("ablate", "--config", "study.yaml", "--ablation_dir", "study", "--runs", "runs")
    shutil.rmtree(folder / "runs")
    for name in ("cache", "tensorboard"):
        for path in folder.rglob(name):
            shutil.rmtree(path)
    patterns = ("finished/checkpoints/*.ckpt", "killed/checkpoints/best.ckpt", "**/*.png", "**/*.html", "study/figures")
    for pattern in patterns:
        for path in folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_data(root: Path) -> None:
    """Writes five scans of two nested balls in nnU-Net's layout."""
    random = np.random.default_rng(0)
    for name in ("imagesTr", "labelsTr"):
        (root / name).mkdir(parents=True)
    axes = np.stack(np.meshgrid(*(np.arange(size) for size in (24, 22, 20)), indexing="ij"))
    for index in range(5):
        centre = random.uniform(8, 12, 3)[:, None, None, None]
        distance = np.sqrt(((axes - centre) ** 2).sum(0))
        label = ((distance < 7).astype(np.uint8) + (distance < 4)).astype(np.uint8)
        image = (40 * label + random.integers(0, 16, label.shape)).astype(np.uint8)
        affine = np.diag((-1.0, -1.0, 1.5, 1.0))
        nibabel.save(nibabel.Nifti1Image(image, affine), root / "imagesTr" / f"ball_{index}_0000.nii.gz")
        nibabel.save(nibabel.Nifti1Image(label, affine), root / "labelsTr" / f"ball_{index}.nii.gz")
    description = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "shell": 1, "core": 2},
        "numTraining": 5,
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(description, indent=2) + "\n")


if __name__ == "__main__":
    main()
