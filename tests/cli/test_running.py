from __future__ import annotations

import errno
import io
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from seg import __version__
from seg.cli import COMMANDS, main, run
from seg.errors import DataError, Problem

ROOT = Path(__file__).parents[2]


INTERRUPTED = "\ninterrupted; files that were complete before are kept.\n"


def ended(main: Callable[[], Any]) -> int | str | None:
    """Returns the exit code of a command."""
    with pytest.raises(SystemExit) as caught:
        run(main)
    return caught.value.code


def raising(error: BaseException) -> Callable[[], None]:
    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("main", "code", "said"),
    [
        (lambda: None, 0, ""),
        (lambda: 1, 1, ""),
        (
            raising(DataError([Problem(f"case {name}", "whole", "must be whole") for name in "ab"])),
            2,
            "error: case a must be whole.\nerror: case b must be whole.\n",
        ),
        (raising(KeyboardInterrupt()), 130, INTERRUPTED),
    ],
)
def test_a_command_ends_with_its_code_and_a_line_for_each_problem(
    main: Callable[[], Any], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(main) == code
    assert capsys.readouterr() == ("", said)


def test_of_many_problems_the_first_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    several = [Problem(f"case {number}", "whole", "must be whole") for number in range(300)]
    assert ended(raising(DataError(several))) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[::10] == ["error: case 0 must be whole.", "error: and 290 more."]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
@pytest.mark.parametrize("words", [["--help"], ["plan", "--help"], ["fetch", "phantom"]])
def test_output_that_cannot_be_printed_is_one_problem(words: list[str], tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        argv = [sys.executable, str(ROOT / "scripts"), *words]
        done = subprocess.run(argv, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("error: standard output ")
    assert os.strerror(errno.ENOSPC) in done.stderr


def test_characters_that_the_output_lacks_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="cp1252", newline=""))
    assert ended(lambda: print("\N{MINUS SIGN}0.01 \N{SECTION SIGN}")) == 0
    assert written.getvalue() == b"\\u22120.01 \xa7\n"


def test_an_output_that_is_closed_is_no_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert ended(lambda: print("to nobody")) == 0
    assert capsys.readouterr().err == ""


@pytest.fixture
def unheard() -> Iterator[None]:
    """No handler of a request to end, as in a fresh process; libraries that other tests load may leave theirs."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


@pytest.mark.usefixtures("unheard")
def test_a_request_to_end_is_met_as_an_interrupt(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert ended(lambda: os.kill(os.getpid(), signal.SIGTERM) or time.sleep(60)) == 130  # type: ignore[func-returns-value]
        assert capsys.readouterr().err == INTERRUPTED
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.usefixtures("unheard")
def test_workers_that_the_same_request_ends_are_no_fault(capsys: pytest.CaptureFixture[str]) -> None:
    def fault(*_: object) -> None:
        raise RuntimeError("a worker is killed by signal: Terminated")

    def main() -> None:
        signal.signal(signal.SIGCHLD, fault)  # as torch does where a loader has workers
        reader, writer = os.pipe()
        if (worker := os.fork()) == 0:
            os.write(writer, b"begun")  # Python drops a signal that reaches a process while it is forked
            time.sleep(60)
            os._exit(0)
        os.read(reader, 5)
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        finally:
            os.kill(worker, signal.SIGTERM)
            os.waitpid(worker, 0)
            time.sleep(0.01)  # in which a handler would be called

    before = signal.getsignal(signal.SIGCHLD)
    try:
        assert ended(main) == 130
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert capsys.readouterr().err == INTERRUPTED


@pytest.mark.usefixtures("unheard")
def test_a_process_that_is_forked_off_ends_as_any_other() -> None:
    def main() -> int:
        begun, say = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(say, b".")
            time.sleep(60)
            os._exit(0)
        os.read(begun, 1)  # before, Python would forget the signal
        os.kill(child, signal.SIGTERM)
        return 10 + os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) + signal.SIGTERM

    assert ended(main) == 10


def test_a_fault_of_the_program_is_a_sentence_with_a_log(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    error = ZeroDivisionError("by\nzero \udcff")
    error.add_note("while reading case_7.nii.gz")
    assert ended(raising(error)) == 3
    (log,) = tmp_path.iterdir()
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert all(part in err for part in ("ZeroDivisionError", "while reading case_7.nii.gz", str(log)))
    assert all(part in log.read_text() for part in ("Traceback", "in main"))
    assert ended(lambda: (tmp_path / "absent").stat().st_size) == 3
    assert f"with the file {tmp_path / 'absent'}" in capsys.readouterr().err


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 1 TB")])
def test_want_of_memory_is_no_fault(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(raising(error)) == 2
    assert capsys.readouterr().err.startswith("error: memory ")


def test_announcements_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        logging.getLogger("seg.x").info("cache: %s", "memory")
        logging.getLogger("seg.x").warning("left out: a")

    ended(main)
    assert capsys.readouterr() == ("", "cache: memory\nwarning: left out: a\n")


def test_what_a_command_says_of_its_machine_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        for name in ("hardware", "hardware", "x", "x"):
            logging.getLogger(f"seg.{name}").info("%s: cpu", name)

    for _ in range(2):
        ended(main)
        assert capsys.readouterr().err == "hardware: cpu\nx: cpu\nx: cpu\n"


def test_control_characters_of_what_is_announced_are_written_out(capsys: pytest.CaptureFixture[str]) -> None:
    ended(lambda: logging.getLogger("seg.x").info("cache: %s", "a\x1b[2J\tb"))
    assert capsys.readouterr() == ("", "cache: a\\x1b[2J\tb\n")


def test_the_list_of_commands_and_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--help"]):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 0
        listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:] if line.startswith("  ")]
        assert listed[: len(COMMANDS)] == list(COMMANDS)
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"seg {__version__}\n"


@pytest.mark.parametrize("words", [["trian"], ["train", "--config", "phantom", "--loss.smoth", "1", "--fold", "-2"]])
def test_wrong_use_ends_with_code_2_and_sentences(words: list[str]) -> None:
    argv = [sys.executable, "scripts", *words]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert all(line.startswith("error: ") for line in done.stderr.splitlines())
    assert "did you mean" in done.stderr


def test_a_user_without_a_name_gets_one() -> None:
    if os.getuid() != 0:
        pytest.skip("only root can take another user id")
    code = "import getpass, os; from seg.cli import run; os.setuid(54321); run(lambda: print(getpass.getuser()))"
    bare = {"PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=bare, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "uid54321\n"), done.stderr
