"""Locks that a process loses when it ends, however it ends."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seg.errors import RunError
from seg.files import unwritable

LOG = logging.getLogger(__name__)


@contextmanager
def locked(path: Path, *, refusal: str | None = None) -> Iterator[None]:
    """Holds a lock for the time of a block; the file is there while it is held.

    A file system without locks is announced, and the block runs unguarded.

    Args:
        path: The file, made with its folder where absent.
        refusal: Message of the error where another process holds the lock; None waits until it is free.

    Raises:
        RunError: Another process holds it and ``refusal`` is given, or the file cannot be written.
    """
    descriptor = _take(path, refusal)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _take(path: Path, refusal: str | None) -> int:
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise unwritable(path, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if refusal is not None:
                os.close(descriptor)
                raise RunError(refusal) from error
            LOG.info("%s: another process works on this; waiting for it", path)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            LOG.warning("%s: no lock to be had (%s); let one command at a time write here", path, error.strerror)
        # Whoever held it has removed the file meanwhile, so that a third process may hold the lock of a new one.
        if _same_file(descriptor, path):
            return descriptor
        os.close(descriptor)


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
