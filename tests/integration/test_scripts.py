"""The commands as a user types them: exit codes, sentences, and what they leave behind."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.forks import exit_code, forked

SCRIPT = Path(__file__).parents[2] / "scripts" / "train.py"
SHORT = ("--training.steps", 2, "--training.validate_every", 1)
Script = Callable[..., Any]


def half_written(run_dir: Path) -> list[str]:
    """Files that a writer leaves behind when it is stopped midway."""
    return [path.name for path in run_dir.rglob("*") if path.name.startswith(".") or path.suffix == ".partial"]


def test_faulty_cases_stop_with_2_and_are_left_out_with_1(
    script: Script, tiny_file: Path, write_dataset: Callable[[Path], Path]
) -> None:
    root = write_dataset(tiny_file.parent / "broken")
    for case in ("case_1", "case_4"):
        path = root / "imagesTr" / f"{case}.nii.gz"
        path.write_bytes(path.read_bytes()[:500])
    run_dir = tiny_file.parent / "run"
    argv = ("--config", tiny_file, "--run_dir", run_dir, "--data.root", root, *SHORT)
    stopped = script("train", *argv)
    assert stopped.code == 2
    assert [line.split()[1:3] for line in stopped.err.splitlines()] == [["case", "case_1"], ["case", "case_4"]]
    assert not run_dir.exists()
    done = script("train", *argv, "--data.on_error", "skip")
    assert done.code == 1
    assert "warning: left out: case case_1 " in done.err
    assert "warning: left out: case case_4 " in done.err
    assert f"run directory: {run_dir}\n" in done.out
    scored = {row.split(",")[0] for row in (run_dir / "cases.csv").read_text().splitlines()[1:]}
    assert scored < {"case_0", "case_2", "case_3", "case_5"}
    again = script("evaluate", "--run_dir", run_dir, "--output", tiny_file.parent / "again")
    assert again.code == 1
    assert all(f"warning: left out: case {name} " in again.err for name in ("case_1", "case_4"))


def test_what_cannot_be_begun_ends_with_2_and_a_sentence(script: Script, tiny_file: Path) -> None:
    folder = tiny_file.parent
    assert script("train", "--config", tiny_file, "--fold", 7).err.startswith("error: fold ")
    (folder / "old").mkdir()
    shutil.copy(tiny_file, folder / "old" / "config.yaml")
    (folder / "file").write_text("")
    (folder / "thesis").mkdir()
    (folder / "thesis" / "chapter.txt").write_text("mine")
    for run_dir in ("old", "file/run", "thesis"):
        ended = script("train", "--config", tiny_file, "--run_dir", folder / run_dir)
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.splitlines()[-1].startswith(f"error: {folder / run_dir}")
    assert (folder / "thesis" / "chapter.txt").read_text() == "mine"


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Lets no file grow beyond a size in bytes: writing fails as on a full disk, midway."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_ends_with_2_and_the_run_goes_on_where_there_is_room(script: Script, tiny_file: Path) -> None:
    run_dir = tiny_file.parent / "run"
    argv = ("--config", tiny_file, "--run_dir", run_dir, "--resume", *SHORT)
    # First the record of what the run began with, then a checkpoint is larger than what there is room for.
    for size, file in ((1_000, "environment.json"), (16_000, "checkpoints/last.ckpt")):
        with files_of_at_most(size):
            ended = script("train", *argv)
        assert ended.code == 2, ended.err
        assert ended.err.splitlines()[-1].startswith(f"error: {run_dir / file} ")
        assert os.strerror(errno.EFBIG) in ended.err
        assert half_written(run_dir) == []
        assert not (run_dir / "evaluation.json").exists()
    assert script("train", *argv).code == 0
    assert (run_dir / "evaluation.json").exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_whole_files_from_which_the_run_goes_on(
    script: Script, tiny_file: Path, how: signal.Signals
) -> None:
    run_dir = tiny_file.parent / "run"
    last = run_dir / "checkpoints" / "last.ckpt"
    argv = ("--config", tiny_file, "--run_dir", run_dir)
    long = ("--training.steps", 90, "--training.validate_every", 15)
    process = forked(SCRIPT, *argv, *long, said=run_dir.with_name("said"))
    deadline = time.monotonic() + 240
    while not last.exists() and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.pid is not None
    os.kill(process.pid, how)
    code, said = exit_code(process, within=240), run_dir.with_name("said").read_text()
    assert code == 130, said
    assert "Traceback" not in said
    assert not (run_dir / "evaluation.json").exists()
    assert half_written(run_dir) == []
    step = torch.load(last, weights_only=True)["global_step"]
    assert step % 15 == 0
    assert script("train", "--resume", "--run_dir", run_dir).code == 0
    rows = (run_dir / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", *(str(float(n)) for n in range(15, 105, 15))]
    assert json.loads((run_dir / "evaluation.json").read_text())["num_cases"] == 3
