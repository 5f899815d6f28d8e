"""Engines send nothing to their makers: in a process that is neither pytest nor a CI job, where they would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from seg.workflows.export import export
from tests.inference.conftest import write_run

for package in ("openvino", "onnxruntime", "onnxscript"):
    pytest.importorskip(package, reason="needs the extra export")
ROOT = Path(__file__).parents[2]
WATCH = """
import os, sys, time
seen = os.open("SEEN", os.O_WRONLY | os.O_CREAT | os.O_APPEND)  # processes that are forked write there too

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "urllib.Request"):
        os.write(seen, f"{event} {arguments[-1]!r}\\n".encode())
        raise OSError("no network here")

sys.addaudithook(watch)
"""
COMMAND = """
from seg.cli import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    assert ended.code == 0, ended.code
"""
END = """
time.sleep(2)  # senders have threads and processes of their own
"""


def watched(code: str, home: Path, *words: object, before: tuple[str, ...] = ()) -> list[str]:
    """Runs code in a process of a clean environment that cannot connect, and returns what it tried."""
    home.mkdir()
    seen = home.with_name(f"{home.name}.seen")
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "OMP_NUM_THREADS": "1"}
    command = [*before, sys.executable, "-c", WATCH.replace("SEEN", str(seen)) + code + END, *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return seen.read_text().splitlines()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(write_run(tmp_path_factory.mktemp("exported") / "run"), format="onnx")


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_a_prediction_connects_to_nothing_and_leaves_no_id(
    engine: str, exported: Path, scans: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    words = ("predict", "--run_dir", exported, "--engine", engine, "--input", scans, "--output", tmp_path / "out")
    assert watched(COMMAND, home, *words) == []
    assert list(home.iterdir()) == []  # an id of the machine, or a store of events


def test_an_export_connects_to_nothing(make_run: Callable[..., Path], tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert watched(COMMAND, home, "export", "--run_dir", make_run(), "--format", "openvino") == []
    assert [path for path in home.rglob("*") if "onnxruntime" in path.name or "intel" in path.name] == []


def test_no_library_connects_by_itself(exported: Path, scans: Path, tmp_path: Path) -> None:
    strace = ("strace", "-f", "-qq", "-e", "trace=connect", "-o", str(tmp_path / "calls"))
    if shutil.which("strace") is None or subprocess.run([*strace, "true"], check=False).returncode:
        pytest.skip("needs strace, and leave to trace")
    words = ("predict", "--run_dir", exported, "--engine", "auto", "--input", scans, "--output", tmp_path / "out")
    assert watched(COMMAND, tmp_path / "home", *words, before=strace) == []
    assert "AF_INET" not in (tmp_path / "calls").read_text()


def test_the_watch_sees_what_openvino_does_unless_it_is_kept_from_it(tmp_path: Path) -> None:
    assert any("urllib" in line for line in watched("import openvino", tmp_path / "plain"))
    blocked = "from seg.inference.engines import block_telemetry; block_telemetry(); import openvino"
    assert watched(blocked, tmp_path / "blocked") == []
