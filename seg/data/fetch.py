"""Downloading a public data set: continued where it broke off, checked, and unpacked whole or not at all."""

from __future__ import annotations

import hashlib
import http.client
import os
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

from seg.errors import DataError

Progress = Callable[[int, int | None], None]
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
    """A tar file on a server.

    Attributes:
        url: Where it is.
        md5: Its MD5 digest, 32 hexadecimal digits; guards against damage, as published by the server's owner.
        folder: The one folder it unpacks to.
    """

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


def fetch(archive: Archive, root: Path, *, progress: Progress | None = None) -> Path:
    """Downloads an archive and unpacks it.

    What is on disk already is not fetched again: a data set that is there is left alone, and a download that broke off
    is continued. Files that macOS adds to archives (``._*``) are left out.

    Args:
        archive: What to fetch.
        root: Folder to put it in, made where absent.
        progress: Called with the bytes there are and the bytes there will be, null where the server does not say.

    Returns:
        The folder of the data set.

    Raises:
        DataError: What is there is no finished data set, the server cannot be reached or breaks off, the checksum
            differs, the archive holds paths outside its folder, or the disk is full or cannot be written.
    """
    target = root / archive.folder
    if (target / DESCRIPTION).is_file():
        return target
    if os.path.lexists(target):
        raise DataError(
            f"{target}: must be a finished data set or not there yet, got one without {DESCRIPTION}; remove it and run "
            "the command again, or choose another folder with --root."
        )
    partial = root / f".{archive.folder}.tar.part"
    try:
        root.mkdir(parents=True, exist_ok=True)
        _download(archive.url, partial, progress or (lambda done, total: None))
        _verify(partial, archive)
        _unpack(partial, target)
    except urllib.error.HTTPError as error:
        remedy = REMEDY if error.code in PASSING or error.code >= HTTP_SERVER_FAILS else GONE
        raise DataError(f"{archive.url}: must be reachable, got '{error}'; {remedy}.") from error
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
        raise DataError(f"{archive.url}: must be reachable, got '{error}'; {REMEDY}.") from error
    except OSError as error:
        raise DataError(
            f"{root}: must be writable, got '{error.strerror or error}'; free space or choose another folder."
        ) from error
    return target


def show_progress(done: int, total: int | None) -> None:
    """Writes the megabytes there are to stderr, over the line before."""
    share = f" of {total / 2**20:.1f} MiB ({done / total:.0%})" if total else " MiB"
    print(f"\r{done / 2**20:.1f}{share}", end="\n" if done == total else "", file=sys.stderr, flush=True)


def _download(url: str, partial: Path, progress: Progress) -> None:
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
    raise DataError(f"{url}: must give {total} bytes, got {size} before the connection broke; {REMEDY}.")


def _continue_download(url: str, partial: Path, progress: Progress) -> int | None:
    """Asks once for the bytes behind those on disk.

    Returns:
        The size of the whole file, or null where the server does not say.
    """
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
        raise DataError(
            f"{archive.url}: MD5 must be {archive.md5}, got {found}; the download was removed, run the command again."
        )


def _unpack(partial: Path, target: Path) -> None:
    """Unpacks beside the target and renames, so that a folder of that name is complete."""
    if not hasattr(tarfile, "data_filter"):
        raise DataError("Python must be 3.11.4 or newer to unpack archives safely; update Python and run again.")
    aside = target.with_name(f".{target.name}.unpacking")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        with tarfile.open(partial) as tar:
            tar.extractall(aside, filter=_wanted)
        (aside / target.name).rename(target)
    except (tarfile.TarError, FileNotFoundError) as error:
        raise DataError(
            f"{partial}: must be a tar file of the folder {target.name}, got '{error}'; report it."
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    partial.unlink()


def _wanted(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
    if Path(member.name).name.startswith("._"):
        return None
    return tarfile.data_filter(member, path)
