"""The file system: writing files whole, reading files by a schema, locks, and problems where a path cannot be used."""

from __future__ import annotations

import codecs
import csv
import errno
import hashlib
import io
import json
import logging
import os
import re
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from seg.errors import Problem, RunError, SegError, shown

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

T = TypeVar("T")
LOG = logging.getLogger(__name__)
MOST_PROBLEMS = 5
"""Problems of one file that are named; of further ones the number is given."""
UNION_MEMBERS = ("str", "list[str]", "int")
"""Members of the unions in the schemas of JSON files, as pydantic names them."""
PARTIAL_SECONDS = 60.0
MOST_NAME_BYTES = 255  # of one file or folder, on the file systems in use
MOST_STEM_BYTES = MOST_NAME_BYTES - len("..12345678")
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
UNREADABLE = ("unreadable", "must be readable", "check the disk")
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
            raise RunError(Problem(quoted(str(path)), "file", rule, remedy="choose another name"))
        check_folder(path.parent)
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


def check_folder(folder: Path, *, given: Path | None = None) -> None:
    """Checks that no file and no link that leads back to itself lies where a folder is wanted.

    Args:
        folder: The folder; it need not exist.
        given: What a user gave, to be named in place of the folder.

    Raises:
        RunError: The folder, or what it is to lie in, is a file or such a link.
    """
    try:
        os.stat(given or folder)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise file_error(given or folder, error) from error
    where = quoted(str(given or folder))
    for part in (folder, *folder.parents):
        if part.is_symlink() and not part.exists():
            value = f"the link {quoted(str(part))} to nothing"
            raise RunError(Problem(where, "folder", "must be a folder", value, "make the folder it leads to"))
        if part.is_file():
            itself = given is None and part == folder
            rule = "must be a folder" if itself else "must lie in folders, not below a file"
            raise RunError(Problem(where, "folder", rule, f"the file {quoted(str(part))}", "choose another path"))


def check_writable(folder: Path, *, given: Path | None = None) -> None:
    """Checks before long work that a folder can be written, or be made where it is absent; leaves nothing behind.

    Args:
        folder: The folder.
        given: What a user gave, to be named in place of the folder.

    Raises:
        RunError: It cannot, or a file lies where it is to be.
    """
    check_folder(folder, given=given)
    try:
        with tempfile.TemporaryFile(dir=next(part for part in (folder, *folder.parents) if part.exists())):
            pass
    except OSError as error:
        raise unwritable(given or folder, error) from error


def first_line(path: Path, *, remedy: str) -> str:
    """Reads the first line of a text file and strips spaces around it; errors are those of :func:`read_bytes`."""
    line = read_bytes(path, remedy=remedy).removeprefix(codecs.BOM_UTF8).partition(b"\n")[0]
    return line.decode(errors="replace").strip()


def check_replaced(path: Path, line: str, *, remedy: str) -> None:
    """Checks that a text file that is to be replaced, where it is there, begins with the line that ours begin with.

    Raises:
        RunError: It is another file.
    """
    if path.exists() and (found := first_line(path, remedy=remedy)) != line:
        rule = f"must begin with the line {shown(line)} to be replaced"
        raise RunError(Problem(quoted(str(path)), "exists", rule, shown(found), remedy))


def real_path(path: Path) -> Path:
    """Returns the absolute path that links lead to; one that leads back to itself stays, no error."""
    return Path(os.path.realpath(path))


def is_partial(path: Path) -> bool:
    """Whether a file is one that a killed :func:`written_aside` left beside its target."""
    return re.fullmatch(r"\..+\.[a-z0-9_]{8}", path.name) is not None


def _stem(name: str) -> str:
    """Returns a name as that of a partial file holds it: cut where the whole would be no name of a file any more."""
    raw = os.fsencode(name)
    return name if len(raw) <= MOST_STEM_BYTES else raw[:MOST_STEM_BYTES].decode(errors="ignore")


def remove_partial(folder: Path, *, of: Collection[str] | None = None, seconds: float = PARTIAL_SECONDS) -> None:
    """Removes what killed writers left in a folder; see :func:`is_partial`.

    Args:
        folder: The folder; it need not exist.
        of: Names of targets whose files are removed; None is all, for a folder that is nobody else's.
        seconds: What changed within so many seconds stays, for it may belong to a process that is writing.
    """
    stems = None if of is None else set(map(_stem, of))
    for path in folder.iterdir() if folder.is_dir() else ():
        if is_partial(path) and path.is_file() and (stems is None or path.name[1:].rpartition(".")[0] in stems):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime >= seconds:
                    path.unlink()


def beside(path: Path) -> Path:
    """Returns a hidden name of its own beside a target, for what is to be renamed to it; see :func:`is_partial`."""
    return path.parent / f".{_stem(path.name)}.{secrets.token_hex(4)}"


def user_cache() -> Path | None:
    """Returns the folder where this user keeps what can be made again; None where the user has no home."""
    with suppress(RuntimeError):
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seg"
    return None


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file whole; see :func:`written_aside`."""
    with written_aside(path) as file:
        file.write(content)


@contextmanager
def file_problems(written: Path | None = None) -> Iterator[None]:
    """Turns errors of the file system within the block into problems that name the file; also a decorator.

    Args:
        written: Named where the disk is full and the error names no file, as those of other libraries do.

    Raises:
        RunError: A file or folder may not be used by this user, its name is too long, its path leads through a file or
            in a circle, it is absent, or there is no room.
    """
    try:
        yield
    except OSError as error:
        path = error.filename2 or error.filename or (written if error.errno in NO_ROOM else None)
        if not isinstance(path, str | bytes | os.PathLike) or error.errno not in REASONS.keys() | NO_ROOM:
            raise
        raise file_error(Path(os.fsdecode(path)), error) from error


def file_error(path: Path, error: OSError) -> RunError:
    """Returns the problem of a path that cannot be used."""
    if error.errno in NO_ROOM:
        return unwritable(path, error)
    kind, rule, remedy = REASONS.get(error.errno or 0, UNREADABLE)
    return RunError(Problem(quoted(str(path)), kind, rule, f"'{error.strerror}'", remedy))


def quoted(name: str) -> str:
    """Returns a name as a log line may hold it: in quotes and escaped where it would break or colour the line."""
    return name if name.isprintable() else repr(name)


def unencodable(names: Iterable[str]) -> list[Problem]:
    """Returns a problem for each name that no file in UTF-8 can hold, such as a file name in another encoding."""
    return [
        Problem(repr(name), "encoding", "must be a name in UTF-8", remedy="rename it")
        for name in names
        if any("\ud800" <= letter <= "\udfff" for letter in name)
    ]


def unwritable(path: Path, error: OSError, *, remedy: str = "choose another folder") -> RunError:
    """Returns the error of a file that could not be written; the remedy says where else it can lie."""
    kind = "unwritable"
    if error.errno in NO_ROOM:
        kind, remedy = "no_room", f"free space or {remedy}"
    return RunError(Problem(quoted(str(path)), kind, "must be writable", f"'{error.strerror}'", remedy))


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


def read_bytes(path: Path, *, remedy: str, error: type[SegError] = RunError) -> bytes:
    """Reads a regular file whole.

    Args:
        path: The file.
        remedy: What to do where the file cannot be used.
        error: Class of the error that is raised.

    Raises:
        SegError: The file is absent or cannot be read.
    """
    try:
        if path.exists() and not path.is_file():
            value = "a folder" if path.is_dir() else "a pipe or a device"
            raise error(Problem(quoted(str(path)), "file", "must be a file", value, remedy))
        return path.read_bytes()
    except OSError as fault:
        kind, rule, _ = REASONS.get(fault.errno or 0, UNREADABLE)
        raise error(Problem(quoted(str(path)), kind, rule, f"'{fault.strerror}'", remedy)) from fault
    except ValueError as fault:  # a NUL in the path
        raise error(Problem(repr(str(path)), "name", "must be a path", f"'{fault}'", remedy)) from fault


def read_json(
    path: Path, schema: type[T], *, newest: int | None = None, remedy: str, error: type[SegError] = RunError
) -> T:
    """Reads a JSON file and checks its content.

    Args:
        path: The file, in UTF-8.
        schema: Type of the content, as pydantic understands it; it says whether further fields are refused.
        newest: Largest value of ``schema_version`` that is known, for a file of ours; the schema does not name that
            field. None for a file that states no version.
        remedy: What to do where the file cannot be used.
        error: Class of the error that is raised.

    Raises:
        SegError: The file is absent, no JSON, of a newer version, or breaks the schema; all breaks are named together.
    """
    raw = read_bytes(path, remedy=remedy, error=error).removeprefix(codecs.BOM_UTF8)
    try:
        # Our files hold no NaN or infinity; those of others may.
        content = from_json(raw, allow_inf_nan=newest is None)
        if newest is not None:
            json.dumps(content, allow_nan=False)  # 1e999 is read as infinity
    except ValueError as fault:
        value = f"'{fault}'"
        raise error(Problem(quoted(str(path)), "json", "must be JSON text in UTF-8", value, remedy)) from fault
    return check_content(path, content, schema, newest=newest, remedy=remedy, error=error)


def check_content(
    path: Path,
    content: object,
    schema: type[T],
    *,
    newest: int | None = None,
    remedy: str,
    error: type[SegError] = RunError,
) -> T:
    """Returns the content of a file as a value of a type; see :func:`read_json` for the arguments.

    Raises:
        SegError: The content is of a newer version or breaks the schema; all breaks are named together.
    """
    try:
        if newest is not None:
            content = TypeAdapter(dict[str, Any]).validate_python(content)
            check_version(path, content.pop("schema_version", None), newest, error=error)
        return TypeAdapter(schema).validate_python(content)
    except ValidationError as fault:
        raise error(_schema_problems(path, fault, remedy)) from fault


def escaped_cell(text: str) -> str:
    """Puts an apostrophe before a text that a spreadsheet would take for a formula; see :func:`unescaped_cell`."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "'", "\t", "\r")) else text


def unescaped_cell(text: str) -> str:
    """Returns the text that :func:`escaped_cell` was given."""
    return text[1:] if text[:1] == "'" and text[1:2] in tuple("=+-@'\t\r") else text


def read_table(
    path: Path,
    *,
    columns: Sequence[str] = (),
    escaped: bool = False,
    remedy: str,
    error: type[SegError] = RunError,
) -> list[dict[str, str]]:
    """Reads a CSV file as text by column, whose names lose spaces around them; :func:`check_rows` gives cells types.

    Columns are separated by commas, or by semicolons or tabs where the first line has no comma.

    Args:
        path: The file.
        columns: Columns that a table of ours has, and then a row at least; none for any other table.
        escaped: Whether texts are escaped as :func:`table_text` does it.
        remedy: What to do where the file cannot be used.
        error: Class of the error that is raised.

    Raises:
        SegError: The file is absent, no text in UTF-8, no CSV, has two columns of one name, a row with more or fewer
            cells than the header, or lacks columns or rows.
    """
    raw = read_bytes(path, remedy=remedy, error=error).removeprefix(codecs.BOM_UTF8)
    try:
        text = raw.decode()
        first = text.partition("\n")[0]
        mark = next((mark for mark in ",;\t" if mark in first), ",")
        header, *rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)) or [[]]
    except (UnicodeDecodeError, csv.Error) as fault:
        raise error(Problem(quoted(str(path)), "csv", "must be a table in UTF-8", f"'{fault}'", remedy)) from fault
    header = [name.strip() for name in header]
    if escaped:
        header, *rows = ([unescaped_cell(cell) for cell in row] for row in (header, *rows))
    if twice := [name for name in header if header.count(name) > 1]:
        raise error(Problem(quoted(str(path)), "csv", "must name each column once", shown(twice[0]), remedy))
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            rule, value = f"must have the {len(header)} cells of the header", f"{len(row)}"
            raise error(Problem(f"{quoted(str(path))}: row {number}", "csv", rule, value, remedy))
    if lacking := [name for name in columns if name not in header]:
        rule, value = f"must have the columns {', '.join(lacking)}", shown(", ".join(header)) if header else "none"
        raise error(Problem(quoted(str(path)), "missing", rule, value, remedy))
    if columns and not rows:
        raise error(Problem(quoted(str(path)), "missing", "must have a row at least", "none", remedy))
    return [dict(zip(header, row, strict=True)) for row in rows]


def table_text(
    rows: Sequence[Mapping[str, object]], *, columns: Sequence[str] = (), absent: str = "", escape: bool = False
) -> str:
    """Returns rows as CSV text.

    Args:
        rows: Values by column.
        columns: The columns, in their order; by default all that a row has.
        absent: Cell of a column that a row has not.
        escape: Whether texts, names of columns too, are kept from being formulas in a spreadsheet; see
            :func:`escaped_cell`. Numbers stay as they are.
    """
    text = _Lines(newline="")
    names = columns or list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, restval=absent)
    for row in (dict(zip(names, names, strict=True)), *rows):
        cells = {name: escaped_cell(cell) if isinstance(cell, str) else cell for name, cell in row.items()}
        writer.writerow(cells if escape else row)
    return text.getvalue()


class _Lines(io.StringIO):
    """Rows of a table, which end by a line feed; the writer ends them by both marks, and quotes cells with either."""

    def write(self, line: str) -> int:
        return super().write(line.removesuffix("\r\n") + "\n")


def check_rows(path: Path, rows: Sequence[Mapping[str, object]], schema: type[T], *, remedy: str) -> list[T]:
    """Returns the rows of a file as values of a type.

    Raises:
        RunError: Rows break the schema.
    """
    return check_content(path, list(rows), list[schema], remedy=remedy)  # type: ignore[valid-type]


def _schema_problems(path: Path, error: ValidationError, remedy: str) -> list[Problem]:
    """Returns a problem for each place that breaks a schema, up to a number."""
    found: dict[str, Problem] = {}
    errors = error.errors(include_url=False, include_context=False)
    times = Counter(one["loc"][:-1] for one in errors if one["loc"] and one["loc"][-1] in UNION_MEMBERS)
    for one in errors:
        # For a union, pydantic adds the name of each member behind the place, an error for each.
        parts = one["loc"][:-1] if times[one["loc"][:-1]] > 1 else one["loc"]
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".")
        rule = one["msg"].replace("Input should be", "must be").replace("Extra inputs are", "is")
        value = "" if one["type"] == "missing" else shown(one["input"])
        where = f"{quoted(str(path))}: {place}" if place else quoted(str(path))
        found.setdefault(place, Problem(where, one["type"], rule, value, remedy))
    problems = list(found.values())[:MOST_PROBLEMS]
    if len(found) > MOST_PROBLEMS:
        rule = f"breaks its schema at {len(found) - MOST_PROBLEMS} more places"
        problems.append(Problem(quoted(str(path)), "schema", rule, remedy=remedy))
    return problems


def check_version(path: Path, version: object, newest: int, *, error: type[SegError] = RunError) -> None:
    """Checks the version that a file states of its schema.

    Raises:
        SegError: The version is no integer, or newer than what is known.
    """
    where = f"{quoted(str(path))}: schema_version"
    if type(version) is not int:
        raise error(Problem(where, "int_type", "must be an integer", shown(version), "restore the file"))
    if version > newest:
        remedy = "the file was written by a newer release; update seg"
        raise error(Problem(where, "version", f"must be at most {newest}", shown(version), remedy))


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Holds a lock for the time of a block; the file is there while it is held.

    A file system without locks is announced, and the block runs unguarded.

    Args:
        path: The file, made with its folder where absent.
        wait: Whether to wait where another process holds the lock, until it is free.

    Raises:
        RunError: Another process holds it and ``wait`` is off, or the file cannot be written.
    """
    descriptor = _take(path, wait)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


@contextmanager
def working_in(folder: Path, lock: str, files: Collection[str]) -> Iterator[None]:
    """Holds a folder that a command fills; one that it made and left empty is removed.

    Args:
        folder: The folder, made where absent.
        lock: Name of the file that is there meanwhile.
        files: Names of the files that the command writes; what killed commands left of them is removed.

    Raises:
        RunError: Another command fills it, or it cannot be written.
    """
    made = not folder.exists()
    try:
        with locked(folder / lock, wait=False):
            remove_partial(folder, of=files)
            yield
    finally:
        if made:
            with suppress(OSError):
                folder.rmdir()


def _take(path: Path, wait: bool) -> int:
    while True:
        try:
            check_folder(path.parent)
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise unwritable(path, error) from error
        if fcntl is None:
            LOG.warning("%s: this system has no locks; let one command at a time write here", path)
            return descriptor
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if not wait:
                os.close(descriptor)
                rule, remedy = (
                    "must be used by one process at a time",
                    "wait for the other one, or choose another folder",
                )
                raise RunError(Problem(quoted(str(path.parent)), "locked", rule, remedy=remedy)) from error
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
