"""Scripts in processes that have the imports of their test, which take seconds."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch


def exit_code(process: BaseProcess, *, within: float) -> int | None:
    """Waits for a process to end, kills it after `within` seconds, and returns its exit code."""
    process.join(within)
    process.kill()  # changes nothing where it has ended
    process.join()
    return process.exitcode


def forked(script: Path, *argv: object, said: Path) -> BaseProcess:
    """Starts a script in a fork of this process; what it says on stderr goes to a file.

    Signals do there what they do in a process of the command line.
    """

    def target() -> None:
        # A job in the background of a shell ignores interrupts, and so would its children.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        torch.set_num_threads(1)  # threads of OpenMP that the parent began do not outlive a fork
        with said.open("w") as file:
            os.dup2(file.fileno(), 2)
            sys.argv, sys.stderr = [str(script), *map(str, argv)], file
            runpy.run_path(str(script), run_name="__main__")

    process = multiprocessing.get_context("fork").Process(target=target)
    process.start()
    return process
