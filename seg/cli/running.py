"""How a script ends: its exit code, and sentences in place of tracebacks for what the user can mend."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from seg.errors import SegError

DONE, WRONG_USE, INTERRUPTED = 0, 2, 130


def run(main: Callable[[], int | None]) -> NoReturn:
    """Calls a script's main function and exits with its code.

    Exit codes: what `main` returns (0 done, 1 some cases failed or were left out), 2 for wrong use or unreadable
    input, 130 where the user interrupts, or a request to end (SIGTERM) comes, which is met as an interrupt is.

    Args:
        main: Returns the exit code, or None for 0.
    """
    _show_messages()
    try:
        with _ended_as_interrupted():
            code = main() or DONE
    except SegError as error:
        for problem in error.sentences:
            print(f"error: {problem}", file=sys.stderr)
        code = WRONG_USE
    except KeyboardInterrupt:
        print("\ninterrupted; files that were complete before are kept.", file=sys.stderr)
        code = INTERRUPTED
    sys.exit(code)


@contextmanager
def _ended_as_interrupted() -> Iterator[None]:
    """Meets a request to end as an interrupt; without that the first process of a container would not hear it."""
    owner = os.getpid()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            raise KeyboardInterrupt
        # A process that was forked off is ended by who forked it.
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    heard = threading.current_thread() is threading.main_thread()
    if not heard or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:  # ignored, or another's
        yield
        return
    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


class _Plain(logging.Formatter):
    """A message as it is, with its level before it where that is a warning or worse."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {text}"


def _show_messages() -> None:
    """Sends what the package announces to stderr, so that stdout holds results alone."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Plain())
    logger = logging.getLogger("seg")
    logger.setLevel(logging.INFO)
    logger.handlers = [handler]
