"""Files that are either whole or absent."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from seg.errors import RunError

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
"""Errors that writing alone has: no space, no quota, file too large, read-only disk."""


@contextmanager
def written_aside(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file beside its target; what is written is flushed to disk and renamed at the end, or removed on a fault.

    Args:
        path: Target; its folder is made where absent.

    Yields:
        The file, to be written in binary.

    Raises:
        RunError: The folder cannot be written or the disk is full.
    """
    partial: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = beside(path)
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        partial = None
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)


def is_partial(path: Path) -> bool:
    """Whether a file is one that a killed :func:`written_aside` left beside its target."""
    return re.fullmatch(r"\..+\.[a-z0-9_]{8}", path.name) is not None


def beside(path: Path) -> Path:
    """Returns a hidden name of its own beside a target, for what is to be renamed to it; see :func:`is_partial`."""
    return path.parent / f".{path.name}.{secrets.token_hex(4)}"


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file whole; see :func:`written_aside`."""
    with written_aside(path) as file:
        file.write(content)


def unwritable(path: Path, error: OSError) -> RunError:
    """Returns the error of a file that could not be written."""
    return RunError(f"{path}: must be writable, got '{error.strerror}'; free space or choose another folder.")


@contextmanager
def needing_room(path: Path) -> Iterator[None]:
    """Gives what other libraries write within the block the sentence of a full disk.

    Args:
        path: Named where the error names no file.

    Raises:
        RunError: There is no room for a file.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise unwritable(Path(error.filename2 or error.filename or path), error) from error


def file_digest(path: Path) -> bytes:
    """Returns the SHA-256 of a file, which is read part by part."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def write_text(path: Path, text: str) -> None:
    """Writes a text file; see :func:`write_bytes`."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a JSON file of strict JSON; see :func:`write_bytes`."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


@contextmanager
def reading(path: Path, *, what: str, remedy: str) -> Iterator[None]:
    """Gives faults of a file that is read within the block their sentence.

    Args:
        path: The file.
        what: What it must be.
        remedy: What to do where it is not.

    Raises:
        RunError: It is absent or damaged.
    """
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}; {remedy}.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path}: must be {what}, got {type(error).__name__} ({error}); {remedy}.") from error


def read_versioned(path: Path, newest: int) -> dict[str, Any]:
    """Reads a JSON file that says the version of its schema; other faults are for :func:`reading` to name.

    Returns:
        The content without the version.

    Raises:
        RunError: It is of a newer version than what is known.
    """
    content: dict[str, Any] = json.loads(path.read_bytes())
    check_version(path, content.pop("schema_version"), newest)
    return content


def check_version(path: Path, version: object, newest: int) -> None:
    """Checks the version that a file says of its schema.

    Raises:
        TypeError: It is no integer.
        RunError: It is newer than what is known.
    """
    if not isinstance(version, int):
        raise TypeError(f"schema_version {version!r}")
    if version > newest:
        raise RunError(
            f"{path}: schema version must be at most {newest}, got {version}; it was written by a newer release, "
            "update seg."
        )
