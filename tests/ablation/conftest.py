"""Functions that other processes can import and call."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

JOBS = """
import os, signal, sys, time
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
