"""The real command, as a user starts, stops and repeats it."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from seg.config import ExperimentConfig
from seg.workflows.train import train

ROOT = Path(__file__).parents[2]
UNWANTED = ("pytorch_lightning", "monai", "matplotlib", "scipy.ndimage", "tensorboard")
# A job in the background of a shell ignores interrupts, and so would its children.
HEED_INTERRUPTS = ("env", "--default-signal=INT")
CASES = 60


@pytest.fixture(scope="module")
def run_dir(tiny: ExperimentConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    scored_as_predicted = replace(tiny.postprocessing, largest_component=())
    short = replace(tiny.training, steps=2, validate_every=2)
    train(replace(tiny, training=short, postprocessing=scored_as_predicted), run_dir=folder, folds=(0,))
    return folder


def command(run_dir: Path, input_path: Path, output: Path, *options: str) -> list[str]:
    script = str(ROOT / "scripts" / "predict.py")
    paths = ["--run_dir", str(run_dir), "--input", str(input_path), "--output", str(output)]
    return [sys.executable, script, *paths, "--device", "cpu", *options]


def test_predictions_are_those_that_were_scored_and_need_no_training_package(
    run_dir: Path, tiny_root: Path, tmp_path: Path
) -> None:
    scored = sorted((run_dir / "predictions").iterdir())
    (tmp_path / "list.txt").write_text("\n".join(str(tiny_root / "imagesTr" / path.name) for path in scored))
    argv = command(run_dir, tmp_path / "list.txt", tmp_path / "out")[1:]
    probe = (
        "import runpy, sys\n"
        f"sys.argv = {argv!r}\n"
        "try:\n"
        "    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0\n"
        f"print('loaded:', [name for name in {UNWANTED} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded: []"
    assert re.findall(r"\d+", done.stdout.splitlines()[0]) == ["3", "0", "0", "3"]  # done, failed, skipped, all
    for path in scored:
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def whole_files(folder: Path) -> list[str]:
    paths = sorted(path for path in folder.glob("[!.]*") if path.name.endswith(".nii.gz"))
    for path in paths:
        assert np.asarray(nib.load(path).dataobj).shape == (12, 14, 10)
    return [path.name for path in paths]


def start_and_stop(argv: list[str], folder: Path, number: int, how: signal.Signals) -> subprocess.CompletedProcess[str]:
    """Starts a command and stops it once there are so many results."""
    with subprocess.Popen(
        [*HEED_INTERRUPTS, *argv], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if folder.is_dir() and len(list(folder.glob("[!.]*.nii.gz"))) >= number:
                process.send_signal(how)
                break
            time.sleep(0.002)
        out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(argv, process.returncode, out, err)


def test_a_stopped_run_leaves_whole_files_and_goes_on(run_dir: Path, tiny_root: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(CASES):
        shutil.copy(tiny_root / "imagesTr" / "case_0.nii.gz", tmp_path / "in" / f"case_{number:03d}.nii.gz")
    out = tmp_path / "out"
    argv = command(run_dir, tmp_path / "in", out, "--skip_existing")
    ended = start_and_stop(argv, out, 1, signal.SIGTERM)
    assert ended.returncode == 130, ended.stderr
    assert "Traceback" not in ended.stderr
    killed = start_and_stop(argv, out, len(whole_files(out)) + 2, signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    before = whole_files(out)
    assert 3 <= len(before) < CASES
    interrupted = start_and_stop(argv, out, len(before) + 3, signal.SIGINT)
    assert interrupted.returncode == 130, interrupted.stderr
    after = whole_files(out)
    assert len(before) + 3 <= len(after) < CASES
    manifest = json.loads((out / "predictions.json").read_text())
    assert manifest["complete"] is False
    assert [case["output"] for case in manifest["cases"]] == after
    finished = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    counts = [int(count) for count in re.findall(r"\d+", finished.stdout.splitlines()[0])]
    assert counts == [CASES - len(after), 0, len(after), CASES]
    assert len(whole_files(out)) == CASES
    assert json.loads((out / "predictions.json").read_text())["complete"] is True


def test_wrong_use_ends_with_sentences_and_code_2(run_dir: Path, tiny_root: Path, tmp_path: Path) -> None:
    images = tiny_root / "imagesTr"
    done = subprocess.run(command(run_dir, images, images), cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --output ")
    assert str(images) in done.stderr
