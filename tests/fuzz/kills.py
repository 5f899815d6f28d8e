"""Kill trainings and a study at random moments, and compare what they end with to runs that nobody killed.

python -m tests.fuzz.kills [--kills 20] [--seed 0] [--only KIND ...]
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import nibabel as nib
import numpy as np
import torch

STORED = Path(__file__).parents[1] / "compatibility"
CONFIG = STORED / "experiment.yaml"
STUDY = STORED / "study.yaml"
SECONDS = 600.0
"""How long a run may take that nobody kills."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A command that is killed; it takes its directory and goes on where a killed one stopped."""

    name: str
    arguments: tuple[str, ...]
    directory: str


TRAIN = ("train", "--config", "experiment.yaml", "--training.steps", "12", "--training.validate_every", "3", "--resume")
KINDS = (
    Kind(name="training", arguments=(*TRAIN, "--fold", "0"), directory="--run_dir"),
    Kind(
        name="training, workers, disk cache",
        arguments=(*TRAIN, "--fold", "0", "--data.workers", "2", "--data.cache", "disk"),
        directory="--run_dir",
    ),
    Kind(name="training, all folds", arguments=(*TRAIN, "--fold", "all"), directory="--run_dir"),
    Kind(name="study", arguments=("ablate", "--config", "study.yaml"), directory="--ablation_dir"),
)


def prepare(work: Path) -> None:
    """Lays data, experiment and study into a folder."""
    shutil.copytree(STORED / "data", work / "data")
    for path in (CONFIG, STUDY):
        shutil.copy(path, work / path.name)


def start(
    kind: Kind, work: Path, directory: Path, printed: int | IO[bytes] = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Starts the command in a process group of its own."""
    code = "import sys; from seg.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *kind.arguments, kind.directory, str(directory)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=work, stdout=printed, stderr=printed, env=environment, start_new_session=True)


def results(directory: Path) -> dict[str, object]:
    """Reads what must be the same bit for bit: weights, label maps, and tables without columns of time."""
    found: dict[str, object] = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if path.name == "weights.pt":
            state = torch.load(path, weights_only=True)["network"]
            found |= {f"{name}: {key}": value.numpy().tobytes() for key, value in state.items()}
        elif path.name.endswith(".nii.gz"):
            found[name] = np.asanyarray(nib.load(path).dataobj).tobytes()
        elif path.name in ("metrics.csv", "cases.csv"):
            with path.open(newline="") as file:
                found[name] = [
                    {key: cell for key, cell in row.items() if key != "seconds"} for row in csv.DictReader(file)
                ]
    return found


def different(one: dict[str, object], other: dict[str, object]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def check(kind: Kind, kills: int, chance: random.Random, work: Path) -> list[str]:
    """Kills a command many times; returns what differs in the end, or how an unkilled run failed."""
    began = time.monotonic()
    if code := start(kind, work, work / "whole").wait(SECONDS):
        return [f"the run that nobody killed ended with {code}"]
    duration = time.monotonic() - began
    expected = results(work / "whole")
    assert expected, "an unkilled run leaves weights and tables"
    faults: list[str] = []
    done, number = 0, 0
    while done < kills:
        directory = work / f"killed_{number}"
        number += 1
        while done < kills:
            process = start(kind, work, directory)
            try:
                code = process.wait(chance.uniform(0.3, 1.0) * duration)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                done += 1
                continue
            if code:
                return [*faults, f"after kill {done} the run ended with {code}"]
            break
        if code := start(kind, work, directory).wait(SECONDS):
            return [*faults, f"the last run ended with {code}"]
        faults += [f"{directory.name}: {name}" for name in different(expected, results(directory))]
        faults += [f"{path.name} was left" for path in directory.rglob(".*") if path.is_file()]
        shutil.rmtree(directory)
    return faults


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="kills of each kind of command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=[kind.name for kind in KINDS])
    options = parser.parse_args(arguments)
    failed = False
    for kind in KINDS:
        if options.only and kind.name not in options.only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            prepare(work)
            faults = check(kind, options.kills, random.Random(f"{options.seed} {kind.name}"), work)
        print(f"{kind.name}: {options.kills} kills, {len(faults)} differences", *faults[:20], sep="\n  ", flush=True)
        failed |= bool(faults)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
