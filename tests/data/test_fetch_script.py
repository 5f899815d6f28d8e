"""The script that downloads: its exit codes and the weight of its help."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from seg.data.fetch import ARCHIVES

ROOT = Path(__file__).parents[2]


def script(*arguments):
    command = [sys.executable, "-X", "importtime", str(ROOT / "scripts/fetch.py"), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )


def test_the_script(tmp_path):
    (tmp_path / "Task04_Hippocampus").mkdir()
    (tmp_path / "Task04_Hippocampus/dataset.json").write_text("{}")
    done = script("hippocampus", "--root", str(tmp_path))
    assert (done.returncode, done.stdout) == (0, f"data set: {tmp_path}/Task04_Hippocampus\n")
    wrong = script("spleen")
    assert wrong.returncode == 2
    assert "got 'spleen'" in wrong.stderr
    (tmp_path / "file").write_text("")
    unwritable = script("hippocampus", "--root", str(tmp_path / "file"))
    assert unwritable.returncode == 2
    assert f"error: {tmp_path}/file: must be writable, got '" in unwritable.stderr


def test_help_is_light():
    done = script("--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in ARCHIVES)
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert not imported & {"torch", "monai", "nibabel", "numpy"}
