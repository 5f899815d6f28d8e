"""A training does not depend on the variables that schedulers and launchers set."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import torch

from seg.config import ExperimentConfig, dump_config
from tests.forks import exit_code, forked

SCRIPT = Path(__file__).parents[2] / "scripts" / "train.py"
SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NAME": "seg",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_NTASKS_PER_NODE": "1",
}
TORCHRUN = {
    "RANK": "1",
    "LOCAL_RANK": "1",
    "GROUP_RANK": "1",
    "NODE_RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_WORLD_SIZE": "2",
    "TORCHELASTIC_RUN_ID": "7",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "1",
}


def train(config: ExperimentConfig, folder: Path, variables: dict[str, str]) -> tuple[Path, str]:
    """Trains in a folder that has a checkpoint of a pre-empted job; returns the run directory and the log.

    With variables the process is a fresh one, since libraries look at them as they are imported.
    """
    folder.mkdir()
    (folder / "config.yaml").write_text(dump_config(config))
    (folder / "hpc_ckpt_1.ckpt").write_bytes(b"another run")
    words = ("--config", "config.yaml", "--run_dir", "run")
    with contextlib.chdir(folder):
        if not variables:
            process = forked(SCRIPT, *words, said=folder / "said")
            assert exit_code(process, within=120) == 0, (folder / "said").read_text()
            return folder / "run", (folder / "said").read_text()
        command, environment = [sys.executable, str(SCRIPT), *words], os.environ | variables
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder / "run", done.stderr


def test_variables_of_a_cluster_change_nothing(short: ExperimentConfig, tmp_path: Path) -> None:
    expected, log = train(short, tmp_path / "plain", {})
    assert log
    weights = torch.load(expected / "checkpoints/weights.pt", weights_only=True)["network"]
    for name, variables in (("slurm", SLURM), ("torchrun", TORCHRUN)):
        run, other_log = train(short, tmp_path / name, variables)
        found = torch.load(run / "checkpoints/weights.pt", weights_only=True)["network"]
        assert all(torch.equal(found[key], value) for key, value in weights.items())
        assert sorted(path.name for path in run.iterdir()) == sorted(path.name for path in expected.iterdir())
        assert list((run / "tensorboard").iterdir())
        assert len(other_log.splitlines()) == len(log.splitlines())
