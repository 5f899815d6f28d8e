"""Cases to predict: which files an input holds, where results go, and what became of each case."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

from seg.data.channels import group_channels, split_channel
from seg.data.volumes import ENDINGS, NIFTI_ENDINGS, companion_files, is_series, split_ending
from seg.errors import ConfigError, DataError, Problem
from seg.files import MOST_NAME_BYTES, check_folder, quoted, read_bytes, real_path, unencodable
from seg.words import some

LIST_ENDING = ".txt"

OUTPUT_ENDING = ".nii.gz"
DONE, FAILED, SKIPPED = "done", "failed", "skipped"
PROBABILITIES = "probabilities"


@dataclass(frozen=True, kw_only=True)
class Source:
    """A case to predict.

    Attributes:
        name: What the input is called, without endings.
        paths: One file per channel, one file, or the folder of a DICOM series.
        output: File of the label map.
        with_probabilities: Whether probabilities are written too.
        problem: Why no file can have the name of the label map; the case then fails, and nothing is written of it.
    """

    name: str
    paths: tuple[Path, ...]
    output: Path
    with_probabilities: bool = False
    problem: Problem | None = None

    @property
    def probabilities(self) -> Path:
        """File of the probabilities."""
        return self.output.parent / PROBABILITIES / self.output.name

    @property
    def results(self) -> list[Path]:
        """The files that are written."""
        if self.problem is not None:
            return []
        return [self.output, self.probabilities] if self.with_probabilities else [self.output]


@dataclass(frozen=True, kw_only=True)
class Record:
    """What became of a case.

    Attributes:
        output: Name of the label map within the manifest's folder.
        status: ``done``, ``failed``, or ``skipped`` where the label map was there before.
        volumes_ml: Volume of each foreground class, in ml.
        seconds: Time per stage.
        warnings: Sentences.
        problems: Why it failed.
    """

    output: str
    status: str
    volumes_ml: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Returns the record's entry."""
        return asdict(self) | {
            "volumes_ml": {name: round(volume, 6) for name, volume in self.volumes_ml.items()},
            "seconds": {stage: round(value, 4) for stage, value in self.seconds.items()},
        }


def find_sources(input_path: Path, output: Path, *, probabilities: bool = False) -> tuple[Source, ...]:
    """Finds the cases of an input.

    A folder's files are its cases, and so are the folders of DICOM slices at any depth below it. Files ``NAME_0000``,
    ``NAME_0001``, ... are the channels of one case ``NAME``, as in nnU-Net. A list names one case on each line,
    channels separated by ``;``, relative to the list's folder, and behind a tab what its label map is to be called
    where that is not the name of its file.

    Args:
        input_path: A file, a folder, or a list of files in a text file.
        output: File or folder of a single case's result, else a folder.
        probabilities: Whether probabilities are written too.

    Returns:
        The cases, by name or in the order of the list. Whether files can be read is not looked into.

    Raises:
        DataError: There is no case.
        ConfigError: Results would fall on inputs, wherever links lead, or on one another, or the output is no name for
            them.
    """
    check_folder(output.parent, given=output)
    if not input_path.exists():
        rule = "must be a file, a folder or a list"
        raise DataError(Problem("--input", "missing", rule, f"{input_path}, which does not exist", "check the path"))
    if input_path.is_dir() and (not is_series(input_path) or nifti_files(input_path)):
        groups = in_folder(input_path)
    elif input_path.name.lower().endswith(LIST_ENDING):
        groups = in_list(input_path)
    elif input_path.is_dir() or input_path.name.lower().endswith(ENDINGS):
        group = with_channels(input_path)
        sources = [_source(group, _single_output(group, output), probabilities=probabilities)]
        _check_results(sources)
        return tuple(sources)
    else:
        rule = f"must be an image ({', '.join(ENDINGS)}), a folder of images or a list ({LIST_ENDING})"
        raise DataError(Problem("--input", "format", rule, f"{input_path}", "convert it"))
    if output.name.lower().endswith(NIFTI_ENDINGS) or output.is_file():
        rule = "must be a folder where --input is a folder or a list"
        raise ConfigError(Problem("--output", "folder", rule, f"{output}", "name a folder"))
    sources = [_source(group, output / f"{group.name}{OUTPUT_ENDING}", probabilities=probabilities) for group in groups]
    inputs = {folder for source in sources for path in source.paths for folder in _folders(path)}
    written = [output, output / PROBABILITIES] if probabilities else [output]
    for folder in written:
        if real_path(folder) in inputs | ({real_path(input_path)} if input_path.is_dir() else set()):
            raise ConfigError(_same_folder(folder, "the inputs", "name another"))
    _check_results(sources)
    return tuple(sources)


def _source(group: Group, output: Path, *, probabilities: bool) -> Source:
    problem = next(iter(unencodable([group.name])), None)
    if (length := len(os.fsencode(output.name))) > MOST_NAME_BYTES:
        rule = f"must have a label map whose name has at most {MOST_NAME_BYTES} bytes"
        problem = Problem(quoted(group.name), "name", rule, f"{length}", "rename it")
    # The manifest names the case, and is in UTF-8.
    output = output.with_name(output.name.encode(errors="backslashreplace").decode())
    return Source(name=group.name, paths=group.paths, output=output, with_probabilities=probabilities, problem=problem)


def _folders(path: Path) -> set[Path]:
    """Returns the folders that hold an input, by its name and by where links lead, and the input itself."""
    return {real_path(path), real_path(path.parent), real_path(path).parent}


def _same_folder(output: Path, of: str, remedy: str) -> Problem:
    return Problem("--output", "input", f"must be another folder than that of {of}", f"{output} for both", remedy)


def _single_output(group: Group, output: Path) -> Path:
    """Returns the file of the label map of a case that is predicted by itself."""
    name = output.name.lower()
    if name.endswith(NIFTI_ENDINGS) and not output.is_dir():
        target = output
    elif not output.is_dir() and (output.is_file() or FILE_ENDING.fullmatch(output.suffix.lower())):
        rule = "must be a file ending in .nii.gz or .nii, or a folder"
        remedy = "end in .nii.gz, or name a folder; one whose name has such an ending must be made before"
        raise ConfigError(Problem("--output", "ending", rule, f"{output}", remedy))
    else:
        target = output / f"{group.name}{OUTPUT_ENDING}"
        if real_path(output) in {folder for path in group.paths for folder in _folders(path) - {real_path(path)}}:
            raise ConfigError(_same_folder(output, "the input", "name a file ending in .nii.gz to write beside it"))
    if real_path(target.parent) in {real_path(path) for path in group.paths}:
        raise ConfigError(_same_folder(output, "the slices", "name another"))
    return target


def _check_results(sources: Sequence[Source]) -> None:
    """Checks that no result replaces an input or another result."""
    inputs = {real_path(path): path for source in sources for path in source.paths}
    unnamed = [source.problem for source in sources if source.problem is not None]
    problems = unnamed if len(unnamed) == len(sources) else []
    first: dict[Path, Source] = {}
    for source in sources:
        for result in source.results:
            # Writing replaces a link and keeps the file that the link leads to; both are refused all the same.
            places = (real_path(result), real_path(result.parent) / result.name)
            if path := next((inputs[place] for place in places if place in inputs), None):
                value = f"{result} for both" + ("" if path == result else f", which is the input {path}")
                rule = "must be another file than --input"
                problems.append(Problem("--output", "input", rule, value, "name another"))
        other = first.setdefault(source.output, source)
        if other is not source and source.problem is None:
            value = f"{other.paths[0]} and {source.paths[0]} for {source.output}"
            remedy = "rename one, name its label map behind a tab in a list, or predict it by itself"
            problems.append(Problem("inputs", "names", "must have different names", value, remedy))
    if problems:
        raise ConfigError(problems)


LOG = logging.getLogger(__name__)
FILE_ENDING = re.compile(r"\.[a-z][a-z0-9]{1,4}")
"""The ending of a file's name, which the name of a new folder must not have; ``.5`` in ``run_0.5`` is none."""
SLICE_ENDING = ".dcm"
NAMED_AT_MOST = 20
"""Most files and folders that a warning names; of further files it gives the number."""


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
    groups = list(group_channels(files))
    if gaps := [gap for group in groups for gap in _gaps(group)]:
        raise DataError(gaps)
    series, left = series_below(folder)
    cases = sorted([*map(group_of, groups), *series], key=lambda case: case.name)
    known = {*files, *(data for file in files for data in companion_files(file))}
    left += [entry for entry in entries if not entry.is_dir() and entry not in known]
    if cases:
        _announce(folder, left)
        return cases
    rule = f"must hold images ({', '.join(ENDINGS)}) or folders of DICOM slices"
    raise DataError(Problem(str(folder), "empty", rule, "none", "check --input"))


def nifti_files(folder: Path) -> list[Path]:
    """Returns the NIfTI files of a folder, as dcm2niix leaves them beside the slices that it converted."""
    return [entry for entry in _entries(folder) if entry.name.lower().endswith(NIFTI_ENDINGS) and entry.is_file()]


def series_below(folder: Path) -> tuple[list[Group], list[Path]]:
    """Finds folders of DICOM slices at any depth below a folder, and the folders that hold none."""
    left: list[Path] = []
    found = [
        series for entry in _entries(folder) if entry.is_dir() for series in _series(entry, (real_path(folder),), left)
    ]
    return [Group(name="_".join(series.relative_to(folder).parts), paths=(series,)) for series in found], left


def in_list(file: Path) -> list[Group]:
    """Reads a list: a case on each line, channels separated by ``;``, relative to the list's folder.

    A line may name the label map behind a tab, for cases whose files are called alike.

    Raises:
        DataError: The list cannot be read or names no case, or a line names no files or no name.
    """
    raw = read_bytes(file, remedy="check --input", error=DataError)
    try:
        lines = [line.strip() for line in raw.decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        problem = Problem(str(file), "encoding", "must be a list in UTF-8", f"'{error}'", "write it anew")
        raise DataError(problem) from error
    groups = [_of_line(file, line) for line in lines if line and not line.startswith("#")]
    if not groups:
        rule = "must name at least one image, one on each line"
        raise DataError(Problem(str(file), "empty", rule, "none", "add them"))
    return groups


def _of_line(file: Path, line: str) -> Group:
    listed, tab, name = line.partition("\t")
    parts = tuple(file.parent / part.strip() for part in listed.split(";") if part.strip())
    if not parts or parts[0].name in ("", ".", "..") or "\0" in listed:
        raise DataError(Problem(str(file), "line", "must name files on each line", repr(line), "correct the line"))
    if "\\" in listed and not os.path.lexists(parts[0]):
        remedy = f"write {PureWindowsPath(listed).as_posix()}"
        raise DataError(Problem(str(file), "separator", "must separate folders by /", listed, remedy))
    if not tab:
        return group_of(parts)
    name, _ = split_ending(name.strip(), NIFTI_ENDINGS)
    if name in ("", ".", "..") or set(name) & set("/\\\t\0"):
        rule = "must give a plain name for the label map behind a tab"
        raise DataError(Problem(str(file), "line", rule, repr(line), "correct the line"))
    return Group(name=name, paths=parts)


def with_channels(path: Path) -> Group:
    """Returns a file with the further channels that lie beside it, where it is the first of them."""
    group = [path]
    if not path.is_dir() and split_channel(path.name)[1] == 0:
        own = next(files for files in group_channels({path, *_entries(path.parent)}) if path in files)
        numbered = {split_channel(file.name)[1]: file for file in own}
        while further := numbered.get(len(group)):  # behind a gap, files are of something else
            group.append(further)
    elif path.is_dir():
        _announce(path, [entry for entry in _entries(path) if entry.is_dir()])
    return group_of(tuple(group))


def group_of(paths: tuple[Path, ...]) -> Group:
    """Names a case after its first file; the name is never a path."""
    name = paths[0].name if paths[0].name not in ("", ".", "..") else real_path(paths[0]).name
    case, number = split_channel(name)
    return Group(name=case if number == 0 else split_ending(name, ENDINGS)[0], paths=paths)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        problem = Problem(str(folder), "unreadable", "must be readable", f"'{error.strerror}'", "check --input")
        raise DataError(problem) from error


def _series(folder: Path, above: tuple[Path, ...], left: list[Path]) -> list[Path]:
    """Finds the folders of slices in a folder, itself included; other folders are added to ``left``."""
    real = real_path(folder)
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
        LOG.warning("%s: left out, neither images nor folders of DICOM slices: %s", folder, some(names, NAMED_AT_MOST))


def _gaps(group: Sequence[Path]) -> Iterator[Problem]:
    """Names the channels that are missing between others of a case."""
    case, number = split_channel(group[0].name)
    found = {split_channel(path.name)[1] for path in group}
    if number is not None and (missing := sorted(set(range(len(group))) - found)) and len(group) > 1:
        ending = split_ending(group[0].name, ENDINGS)[1]
        rule, value = "must have channels that are numbered without a gap", f"no {case}_{missing[0]:04d}{ending}"
        yield Problem(f"case {case}", "channels", rule, value, "add it or renumber them")
