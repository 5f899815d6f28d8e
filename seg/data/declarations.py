"""What the layouts have in common: the parts of a description and the rules they obey.

Each function appends what it finds wrong to a list and carries on, so that one reading names every problem.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from seg.data.cases import MAX_LABEL, Case, Dataset
from seg.data.volumes import split_ending
from seg.errors import DataError

SCHEMA_VERSION = 1
_IGNORE = "ignore"


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """Names of label values and channels.

    Attributes:
        class_names: Name of each label value from 0.
        ignore_label: Label value left out of training and scores.
        channel_names: Name of each channel.
    """

    class_names: tuple[str, ...]
    ignore_label: int | None
    channel_names: tuple[str, ...]


def read_json(path: Path) -> dict[str, Any]:
    """Reads a description of a data set.

    Args:
        path: JSON file whose top level is an object.

    Returns:
        The object.

    Raises:
        DataError: The file is absent or no such JSON, or a newer program wrote it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(
            f"{path}: must be readable, got '{error.strerror}'; check data.root and data.layout."
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: must be JSON text in UTF-8, got '{error}'; correct or export it again.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: must hold a JSON object, got {type(content).__name__}; see docs/conventions.")
    version = content.get("schema_version", SCHEMA_VERSION)
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= SCHEMA_VERSION:
        raise DataError(
            f"{path}: schema_version must be an integer in [1, {SCHEMA_VERSION}], got {version!r}; update seg."
        )
    return content


def inside(root: Path, text: object, where: str, problems: list[str]) -> Path | None:
    """Returns the path of a file named in a description.

    Args:
        root: Folder of the data set.
        text: Path relative to it.
        where: Beginning of the message, such as ``case a``.
        problems: Receives a sentence where the path is absolute or climbs out of the folder.

    Returns:
        The path below ``root``, or null where it is refused.
    """
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        problems.append(f"{where}: a file must be named by a relative path, got {text!r}; write one such as a.nii.gz.")
        return None
    name = text.strip()
    absolute = PurePosixPath(name).is_absolute() or bool(PureWindowsPath(name).anchor)
    if absolute or ".." in re.split(r"[/\\]", name):
        problems.append(
            f"{where}: paths must stay inside the data set's folder, got '{name}'; "
            "write it relative to the folder, without '..'."
        )
        return None
    return root / name


def read_case(root: Path, entry: Mapping[str, Any], where: str, problems: list[str]) -> Case | None:
    """Builds a case from one entry of a list.

    Args:
        root: Folder of the data set.
        entry: ``image`` (a path or a list of paths) and, as far as known, ``label``, ``id``, ``patient`` and ``fold``.
        where: Beginning of messages, which names the entry.
        problems: Receives what is wrong with the entry.

    Returns:
        The case, or null where the entry has problems.
    """
    before = len(problems)
    named = entry.get("image")
    images = [inside(root, item, where, problems) for item in (named if isinstance(named, list) else [named])]
    label = None if entry.get("label") in (None, "") else inside(root, entry["label"], where, problems)
    fold = entry.get("fold")
    if fold is not None and (not isinstance(fold, int) or isinstance(fold, bool) or fold < 0):
        problems.append(f"{where}: fold must be an integer >= 0, got {fold!r}; correct it or leave it out.")
    if not images:
        problems.append(f"{where}: image must name at least one file, got an empty list; name one per channel.")
    if len(problems) > before:
        return None
    paths = tuple(path for path in images if path is not None)
    patient = entry.get("patient")
    return Case(
        id=str(entry.get("id") or split_ending(paths[0].name)[0]),
        images=paths,
        label=label,
        patient=None if patient in (None, "") else str(patient),
        fold=fold,
    )


def read_meaning(labels: Mapping[str, object], channels: object, path: Path, problems: list[str]) -> Meaning:
    """Reads names of classes and channels.

    Args:
        labels: Name of each class and its label value; the name ``ignore`` stands for the label left out.
        channels: Index of each channel and its name, or a list of names.
        path: File that declares them.
        problems: Receives a sentence for each rule that is broken.

    Returns:
        What could be read; of use only where no problem was added.
    """
    values: dict[int, str] = {}
    ignore: int | None = None
    for name, value in labels.items():
        number = as_integer(value)
        if number is None:
            problems.append(
                f"{path}: label '{name}' must be one integer, got {value!r}; "
                "regions made of several labels are not supported, declare each label by itself."
            )
        elif name.lower() == _IGNORE:
            ignore = number
        elif number in values:
            problems.append(
                f"{path}: labels '{values[number]}' and '{name}' share the value {number}; give each its own."
            )
        else:
            values[number] = name
    if sorted(values) != list(range(len(values))) or len(values) < 2:
        problems.append(
            f"{path}: label values must be 0 (background), 1, 2, ... without a gap and at least two, "
            f"got {sorted(values)}; renumber the labels."
        )
    if max((*values, ignore or 0), default=0) > MAX_LABEL or (ignore is not None and ignore < len(values)):
        problems.append(
            f"{path}: the ignore label must follow the classes and no label may exceed {MAX_LABEL}, "
            f"got ignore {ignore} with {len(values)} classes; renumber the labels."
        )
    names = _channel_names(channels, path, problems)
    problems.extend(
        f"{path}: names of classes and channels must be printable on one line, got {name!r}; rename it."
        for name in (*labels, *names)
        if not name.isprintable()
    )
    return Meaning(class_names=tuple(values[key] for key in sorted(values)), ignore_label=ignore, channel_names=names)


def _channel_names(channels: object, path: Path, problems: list[str]) -> tuple[str, ...]:
    if isinstance(channels, list) and channels:
        return tuple(str(name) for name in channels)
    names = {as_integer(key): str(name) for key, name in channels.items()} if isinstance(channels, Mapping) else {}
    if not names or set(names) != set(range(len(names))):
        problems.append(
            f"{path}: channel_names must name channels 0, 1, ... without a gap, got {channels!r}; "
            'write for example {"0": "T1"}.'
        )
        return ()
    return tuple(names[index] for index in range(len(names)))


def check_number(content: Mapping[str, Any], count: int, path: Path) -> list[str]:
    """Says where a data set has another number of training cases than it declares: files may be missing."""
    declared = content.get("numTraining")
    if declared is None or declared == count:
        return []
    return [
        f"{path}: numTraining must equal the number of training cases, got {declared!r} with {count} cases; "
        "restore the missing files or correct it."
    ]


def described(content: Mapping[str, Any], root: Path, layout: str, cases: Sequence[Case], meaning: Meaning) -> Dataset:
    """Builds a data set from what its description says."""
    return Dataset(
        name=str(content.get("name") or root.resolve().name),
        root=root,
        layout=layout,
        cases=tuple(cases),
        class_names=meaning.class_names,
        channel_names=meaning.channel_names,
        ignore_label=meaning.ignore_label,
        licence=str(content.get("licence") or content.get("license") or "not stated"),
        attribution=str(content.get("reference") or "not stated"),
    )


def as_integer(value: object) -> int | None:
    """Returns an integer given as such or as decimal digits, else null."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if value >= 0 else None
    return int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value.strip()) else None
