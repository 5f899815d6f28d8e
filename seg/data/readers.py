"""From a folder to the data set it holds."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from seg.config import DataConfig
from seg.config.patients import find_patients
from seg.data.cases import Dataset
from seg.data.declarations import read_json
from seg.data.manifest import FILE_NAMES, read_manifest
from seg.data.msd import FILE_NAME, read_msd
from seg.data.nnunet import read_nnunet
from seg.data.splits import Split, make_splits
from seg.errors import DataError

Layout = Literal["auto", "msd", "nnunet", "manifest"]
READERS = {"msd": read_msd, "nnunet": read_nnunet, "manifest": read_manifest}


def read_dataset(root: Path, *, layout: Layout = "auto", patient_pattern: str | None = None) -> Dataset:
    """Finds the cases of a data set; opens no image.

    (A manifest without declared classes is the exception: its label files are read for their values.)

    Args:
        root: Folder of the data set, or the file of a manifest.
        layout: Layout of the folder; ``auto`` finds it out from ``dataset.json`` or the manifest there.
        patient_pattern: Regular expression searched in each case id, whose first group is the patient; it takes the
            place of patients that the data set names.

    Returns:
        The data set, its case ids unique and its paths inside its folder.

    Raises:
        ConfigError: ``patient_pattern`` is not a regular expression with a group.
        DataError: There is no data set in the folder, or its description breaks a rule; all that are broken are named.
    """
    root = Path(root)
    if not root.exists():
        raise DataError(f"{root}: data.root must be the folder of a data set, got no such folder; check the path.")
    kind = _detect(root) if layout == "auto" else layout
    dataset = READERS[kind](root)
    return dataset if patient_pattern is None else with_patients(dataset, patient_pattern)


def read_configured(config: DataConfig) -> Dataset:
    """Reads the data set that a configuration names; see :func:`read_dataset`."""
    return read_dataset(Path(config.root), layout=config.layout, patient_pattern=config.patient_pattern)


def read_folds(config: DataConfig) -> tuple[Dataset, tuple[Split, ...]]:
    """Reads what a data set says of itself, and its folds; no volume.

    Raises:
        DataError: Its description or its splits break a rule.
    """
    dataset = read_configured(config)
    splits_file = Path(config.splits) if config.splits else None
    return dataset, make_splits(dataset, folds=config.folds, seed=config.split_seed, splits_file=splits_file)


def _detect(root: Path) -> str:
    if root.is_file():
        return "manifest"
    found = [name for name in (FILE_NAME, *FILE_NAMES) if (root / name).is_file()]
    if not found:
        raise DataError(
            f"{root}: data.root must hold {FILE_NAME} (MSD or nnU-Net) or {' or '.join(FILE_NAMES)}, got none of them; "
            "check the path."
        )
    if FILE_NAME not in found:
        return "manifest"
    if len(found) > 1:
        raise DataError(f"{root}: holds {' and '.join(found)}; say which to read by data.layout.")
    content = read_json(root / FILE_NAME)
    if "file_ending" in content:
        return "nnunet"
    if "training" in content:
        return "msd"
    raise DataError(
        f"{root / FILE_NAME}: must hold training (MSD) or file_ending (nnU-Net v2), got {sorted(content)}; "
        "convert the data set to one of these layouts."
    )


def with_patients(dataset: Dataset, pattern: str) -> Dataset:
    """Returns a data set whose patients are those that a pattern finds in its case ids.

    Raises:
        ConfigError: The pattern is no regular expression with a group.
        DataError: Ids hold no patient; all of them are named.
    """
    patients = find_patients([case.id for case in dataset.cases], pattern)
    cases = tuple(dataclasses.replace(case, patient=patients[case.id]) for case in dataset.cases)
    return dataclasses.replace(dataset, cases=cases)
