"""The cases of a prediction: their files, where results go, and what became of them; results never replace an input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seg.data.volumes import ENDINGS, NIFTI_ENDINGS, is_series
from seg.errors import ConfigError, DataError
from seg.inference.inputs import Group, in_folder, in_list, nifti_files, with_channels

if TYPE_CHECKING:
    pass
if TYPE_CHECKING:
    pass

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
    """

    name: str
    paths: tuple[Path, ...]
    output: Path

    @property
    def probabilities(self) -> Path:
        """File of the probabilities."""
        return self.output.parent / PROBABILITIES / self.output.name

    def results(self, *, probabilities: bool) -> list[Path]:
        """Returns the files that are written."""
        return [self.output, self.probabilities] if probabilities else [self.output]


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
    problems: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Returns the record's entry."""
        return {
            "output": self.output,
            "status": self.status,
            "volumes_ml": {name: round(volume, 6) for name, volume in self.volumes_ml.items()},
            "seconds": {stage: round(value, 4) for stage, value in self.seconds.items()},
            "warnings": list(self.warnings),
            "problems": list(self.problems),
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
    if not input_path.exists():
        raise DataError(f"--input must be a file, a folder or a list, got {input_path}, which does not exist.")
    if input_path.is_dir() and (not is_series(input_path) or nifti_files(input_path)):
        groups = in_folder(input_path)
    elif input_path.name.lower().endswith(LIST_ENDING):
        groups = in_list(input_path)
    elif input_path.is_dir() or input_path.name.lower().endswith(ENDINGS):
        source = _single(with_channels(input_path), output)
        _check_results([source], probabilities=probabilities)
        return (source,)
    else:
        raise DataError(
            f"--input must be an image ({', '.join(ENDINGS)}), a folder of images or a list ({LIST_ENDING}), "
            f"got {input_path}; convert it."
        )
    if output.name.lower().endswith(NIFTI_ENDINGS) or output.is_file():
        raise ConfigError(f"--output must be a folder where --input is a folder or a list, got {output}.")
    sources = [Source(name=g.name, paths=g.paths, output=output / f"{g.name}{OUTPUT_ENDING}") for g in groups]
    inputs = {folder for source in sources for path in source.paths for folder in _folders(path)}
    written = [output, output / PROBABILITIES] if probabilities else [output]
    for folder in written:
        if folder.resolve() in inputs | ({input_path.resolve()} if input_path.is_dir() else set()):
            raise ConfigError(f"--output must be another folder than that of the inputs, got {folder} for both.")
    _check_results(sources, probabilities=probabilities)
    return tuple(sources)


def _folders(path: Path) -> set[Path]:
    """Returns the folders that an input lies in, by its name and where links lead; and itself, which may be one."""
    return {path.resolve(), path.parent.resolve(), path.resolve().parent}


def _single(group: Group, output: Path) -> Source:
    if output.name.lower().endswith(NIFTI_ENDINGS) and not output.is_dir():
        target = output
    elif output.name.lower().endswith((*ENDINGS, ".gz")) and not output.is_dir():
        raise ConfigError(f"--output must end in .nii.gz or .nii, or be a folder, got {output}; label maps are NIfTI.")
    elif output.is_file():
        raise ConfigError(f"--output must be a file ending in .nii.gz or .nii, or a folder, got the file {output}.")
    else:
        target = output / f"{group.name}{OUTPUT_ENDING}"
        if output.resolve() in {folder for path in group.paths for folder in _folders(path) - {path.resolve()}}:
            raise ConfigError(
                f"--output must be another folder than that of the input, got {output} for both; name a file ending in "
                ".nii.gz to write beside it."
            )
    if target.parent.resolve() in {path.resolve() for path in group.paths}:
        raise ConfigError(f"--output must be another folder than that of the slices, got {output}; name another.")
    return Source(name=group.name, paths=group.paths, output=target)


def _check_results(sources: Sequence[Source], *, probabilities: bool) -> None:
    """Refuses results that would replace an input of any case, or one another."""
    inputs = {path.resolve(): path for source in sources for path in source.paths}
    problems = []
    for source in sources:
        for result in source.results(probabilities=probabilities):
            # Renamed to its place, a file replaces a link; what the link leads to is kept, but is nobody's to guess.
            places = (result.resolve(), result.parent.resolve() / result.name)
            if path := next((inputs[place] for place in places if place in inputs), None):
                same = "" if path == result else f", which is the input {path}"
                problems.append(f"--output must be another file than --input, got {result} for both{same}.")
    problems += _collisions(sources, probabilities=probabilities)
    if problems:
        raise ConfigError(problems)


def _collisions(sources: Sequence[Source], *, probabilities: bool) -> Iterator[str]:
    first: dict[Path, Source] = {}
    for source in sources:
        for result in source.results(probabilities=probabilities):
            other = first.setdefault(result, source)
            if other is not source:
                yield (
                    f"inputs must have different names, got {other.paths[0]} and {source.paths[0]} for {result}; "
                    "rename one, name its label map behind a tab in a list, or predict it by itself."
                )
                break
