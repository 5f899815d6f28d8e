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

from seg.cli import run
from seg.errors import DataError

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "monai", "lightning", "pytorch_lightning", "numpy", "nibabel", "matplotlib", "scipy")


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


def test_a_fault_of_the_program_keeps_its_traceback() -> None:
    def main() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(main)


def test_announcements_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        logging.getLogger("seg.x").info("cache: %s", "memory")
        logging.getLogger("seg.x").warning("left out: a")

    with pytest.raises(SystemExit):
        run(main)
    assert capsys.readouterr() == ("", "cache: memory\nwarning: left out: a\n")


@pytest.mark.parametrize("script", ["train", "evaluate", "plan", "predict"])
def test_help_imports_nothing_heavy(script: str) -> None:
    probe = (
        "import runpy, sys\n"
        f"sys.argv = ['{script}.py', '--help']\n"
        "try:\n"
        f"    runpy.run_path('scripts/{script}.py', run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0\n"
        f"print('loaded:', [name for name in {HEAVY} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"usage: {script}.py ")
    assert done.stdout.endswith("loaded: []\n")


def test_wrong_use_of_a_script_ends_with_code_2_and_sentences() -> None:
    argv = [sys.executable, "scripts/train.py", "--config", "configs/phantom.yaml", "--loss.smoth", "1", "--fold", "-2"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "error: --loss.smoth is no option; did you mean --loss.smooth?\nerror: fold must be >= 0, got -2.\n"
    )
