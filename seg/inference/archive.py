"""A run, or the folds of a cross-validation, in one file: packed for handing on, and unpacked within bounds."""

from __future__ import annotations

import re
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from seg.errors import Problem, RunError, SegError
from seg.files import file_error, quoted, written_aside
from seg.inference.choice import CHOICE_FILE, stored_choice
from seg.runs import CONFIG_FILE, MODEL_FILE, WEIGHTS_FILE, TrainedRun

ENDING = ".zip"
MEMBER = re.compile(
    rf"(fold_[0-9]{{1,4}}/)?({re.escape(CONFIG_FILE)}|{re.escape(MODEL_FILE)}|{re.escape(CHOICE_FILE)}"
    rf"|{re.escape(WEIGHTS_FILE)})"
)
"""What the name of a part can be: no other name leaves the archive."""
MOST_BYTES = 1 << 33
"""Largest size of all parts."""
REMEDY = "restore the file, or pack the run anew with `seg export --format zip`"
EPOCH = (1980, 1, 1, 0, 0, 0)


def pack(runs: Sequence[TrainedRun], target: Path) -> None:
    """Packs what predictions take of runs: configuration, model card, weights, and post-processing that was found.

    Equal runs give equal files.

    Args:
        runs: One run, or the folds of a cross-validation.
        target: The file.

    Raises:
        RunError: A file cannot be read or written.
    """
    with written_aside(target) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for run in runs:
            folder = f"{run.path.name}/" if len(runs) > 1 else ""
            for name in (CONFIG_FILE, MODEL_FILE, WEIGHTS_FILE):
                _add(archive, f"{folder}{name}", run.path / name)
            if found := stored_choice(run):
                _add(archive, f"{folder}{CHOICE_FILE}", found[0])


def _add(archive: zipfile.ZipFile, name: str, path: Path) -> None:
    with path.open("rb") as source, archive.open(zipfile.ZipInfo(name, EPOCH), "w", force_zip64=True) as part:
        shutil.copyfileobj(source, part)


@contextmanager
def unpacked(paths: Sequence[Path]) -> Iterator[tuple[Path, ...]]:
    """Gives run directories in the place of packed runs, for as long as the block lasts; other paths stay.

    Problems of errors within the block name the packed runs, not the directories, which are gone by then.
    """
    with tempfile.TemporaryDirectory(prefix="seg-run-") as root:
        folders = [
            _unpack(path, Path(root) / str(index) / path.stem)
            if path.suffix.lower() == ENDING and path.is_file()
            else path
            for index, path in enumerate(paths)
        ]
        try:
            yield tuple(folders)
        except SegError as error:
            found = [asdict(problem) for problem in error.problems]
            for old, new in zip(map(str, folders), map(str, paths), strict=True):
                found = [{name: text.replace(old, new) for name, text in one.items()} for one in found]
            raise type(error)([Problem(**one) for one in found]) from error


def _unpack(path: Path, folder: Path) -> Path:
    """Unpacks a run into a folder.

    Raises:
        RunError: The file is no packed run, is damaged, lacks parts, or holds other, too large or packed ones.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if problem := _problem(path, members):
                raise RunError(problem)
            for member in members:
                target = folder / member.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, target.open("xb") as file:
                    shutil.copyfileobj(source, file)  # raises where a part is not what its checksum says
    except OSError as error:
        raise file_error(path, error) from error
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error) as error:
        value = f"{type(error).__name__} ({error})"
        raise RunError(Problem(quoted(str(path)), "damaged", "must be a packed run", quoted(value), REMEDY)) from error
    return folder


def _problem(path: Path, members: Sequence[zipfile.ZipInfo]) -> Problem | None:
    """Says why parts of an archive are not those of a packed run."""
    names = [member.filename for member in members]
    size = sum(member.file_size for member in members)
    if odd := [name for name in names if not MEMBER.fullmatch(name)]:
        return Problem(quoted(str(path)), "names", "must hold the files of a run alone", quoted(odd[0]), REMEDY)
    if len({name.startswith("fold_") for name in names}) > 1:
        value = "files of one beside folders of folds"
        return Problem(quoted(str(path)), "layout", "must hold one run, or folds alone", value, REMEDY)
    if len(set(names)) < len(names):
        return Problem(quoted(str(path)), "names", "must hold each file once", f"{len(names)} files", REMEDY)
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        return Problem(quoted(str(path)), "packed", "must hold files as they are", "compressed ones", REMEDY)
    if size > min(path.stat().st_size, MOST_BYTES):
        return Problem(quoted(str(path)), "size", "must be as large as its files", f"{size} bytes of files", REMEDY)
    folders = sorted({name[: name.find("/") + 1] for name in names if name.startswith("fold_")}) or [""]
    parts = [f"{folder}{name}" for folder in folders for name in (CONFIG_FILE, MODEL_FILE, WEIGHTS_FILE)]
    if absent := [name for name in parts if name not in names]:
        return Problem(quoted(str(path)), "missing", "must hold whole runs", f"no {absent[0]}", REMEDY)
    return None
