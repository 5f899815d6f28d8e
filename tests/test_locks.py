"""Locks between processes."""

from __future__ import annotations

import errno
import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from seg.errors import RunError
from seg.files import locked

HOLD = """
import sys
from pathlib import Path
from seg.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_goes_with_the_process_that_held_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(RunError, match="taken"), locked(path, refusal="taken"):
            pass
        other.kill()
    with locked(path, refusal="taken"):
        assert path.exists()
    assert not path.exists()


def test_a_file_system_without_locks_is_announced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", fail)
    with locked(tmp_path / "lock"):
        pass
    assert caplog.messages == [
        f"{tmp_path / 'lock'}: no lock to be had (No locks available); let one command at a time write here"
    ]
