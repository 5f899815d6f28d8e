"""Which cases a folder or a list holds, and what each is called."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from seg.data.volumes import ENDINGS, NIFTI_ENDINGS, companion_files, in_small_letters, is_series, split_ending
from seg.errors import DataError

LOG = logging.getLogger(__name__)
CHANNEL = re.compile(r"(.+)_([0-9]{4})", re.DOTALL)
SLICE_ENDING = ".dcm"
NAMED_AT_MOST = 20
"""Files and folders that a warning names; of further ones it gives the number."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """The files of a case.

    Attributes:
        name: What its label map is called, without an ending; one part of a path.
        paths: One file per channel, one file, or the folder of a DICOM series.
    """

    name: str
    paths: tuple[Path, ...]


def in_folder(folder: Path) -> list[Group]:
    """Finds the cases of a folder: its own files, and folders of DICOM slices at any depth below it.

    A series is called after its folders from there on, joined by ``_``. What is neither is announced.

    Raises:
        DataError: The folder cannot be read, holds no case, or lacks channels between others of a case.
    """
    entries = _entries(folder)
    files = [entry for entry in entries if entry.name.lower().endswith(ENDINGS) and not entry.is_dir()]
    if is_series(folder) and nifti_files(folder):
        LOG.warning("%s: holds DICOM slices beside NIfTI files; the NIfTI files are read", folder)
        files = [file for file in files if not file.name.lower().endswith(SLICE_ENDING)]
    groups: dict[tuple[str, str], list[Path]] = {}
    names = {in_small_letters(file.name, ENDINGS) for file in files}
    for file in files:
        groups.setdefault(_group_key(file, names), []).append(file)
    if gaps := [gap for group in groups.values() for gap in _gaps(group)]:
        raise DataError(gaps)
    series, left = series_below(folder)
    cases = sorted([*(group_of(tuple(group)) for group in groups.values()), *series], key=lambda case: case.name)
    known = {*files, *(data for file in files for data in companion_files(file))}
    left += [entry for entry in entries if not entry.is_dir() and entry not in known]
    if cases:
        _announce(folder, left)
        return cases
    raise DataError(
        f"{folder}: must hold images ({', '.join(ENDINGS)}) or folders of DICOM slices, got none; check --input."
    )


def nifti_files(folder: Path) -> list[Path]:
    """Returns the NIfTI files of a folder, as dcm2niix leaves them beside the slices that it converted."""
    return [entry for entry in _entries(folder) if entry.name.lower().endswith(NIFTI_ENDINGS) and entry.is_file()]


def series_below(folder: Path) -> tuple[list[Group], list[Path]]:
    """Finds folders of DICOM slices at any depth below a folder, and the folders that hold none."""
    left: list[Path] = []
    found = [
        series for entry in _entries(folder) if entry.is_dir() for series in _series(entry, (folder.resolve(),), left)
    ]
    return [Group(name="_".join(series.relative_to(folder).parts), paths=(series,)) for series in found], left


def in_list(file: Path) -> list[Group]:
    """Reads a list: a case on each line, channels separated by ``;``, relative to the list's folder.

    A line may name the label map behind a tab, for cases whose files are called alike.

    Raises:
        DataError: The list cannot be read or names no case, or a line names no files or no name.
    """
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: must be a readable list in UTF-8, got '{error}'; write it anew.") from error
    groups = [_of_line(file, line) for line in lines if line and not line.startswith("#")]
    if not groups:
        raise DataError(f"{file}: must name at least one image, one on each line, got none; add them.")
    return groups


def _of_line(file: Path, line: str) -> Group:
    listed, tab, name = line.partition("\t")
    parts = tuple(file.parent / part.strip() for part in listed.split(";") if part.strip())
    if not parts or parts[0].name in ("", ".", ".."):
        raise DataError(f"{file}: each line must name files, got {line!r}; correct the line.")
    if not tab:
        return group_of(parts)
    name, _ = split_ending(name.strip(), NIFTI_ENDINGS)
    if name in ("", ".", "..") or set(name) & set("/\\\t\0"):
        raise DataError(
            f"{file}: behind a tab each line must give a plain name for its label map, got {line!r}; correct the line."
        )
    return Group(name=name, paths=parts)


def with_channels(path: Path) -> Group:
    """Returns a file with the further channels that lie beside it, where it is the first of them."""
    stem, ending = split_ending(path.name, ENDINGS)
    match = CHANNEL.fullmatch(stem)
    group = [path]
    if not path.is_dir() and match is not None and match[2] == "0000":
        beside = {in_small_letters(other.name, ENDINGS): other for other in _entries(path.parent)}
        while further := beside.get(f"{match[1]}_{len(group):04d}{ending.lower()}"):
            group.append(further)
    elif path.is_dir():
        _announce(path, [entry for entry in _entries(path) if entry.is_dir()])
    return group_of(tuple(group))


def group_of(paths: tuple[Path, ...]) -> Group:
    """Names a case after its first file; the name is one part of a path, whatever the list says."""
    name = paths[0].name if paths[0].name not in ("", ".", "..") else paths[0].resolve().name
    stem, _ = split_ending(name, ENDINGS)
    match = CHANNEL.fullmatch(stem)
    return Group(name=match[1] if match and match[2] == "0000" else stem, paths=paths)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: must be readable, got '{error.strerror}'; check --input.") from error


def _series(folder: Path, above: tuple[Path, ...], left: list[Path]) -> list[Path]:
    """Finds the folders of slices in a folder, itself included; one without any is left out, as is what lies in one."""
    real = folder.resolve()
    if real in above:  # a link back to a folder that it lies in
        return []
    folders = [entry for entry in _entries(folder) if entry.is_dir()]
    if is_series(folder):
        left += folders
        if beside := nifti_files(folder):
            LOG.warning("%s: holds DICOM slices beside %s; the slices are read", folder, beside[0].name)
        return [folder]
    without: list[Path] = []
    found = [series for entry in folders for series in _series(entry, (*above, real), without)]
    left += without if found else [folder]
    return found


def _announce(folder: Path, left: Sequence[Path]) -> None:
    if left:
        names = sorted(str(entry.relative_to(folder)) for entry in left)
        more = f" and {len(names) - NAMED_AT_MOST} more" if len(names) > NAMED_AT_MOST else ""
        listed = ", ".join(names[:NAMED_AT_MOST]) + more
        LOG.warning("%s: left out, neither images nor folders of DICOM slices: %s", folder, listed)


def _group_key(file: Path, names: set[str]) -> tuple[str, str]:
    """Files of one key are channels of one case: those numbered from 0000, whose first is there."""
    stem, ending = split_ending(in_small_letters(file.name, ENDINGS), ENDINGS)
    match = CHANNEL.fullmatch(stem)
    if match and f"{match[1]}_0000{ending}" in names:
        return match[1], f"_{ending}"
    return file.name, ""


def _gaps(group: Sequence[Path]) -> Iterator[str]:
    """Names the channels that are missing between others of a case."""
    stem, ending = split_ending(group[0].name, ENDINGS)
    match = CHANNEL.fullmatch(stem)
    if len(group) == 1 or match is None:
        return
    found = {split_ending(path.name, ENDINGS)[0] for path in group}
    wanted = [f"{match[1]}_{number:04d}" for number in range(len(group))]
    if missing := [f"{stem}{ending}" for stem in wanted if stem not in found]:
        yield f"case {match[1]}: channels must be numbered without a gap, got no {missing[0]}; add it or renumber them."
