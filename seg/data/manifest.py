"""A manifest: a table of files, for data that is in no known layout.

``manifest.csv`` has a header and one line per case; ``manifest.json`` has a list ``cases`` of objects with the same
names. Paths are relative to the manifest's folder.

======================  ===============================================================================================
column                  meaning
======================  ===============================================================================================
image                   file of the image; several files, one per channel, are separated by ``;`` (in JSON: a list)
image_0, image_1, ...   instead of ``image`` in CSV: one column per channel
label                   file of the label map (may be empty)
id                      name of the case; else that of its first image file
patient                 whose case it is: cases of one patient stay on one side of a split
fold                    number of the fold that validates on the case, from 0
======================  ===============================================================================================

``name``, ``licence``, ``labels`` (``{"background": 0, "liver": 1}``; the name ``ignore`` marks a label left out) and
``channel_names`` (``{"0": "T1"}`` or a list) may stand in ``manifest.json``, beside ``cases`` or beside a
``manifest.csv``. Without ``labels`` the classes are 0 to the highest value of the label files, which are read for it
and must hold every value in between; without ``channel_names`` the channels are counted in the first case that can be
read.
"""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seg.data.cases import LABEL_TOLERANCE, MAX_LABEL, Case, Dataset
from seg.data.declarations import Meaning, as_integer, described, read_case, read_json, read_meaning
from seg.data.ids import check_ids
from seg.data.volumes import read_header, read_label
from seg.errors import DataError

LOG = logging.getLogger(__name__)
FILE_NAMES = ("manifest.csv", "manifest.json")
_COLUMNS = {"image", "label", "id", "patient", "fold"}
_CHANNEL = re.compile(r"image_([0-9]+)")


def read_manifest(root: Path) -> Dataset:
    """Reads a manifest.

    Args:
        root: Folder with ``manifest.csv`` or ``manifest.json``, or the manifest itself.

    Returns:
        Its cases, in its order.

    Raises:
        DataError: The manifest breaks a rule; all that are broken are named.
    """
    path = root if root.is_file() else next((root / name for name in FILE_NAMES if (root / name).is_file()), None)
    if path is None:
        raise DataError(f"{root}: must hold {' or '.join(FILE_NAMES)}, got neither; check data.root and data.layout.")
    folder = path.parent
    problems: list[str] = []
    sidecar = path.with_suffix(".json")
    content = read_json(sidecar) if sidecar.is_file() else {}
    if path.suffix == ".json":
        entries = _json_entries(content, path, problems)
    elif "cases" in content:
        raise DataError(f"{folder}: {path.name} and {sidecar.name} both list cases; drop one list.")
    else:
        entries = _csv_entries(path, problems)
    read = [read_case(folder, entry, where, problems) for where, entry in entries]
    cases = [case for case in read if case is not None]
    problems.extend(check_ids(cases, path))
    if problems:
        raise DataError(problems)
    meaning = _meaning(content, sidecar, cases, problems)
    if problems:
        raise DataError(problems)
    return described(content, folder, "manifest", cases, meaning)


def _json_entries(content: dict[str, Any], path: Path, problems: list[str]) -> list[tuple[str, dict[str, Any]]]:
    entries = content.get("cases")
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path}: cases must be a list of at least one case, got {entries!r}; list the cases.")
    found: list[tuple[str, dict[str, Any]]] = []
    for number, entry in enumerate(entries):
        where = f"{path}: cases[{number}]"
        if not isinstance(entry, dict):
            problems.append(f"{where} must be an object with image and label, got {entry!r}; correct the entry.")
            continue
        if unknown := sorted(set(entry) - _COLUMNS):
            problems.append(f"{where} may hold {', '.join(sorted(_COLUMNS))}, got {', '.join(unknown)}; remove them.")
        found.append((where, entry))
    return found


def _csv_entries(path: Path, problems: list[str]) -> list[tuple[str, dict[str, Any]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, strict=True)
            columns = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = columns
            rows = [(reader.line_num, row) for row in reader]
    except OSError as error:
        raise DataError(f"{path}: must be readable, got '{error.strerror}'; check data.root.") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: must be comma-separated text in UTF-8, got '{error}'; export it again.") from error
    channels = sorted((name for name in columns if _CHANNEL.fullmatch(name)), key=lambda name: int(name[6:]))
    unknown = [name for name in columns if name not in _COLUMNS and name not in channels]
    if unknown or len(set(columns)) < len(columns) or ("image" in columns) == bool(channels):
        raise DataError(
            f"{path}: columns must be image (or image_0, image_1, ...), label, id, patient, fold, each at most once, "
            f"got {', '.join(columns) or 'none'}; correct the header."
        )
    if not rows:
        raise DataError(f"{path}: must list at least one case, got none; add a line per case.")
    return [(f"{path}: line {line}", _csv_entry(row, channels, f"{path}: line {line}", problems)) for line, row in rows]


def _csv_entry(row: dict[str, Any], channels: Sequence[str], where: str, problems: list[str]) -> dict[str, Any]:
    if None in row or None in row.values():
        problems.append(f"{where} must have as many fields as the header; correct the line.")
    cells = {name: (value or "").strip() for name, value in row.items() if isinstance(name, str)}
    entry: dict[str, Any] = {name: cells.get(name) or None for name in ("label", "id", "patient")}
    entry["image"] = [cells[name] for name in channels] if channels else cells["image"].split(";")
    if cells.get("fold"):
        number = as_integer(cells["fold"])
        entry["fold"] = cells["fold"] if number is None else number
    return entry


def _meaning(content: dict[str, Any], path: Path, cases: Sequence[Case], problems: list[str]) -> Meaning:
    labels = content.get("labels")
    if labels is not None and not isinstance(labels, dict):
        problems.append(
            f'{path}: labels must give each class its value, got {labels!r}; write {{"background": 0, ...}}.'
        )
    if not isinstance(labels, dict):
        values = _label_values(cases)
        expected = range(1, max(values, default=1) + 1)
        if len(values) < len(expected) and values:
            problems.append(
                f"{path.parent}: labels must be 0, 1, 2 and on without a gap where the manifest declares none, got "
                f"{', '.join(map(str, sorted(values)))}; declare labels in {path.name}, or correct the label maps."
            )
        else:
            LOG.info("classes: 0 to %d, found in the label maps; declare labels in %s", expected[-1], path.name)
        labels = {"background": 0} | {f"class_{value}": value for value in expected}
    channels = content.get("channel_names")
    if channels is None:
        channels = [f"channel_{number}" for number in range(_count_channels(cases))]
    return read_meaning(labels, channels, path, problems)


def _label_values(cases: Sequence[Case]) -> set[int]:
    """Returns the foreground values of all label files; what no label may hold is left to the checks."""
    found: set[int] = set()
    for case in cases:
        if case.label is None:
            continue
        try:
            values = np.unique(read_label(case.label).array)
        except DataError:
            continue
        near = values[(values > 0.5) & (values < MAX_LABEL + 0.5)]
        found.update(int(value) for value in np.rint(near[np.abs(near - np.rint(near)) <= LABEL_TOLERANCE]))
    return found


def _count_channels(cases: Sequence[Case]) -> int:
    """Returns the channels of the first case that can be read, or 1; files at fault are left to the checks."""
    for case in cases:
        if len(case.images) > 1:
            return len(case.images)
        try:
            return read_header(case.images[0]).channels
        except DataError:
            continue
    return 1
