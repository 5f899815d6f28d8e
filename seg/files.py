"""The file system: writing files whole, reading files by a schema, locks, and problems where a path cannot be used."""

from __future__ import annotations

import csv
import errno
import fcntl
import hashlib
import io
import json
import logging
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from seg.errors import Problem, RunError

T = TypeVar("T")
MOST_PROBLEMS = 5
"""Problems of one file that are named; of further ones the number is given."""
REASONS = {
    errno.ENOENT: ("missing", "must exist", "check the path"),
    errno.EACCES: ("permission", "must be open to this user", "change its permissions or those of its folder"),
    errno.EPERM: ("permission", "must be open to this user", "change its permissions or those of its folder"),
    errno.ENAMETOOLONG: ("name", "must have a name that the file system takes", "shorten it"),
    errno.ELOOP: ("link", "must be no link that leads back to itself", "correct the link"),
    errno.ENOTDIR: ("folder", "must lie in folders, not below a file", "check the path"),
    errno.EISDIR: ("file", "must be a file, not a folder", "check the path"),
    errno.EEXIST: ("folder", "must be a folder, not a file", "choose another path"),
}
"""What is wrong with a path, by what the system says: kind, rule and remedy."""
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
        RunError: The folder cannot be written, the disk is full, or the target is there and no regular file.
    """
    partial: Path | None = None
    try:
        if path.exists() and not path.is_file():
            rule = "must be a file that can be replaced, not a folder, a pipe or a device"
            raise RunError(Problem(path=quoted(str(path)), kind="file", rule=rule, remedy="choose another name"))
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


@contextmanager
def file_problems() -> Iterator[None]:
    """Turns errors of the file system within the block into problems that name the file; also a decorator.

    Raises:
        RunError: A file or folder may not be used by this user, its name is too long, its path leads through a file or
            in a circle, it is absent, or there is no room.
    """
    try:
        yield
    except OSError as error:
        path = error.filename2 or error.filename
        if not isinstance(path, str | bytes | os.PathLike) or error.errno not in REASONS.keys() | NO_ROOM:
            raise
        raise file_error(Path(os.fsdecode(path)), error) from error


def file_error(path: Path, error: OSError) -> RunError:
    """Returns the problem of a path that cannot be used."""
    if error.errno in NO_ROOM:
        return unwritable(path, error)
    kind, rule, remedy = REASONS.get(error.errno or 0, ("unreadable", "must be readable", "check the disk"))
    return RunError(Problem(path=quoted(str(path)), kind=kind, rule=rule, value=f"'{error.strerror}'", remedy=remedy))


def quoted(name: str) -> str:
    """Returns a name as a log line may hold it: in quotes and escaped where it would break or colour the line."""
    return name if name.isprintable() else repr(name)


def unencodable(names: Iterable[str]) -> list[Problem]:
    """Returns a problem for each name that no file in UTF-8 can hold, such as a file name in another encoding."""
    return [
        Problem(path=repr(name), kind="encoding", rule="must be a name in UTF-8", remedy="rename it")
        for name in names
        if any("\ud800" <= letter <= "\udfff" for letter in name)
    ]


def unwritable(path: Path, error: OSError) -> RunError:
    """Returns the error of a file that could not be written."""
    return RunError(
        Problem(
            path=quoted(str(path)),
            kind="no_room" if error.errno in NO_ROOM else "unwritable",
            rule="must be writable",
            value=f"'{error.strerror}'",
            remedy="free space or choose another folder" if error.errno in NO_ROOM else "choose another folder",
        )
    )


@contextmanager
def needing_room(path: Path) -> Iterator[None]:
    """Turns a full disk that other libraries meet within the block into a problem.

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


def read_bytes(path: Path, *, remedy: str) -> bytes:
    """Reads a file whole.

    Raises:
        RunError: The file is absent or cannot be read.
    """
    try:
        if path.exists() and not path.is_file():
            raise IsADirectoryError(errno.EISDIR, "Not a regular file", str(path))
        return path.read_bytes()
    except OSError as error:
        kind, rule, _ = REASONS.get(error.errno or 0, ("unreadable", "must be readable", ""))
        problem = Problem(path=quoted(str(path)), kind=kind, rule=rule, value=f"'{error.strerror}'", remedy=remedy)
        raise RunError(problem) from error
    except ValueError as error:  # a NUL in the path
        raise RunError(
            Problem(path=repr(str(path)), kind="name", rule="must be a path", value=f"'{error}'", remedy=remedy)
        ) from error


def read_json(path: Path, schema: type[T], newest: int, *, remedy: str) -> T:
    """Reads a JSON file of ours that states its version, and checks its content.

    Args:
        path: The file.
        schema: Type of the content without the version, as pydantic understands it; fields that it does not name are
            left out.
        newest: Largest version that is known.
        remedy: What to do where the file cannot be used.

    Raises:
        RunError: The file is absent, no JSON, of a newer version, or breaks the schema; all problems together.
    """
    raw = read_bytes(path, remedy=remedy)
    try:
        content = TypeAdapter(dict[str, Any]).validate_json(raw)
        version = TypeAdapter(int).validate_python(content.pop("schema_version", None), strict=True)
        if version > newest:
            raise _newer(path, version, newest)
        return TypeAdapter(schema).validate_python(content)
    except ValidationError as error:
        raise RunError(_schema_problems(path, error, remedy)) from error


def read_table(path: Path, *, remedy: str) -> list[dict[str, str]]:
    """Reads a CSV file of ours as text by column; :func:`check_rows` gives the cells their types.

    Raises:
        RunError: The file is absent, no text in UTF-8, no CSV, or a row has more or fewer cells than the header.
    """
    raw = read_bytes(path, remedy=remedy)
    try:
        rows = list(csv.DictReader(io.StringIO(raw.decode()), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise RunError(
            Problem(
                path=quoted(str(path)), kind="csv", rule="must be a table in UTF-8", value=f"'{error}'", remedy=remedy
            )
        ) from error
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            rule = "must have as many cells as the header"
            raise RunError(Problem(path=f"{quoted(str(path))}: row {number}", kind="csv", rule=rule, remedy=remedy))
    return rows


def check_rows(path: Path, rows: Sequence[Mapping[str, object]], schema: type[T], *, remedy: str) -> list[T]:
    """Returns the rows of a file as values of a type.

    Raises:
        RunError: Rows break the schema.
    """
    try:
        return TypeAdapter(list[schema]).validate_python(list(rows))  # type: ignore[valid-type]
    except ValidationError as error:
        raise RunError(_schema_problems(path, error, remedy)) from error


def _schema_problems(path: Path, error: ValidationError, remedy: str) -> list[Problem]:
    """Returns a problem for each value that breaks a schema, up to a number."""
    found = error.errors(include_url=False, include_context=False)
    problems = [
        Problem(
            path=": ".join([quoted(str(path)), *([".".join(map(str, one["loc"]))] if one["loc"] else [])]),
            kind=one["type"],
            rule=f"must fit its schema ({one['msg']})",
            value=_shortened(one["input"]),
            remedy=remedy,
        )
        for one in found[:MOST_PROBLEMS]
    ]
    if len(found) > MOST_PROBLEMS:
        rule = f"breaks its schema at {len(found) - MOST_PROBLEMS} more places"
        problems.append(Problem(path=quoted(str(path)), kind="schema", rule=rule, remedy=remedy))
    return problems


def _shortened(value: object, most: int = 40) -> str:
    """Writes a value for a sentence, cut short; numbers may have hundreds of digits."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


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
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
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
        raise _newer(path, version, newest)


def _newer(path: Path, version: int, newest: int) -> RunError:
    return RunError(
        Problem(
            path=f"{quoted(str(path))}: schema version",
            kind="version",
            rule=f"must be at most {newest}",
            value=_shortened(version),
            remedy="it was written by a newer release, update seg",
        )
    )


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
