"""Names of the files of a case with one for each channel, as in nnU-Net: CASE_0000.nii.gz, CASE_0001.nii.gz and on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from seg.data.volumes import ENDINGS, split_ending

_CHANNEL = re.compile(r"(.+)_([0-9]{4})", re.DOTALL)
FIRST = "_0000"


def split_channel(name: str) -> tuple[str, int | None]:
    """Splits a file name of any ending, without that ending, into the name of its case and the number of its channel.

    Returns:
        Both; the whole stem and None where the name has no number.
    """
    stem, _ = split_ending(name, ENDINGS)
    match = _CHANNEL.fullmatch(stem)
    return (match[1], int(match[2])) if match else (stem, None)


def channel_file(path: Path, number: int) -> Path:
    """Returns the file of a channel beside a file that is named after its case alone."""
    stem, ending = split_ending(path.name, ENDINGS)
    return path.with_name(f"{stem}_{number:04d}{ending}")


def group_channels(files: Iterable[Path]) -> Iterator[tuple[Path, ...]]:
    """Groups the files of a folder by case: channels of one ending, the first of them 0000, are one case; others alone.

    Capitals in endings count as small letters.

    Yields:
        The files of a case, in order of their names.
    """
    groups: dict[tuple[str, str], list[Path]] = {}
    files = sorted(files)
    endings = {file: split_ending(file.name, ENDINGS)[1].lower() for file in files}
    splits = {file: split_channel(file.name) for file in files}
    firsts = {(splits[file][0], endings[file]) for file in files if splits[file][1] == 0}
    for file in files:
        case, number = splits[file]
        key = (case, endings[file])
        groups.setdefault(key if number is not None and key in firsts else (file.name, ""), []).append(file)
    yield from map(tuple, groups.values())
