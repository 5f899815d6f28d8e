from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from seg import __version__
from seg.cli import COMMANDS, main, run
from seg.errors import DataError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1)])
def test_the_exit_code_is_what_main_returns(returned: int | None, code: int) -> None:
    with pytest.raises(SystemExit) as caught:
        run(lambda: returned)
    assert caught.value.code == code


def test_each_problem_is_a_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise DataError(["case a: broken.", "case b: broken."])

    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == 2
    assert capsys.readouterr() == ("", "error: case a: broken.\nerror: case b: broken.\n")


def test_an_interrupt_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == 130
    assert capsys.readouterr().err == "\ninterrupted; files that were complete before are kept.\n"


@pytest.fixture
def unheard() -> Iterator[None]:
    """No handler of a request to end, as in a fresh process; libraries that other tests load may leave theirs."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


@pytest.mark.usefixtures("unheard")
def test_a_request_to_end_is_met_as_an_interrupt(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        with pytest.raises(SystemExit) as caught:
            run(lambda: os.kill(os.getpid(), signal.SIGTERM) or time.sleep(60))  # type: ignore[func-returns-value]
        assert caught.value.code == 130
        assert capsys.readouterr().err == "\ninterrupted; files that were complete before are kept.\n"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


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

    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == 10


def test_a_fault_of_the_program_is_a_sentence_with_a_log(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def main() -> None:
        error = ZeroDivisionError("by\nzero \udcff")
        error.add_note("while reading case_7.nii.gz")
        raise error

    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == 3
    (log,) = tmp_path.iterdir()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "ZeroDivisionError" in err
    assert "while reading case_7.nii.gz" in err
    assert str(log) in err
    assert "Traceback" in log.read_text()
    assert "in main" in log.read_text()


def test_a_fault_names_the_file_of_the_system(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(SystemExit) as caught:
        run(lambda: (tmp_path / "absent").stat().st_size)
    assert caught.value.code == 3
    assert f"with the file {tmp_path / 'absent'}" in capsys.readouterr().err


def test_announcements_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        logging.getLogger("seg.x").info("cache: %s", "memory")
        logging.getLogger("seg.x").warning("left out: a")

    with pytest.raises(SystemExit):
        run(main)
    assert capsys.readouterr() == ("", "cache: memory\nwarning: left out: a\n")


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
