"""Which cases a file, a folder or a list holds, and where their results go."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from seg.data.endings import NIFTI_ENDINGS, in_small_letters, split_ending
from seg.data.formats import DICOM, ENDINGS, format_of, holds_dicom
from seg.errors import ConfigError, DataError

LOG = logging.getLogger(__name__)
LIST_ENDING = ".txt"
OUTPUT_ENDING = ".nii.gz"
PROBABILITIES = "probabilities"
CHANNEL = re.compile(r"(.+)_([0-9]{4})", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A case to predict.

    Attributes:
        name: What the input is called, without endings.
        paths: One file per channel, one file, or the folder of a DICOM series.
        output: File of the label map.
    """

    name: str
    paths: tuple[Path, ...]
    output: Path

    @property
    def probabilities(self) -> Path:
        """File of the probabilities."""
        return self.output.parent / PROBABILITIES / self.output.name


def find_sources(input_path: Path, output: Path) -> tuple[Source, ...]:
    """Finds the cases of an input.

    A folder's files are its cases, and so are its folders of DICOM slices. Files ``NAME_0000``, ``NAME_0001``, ... are
    the channels of one case ``NAME``, as in nnU-Net. A list names one case on each line, channels separated by ``;``,
    relative to the list's folder.

    Args:
        input_path: A file, a folder, or a list of files in a text file.
        output: File or folder of a single case's result, else a folder.

    Returns:
        The cases, by name or in the order of the list. Whether files can be read is not looked into.

    Raises:
        DataError: There is no case.
        ConfigError: Results would fall on inputs or on one another, or the output is no name for them.
    """
    if not input_path.exists():
        raise DataError(f"--input must be a file, a folder or a list, got {input_path}, which does not exist.")
    if input_path.is_dir() and not holds_dicom(input_path):
        groups = _in_folder(input_path)
    elif input_path.name.lower().endswith(LIST_ENDING):
        groups = _in_list(input_path)
    elif input_path.is_dir() or input_path.name.lower().endswith(ENDINGS):
        group = _with_channels(input_path)
        return (_single(_name(group), group, output),)
    else:
        raise DataError(
            f"--input must be an image ({', '.join(ENDINGS)}), a folder of images or a list ({LIST_ENDING}), "
            f"got {input_path}; convert it."
        )
    if output.name.lower().endswith(NIFTI_ENDINGS) or output.is_file():
        raise ConfigError(f"--output must be a folder where --input is a folder or a list, got {output}.")
    sources = [Source(name=_name(g), paths=g, output=output / f"{_name(g)}{OUTPUT_ENDING}") for g in groups]
    inputs = {folder.resolve() for group in groups for path in group for folder in (path, path.parent)}
    if output.resolve() in inputs | ({input_path.resolve()} if input_path.is_dir() else set()):
        raise ConfigError(f"--output must be another folder than that of the inputs, got {output} for both.")
    if problems := list(_collisions(sources)):
        raise ConfigError(problems)
    return tuple(sources)


def _single(name: str, group: tuple[Path, ...], output: Path) -> Source:
    if output.name.lower().endswith(NIFTI_ENDINGS) and not output.is_dir():
        target = output
    elif output.name.lower().endswith((*ENDINGS, ".gz")) and not output.is_dir():
        raise ConfigError(f"--output must end in .nii.gz or .nii, or be a folder, got {output}; label maps are NIfTI.")
    elif output.is_file():
        raise ConfigError(f"--output must be a file ending in .nii.gz or .nii, or a folder, got the file {output}.")
    else:
        target = output / f"{name}{OUTPUT_ENDING}"
        if output.resolve() in {path.parent.resolve() for path in group}:
            raise ConfigError(
                f"--output must be another folder than that of the input, got {output} for both; name a file ending in "
                ".nii.gz to write beside it."
            )
    if target.parent.resolve() in {path.resolve() for path in group}:
        raise ConfigError(f"--output must be another folder than that of the slices, got {output}; name another.")
    if target.resolve() in {path.resolve() for path in group}:
        raise ConfigError(f"--output must be another file than --input, got {target} for both.")
    return Source(name=name, paths=group, output=target)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: must be readable, got '{error.strerror}'; check --input.") from error


def _in_folder(folder: Path) -> list[tuple[Path, ...]]:
    entries = _entries(folder)
    files = [entry for entry in entries if entry.name.lower().endswith(ENDINGS) and not entry.is_dir()]
    groups: dict[tuple[str, str], list[Path]] = {}
    names = {in_small_letters(file.name, ENDINGS) for file in files}
    for file in files:
        groups.setdefault(_group_key(file, names), []).append(file)
    if gaps := [gap for group in groups.values() for gap in _gaps(group)]:
        raise DataError(gaps)
    series = [(entry,) for entry in entries if entry.is_dir() and format_of(entry) is DICOM]
    found = sorted([*(tuple(group) for group in groups.values()), *series], key=_name)
    taken = {path for group in found for path in group}
    if found and (others := [entry.name for entry in entries if entry not in taken]):
        LOG.warning("%s: left out, neither images nor folders of DICOM slices: %s", folder, ", ".join(others))
    if not found:
        raise DataError(
            f"{folder}: must hold images ({', '.join(ENDINGS)}) or folders of DICOM slices, got none; check --input."
        )
    return found


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


def _with_channels(path: Path) -> tuple[Path, ...]:
    """Returns a file with the further channels that lie beside it, where it is the first of them."""
    stem, ending = split_ending(path.name, ENDINGS)
    match = CHANNEL.fullmatch(stem)
    if path.is_dir() or match is None or match[2] != "0000":
        return (path,)
    group = [path]
    beside = {in_small_letters(other.name, ENDINGS): other for other in _entries(path.parent)}
    while further := beside.get(f"{match[1]}_{len(group):04d}{ending.lower()}"):
        group.append(further)
    return tuple(group)


def _in_list(file: Path) -> list[tuple[Path, ...]]:
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: must be a readable list in UTF-8, got '{error}'; write it anew.") from error
    groups = []
    for line in lines:
        if line and not line.startswith("#"):
            parts = [file.parent / part.strip() for part in line.split(";") if part.strip()]
            if not parts or parts[0].name in ("", ".", ".."):
                raise DataError(f"{file}: each line must name files, got {line!r}; correct the line.")
            groups.append(tuple(parts))
    if not groups:
        raise DataError(f"{file}: must name at least one image, one on each line, got none; add them.")
    return groups


def _name(group: Sequence[Path]) -> str:
    """Names a case after its first file; the name is one part of a path, whatever the list says."""
    name = group[0].name if group[0].name not in ("", ".", "..") else group[0].resolve().name
    stem, _ = split_ending(name, ENDINGS)
    match = CHANNEL.fullmatch(stem)
    return match[1] if match and match[2] == "0000" else stem


def _collisions(sources: Sequence[Source]) -> Iterator[str]:
    first: dict[Path, Source] = {}
    for source in sources:
        other = first.setdefault(source.output, source)
        if other is not source:
            yield (
                f"inputs must have different names, got {other.paths[0]} and {source.paths[0]} for {source.output}; "
                "rename one or predict it by itself."
            )
