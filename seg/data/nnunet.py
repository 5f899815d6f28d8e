"""The layout of nnU-Net v2 raw data sets.

References:
    Isensee et al., nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation, Nature
    Methods 18, 203-211 (2021), doi 10.1038/s41592-020-01008-z.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from seg.data.cases import Case, Dataset
from seg.data.declarations import check_number, described, read_case, read_json, read_meaning
from seg.data.ids import check_ids
from seg.data.volumes import NIFTI_ENDINGS
from seg.errors import DataError

FILE_NAME = "dataset.json"


def read_nnunet(root: Path) -> Dataset:
    """Reads ``dataset.json`` and the files ``imagesTr/CASE_0000.nii.gz`` and ``labelsTr/CASE.nii.gz``.

    Cases are those of the folders, sorted, or those of the entry ``dataset`` where there is one. A case is listed with
    every declared channel, present or not, so that checks name the files it lacks.

    Args:
        root: Folder of the data set.

    Returns:
        The training cases.

    Raises:
        DataError: The description breaks a rule; all that are broken are named.
    """
    path = root / FILE_NAME
    content = read_json(path)
    problems: list[str] = []
    labels = content.get("labels")
    if not isinstance(labels, dict):
        problems.append(
            f'{path}: labels must give each class its value, got {labels!r}; write {{"background": 0, ...}}.'
        )
        labels = {}
    meaning = read_meaning(labels, content.get("channel_names"), path, problems)
    ending = content.get("file_ending")
    if str(ending).lower() not in NIFTI_ENDINGS:
        problems.append(f"{path}: file_ending must be .nii.gz or .nii, got {ending!r}; convert the files to NIfTI.")
    if problems:
        raise DataError(problems)
    if "dataset" in content:
        cases = _listed(root, content["dataset"], path, problems)
    else:
        cases = _found(root, str(ending), len(meaning.channel_names), problems)
    if not problems:
        problems.extend(check_number(content, len(cases), path))
    problems.extend(check_ids(cases, path))
    if problems:
        raise DataError(problems)
    return described(content, root, "nnunet", cases, meaning)


def _found(root: Path, ending: str, num_channels: int, problems: list[str]) -> list[Case]:
    """Lists the cases that have files in imagesTr or labelsTr."""
    images, labels = root / "imagesTr", root / "labelsTr"
    channels: dict[str, set[int]] = {path.name[: -len(ending)]: set() for path in _files(labels, ending, problems)}
    for path in _files(images, ending, problems):
        match = re.fullmatch(r"(.+)_([0-9]{4})", path.name[: -len(ending)])
        if match is None:
            problems.append(f"{path}: image names must end in _0000, _0001, ... for the channel; rename the file.")
        else:
            channels.setdefault(match[1], set()).add(int(match[2]))
    if not channels:
        problems.append(f"{images}: must hold files CASE_0000{ending}, got none; check data.root.")
    return [
        Case(
            id=case_id,
            images=tuple(images / f"{case_id}_{n:04d}{ending}" for n in sorted(indices | set(range(num_channels)))),
            label=labels / f"{case_id}{ending}" if (labels / f"{case_id}{ending}").is_file() else None,
        )
        for case_id, indices in sorted(channels.items())
    ]


def _files(folder: Path, ending: str, problems: list[str]) -> list[Path]:
    """Lists the files of an ending, and names those whose letters differ from it in case alone."""
    if not folder.is_dir():
        return []
    files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    problems.extend(
        f"{path}: names must end in {ending}, as file_ending says, got {path.name[-len(ending) :]}; rename the file."
        for path in files
        if path.name.lower().endswith(ending.lower()) and not path.name.endswith(ending)
    )
    return [path for path in files if path.name.endswith(ending)]


def _listed(root: Path, entries: Any, path: Path, problems: list[str]) -> list[Case]:
    """Reads the entry ``dataset``: a case's files by its id."""
    if not isinstance(entries, dict) or not entries:
        problems.append(f"{path}: dataset must map case ids to images and label, got {entries!r}; correct it.")
        return []
    cases: list[Case] = []
    for case_id, entry in entries.items():
        where = f"{path}: case {case_id}"
        if not isinstance(entry, dict):
            problems.append(f"{where} must be an object with images and label, got {entry!r}; correct the entry.")
        elif case := read_case(
            root, {"id": case_id, "image": entry.get("images"), "label": entry.get("label")}, where, problems
        ):
            cases.append(case)
    return cases
