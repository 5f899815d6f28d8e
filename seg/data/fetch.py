"""Downloading a public data set: continued where it broke off, checked, and unpacked whole or not at all."""

from __future__ import annotations

import hashlib
import http.client
import os
import platform
import re
import shutil
import sys
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seg.errors import DataError, Problem
from seg.files import unwritable

ShowProgress = Callable[[int, int | None], None]
CHUNK_BYTES = 1 << 18
ATTEMPTS = 3
TIMEOUT_S = 60.0
DESCRIPTION = "dataset.json"  # what a finished data set has
HTTP_PARTIAL, HTTP_RANGE_REFUSED = 206, 416
HTTP_SERVER_FAILS = 500
PASSING = (408, 425, 429)  # refusals by which a server asks for patience: Request Timeout, Too Early, Too Many Requests
REMEDY = "run the command again: it continues where it stopped"
GONE = "the server refuses the file, and will again: report it, and take the data set from elsewhere"


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A tar file on a server, its MD5 digest in hexadecimal digits, and the one folder that it unpacks to."""

    url: str
    md5: str
    folder: str


# Address and digest as in MONAI's DecathlonDataset (Apache-2.0), monai/apps/datasets.py.
ARCHIVES = {
    "hippocampus": Archive(
        url="https://msd-for-monai.s3-us-west-2.amazonaws.com/Task04_Hippocampus.tar",
        md5="9d24dba78a72977dbd1d2e110310f31b",
        folder="Task04_Hippocampus",
    )
}


def fetch(archive: Archive, root: Path, *, progress: ShowProgress | None = None) -> Path:
    """Downloads an archive and unpacks it.

    What is on disk already is not fetched again: a data set that is there is left alone, and a download that broke off
    is continued. Files that macOS adds to archives (``._*``) are left out.

    Args:
        archive: What to fetch.
        root: Folder to put it in, made where absent.
        progress: Called with the bytes there are and the bytes there will be, None where the server does not say.

    Raises:
        DataError: What is there is no finished data set, Python is older than 3.11.4, the server cannot be reached or
            breaks off, the checksum differs, the archive holds paths outside its folder, or the disk is full or cannot
            be written.
    """
    target = root / archive.folder
    if (target / DESCRIPTION).is_file():
        return target
    if os.path.lexists(target):
        rule, value = "must be a finished data set or not there yet", f"one without {DESCRIPTION}"
        remedy = "remove it and run the command again, or choose another folder with --root"
        raise DataError(Problem(str(target), "unfinished", rule, value, remedy))
    partial = root / f".{archive.folder}.tar.part"
    try:
        root.mkdir(parents=True, exist_ok=True)
        if not hasattr(tarfile, "data_filter"):
            rule = "must be 3.11.4 or newer to unpack archives safely"
            remedy = "update Python and run again"
            raise DataError(Problem("Python", "version", rule, platform.python_version(), remedy))
        _download(archive.url, partial, progress or (lambda done, total: None))
        _verify(partial, archive)
        _unpack(partial, target)
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
        code = error.code if isinstance(error, urllib.error.HTTPError) else HTTP_SERVER_FAILS
        remedy = REMEDY if code in PASSING or code >= HTTP_SERVER_FAILS else GONE
        raise DataError(Problem(archive.url, "server", "must be reachable", f"'{error}'", remedy)) from error
    except OSError as error:
        raise DataError(unwritable(root, error).problems) from error
    return target


def show_progress(done: int, total: int | None) -> None:
    """Writes the megabytes there are to stderr, over the line before."""
    share = f" of {total / 2**20:.1f} MiB ({done / total:.0%})" if total else " MiB"
    print(f"\r{done / 2**20:.1f}{share}", end="\n" if done == total else "", file=sys.stderr, flush=True)


def _download(url: str, partial: Path, progress: ShowProgress) -> None:
    """Fetches what is missing of a file, several times where the connection breaks."""
    for attempt in range(ATTEMPTS):
        try:
            total = _continue_download(url, partial, progress)
        except (http.client.HTTPException, ConnectionError, TimeoutError):
            if attempt == ATTEMPTS - 1:
                raise
            continue
        size = partial.stat().st_size
        if total is None or size == total:
            return
    value = f"{size} before the connection broke"
    raise DataError(Problem(url, "truncated", f"must give {total} bytes", value, REMEDY))


def _continue_download(url: str, partial: Path, progress: ShowProgress) -> int | None:
    """Asks once for the bytes behind those on disk; returns the size of the whole, None where the server is silent."""
    start = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response: Any = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        # Nothing lies behind the last byte: the download was complete, or is of another file and fails the checksum.
        if error.code == HTTP_RANGE_REFUSED:
            return None
        raise
    with response:
        if response.status == HTTP_PARTIAL:
            found = re.fullmatch(r"bytes ([0-9]+)-[0-9]+/([0-9]+)", response.headers.get("Content-Range", ""))
            if found is None or int(found[1]) != start:
                raise http.client.HTTPException(f"Content-Range '{response.headers.get('Content-Range')}' for {start}-")
            total: int | None = int(found[2])
        else:  # the server sends the whole file, whatever was asked for
            start = 0
            length = response.headers.get("Content-Length")
            total = int(length) if length is not None else None
        with partial.open("ab" if start else "wb") as file:
            progress(start, total)
            while chunk := response.read(CHUNK_BYTES):
                file.write(chunk)
                start += len(chunk)
                progress(start, total)
    return total


def _verify(partial: Path, archive: Archive) -> None:
    with partial.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != archive.md5:
        partial.unlink()
        remedy = "the download was removed, run the command again"
        raise DataError(Problem(archive.url, "checksum", f"must have the MD5 digest {archive.md5}", found, remedy))


def _unpack(partial: Path, target: Path) -> None:
    """Unpacks beside the target and renames, so that a folder of that name is complete."""
    aside = target.with_name(f".{target.name}.unpacking")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        with tarfile.open(partial) as tar:
            tar.extractall(aside, filter=_wanted)
        (aside / target.name).rename(target)
    except (tarfile.TarError, FileNotFoundError) as error:
        rule = f"must be a tar file of the folder {target.name}"
        raise DataError(Problem(str(partial), "archive", rule, f"'{error}'", "report it")) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    partial.unlink()


def _wanted(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
    if Path(member.name).name.startswith("._"):
        return None
    return tarfile.data_filter(member, path)
