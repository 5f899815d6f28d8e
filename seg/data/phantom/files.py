"""Embedded data set: labelled 3-D phantoms from a seed, written as NIfTI files in the layout of the MSD."""

from __future__ import annotations

import gzip
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from seg.data.phantom.scan import PhantomConfig, make_case
from seg.data.phantom.shapes import CLASS_NAMES
from seg.errors import DataError, Problem
from seg.files import write_bytes, write_json, write_text

GENERATOR_VERSION = 1
"""Raised whenever the same configuration and seed would give other voxels than before."""

FOLDS = 5


def write_dataset(root: Path, config: PhantomConfig, *, seed: int) -> Path:
    """Writes a data set in the layout of the Medical Segmentation Decathlon, or keeps the one that is there.

    ``dataset.json`` appears last, once every other file is complete. A second call with the same arguments writes
    only what is missing. Case i is held out in fold i mod 5 of ``splits_final.json``.

    Args:
        root: Folder of the data set, made where absent.
        config: Family of phantoms.
        seed: Seed of the data set, >= 0.

    Returns:
        The root.

    Raises:
        DataError: The folder holds another data set.
        RunError: The folder cannot be written or the disk is full.
    """
    origin = json.loads(json.dumps({"version": GENERATOR_VERSION, "seed": seed, **asdict(config)}))
    known = _is_there(root / "dataset.json", origin)
    for index in range(config.cases):
        image_path, label_path = (root / side / f"{_case_id(index)}.nii.gz" for side in ("imagesTr", "labelsTr"))
        if not (known and image_path.is_file() and label_path.is_file()):
            image, label = make_case(config, seed=seed, index=index)
            _write_nifti(image_path, image[0] if config.channels == 1 else np.moveaxis(image, 0, -1), config)
            _write_nifti(label_path, label, config)
    if not (known and (root / "splits_final.json").is_file()):
        write_text(root / "splits_final.json", json.dumps(_splits(config.cases), indent=1) + "\n")
    if not known:
        write_json(root / "dataset.json", _description(config, origin))
    return root


def _case_id(index: int) -> str:
    return f"phantom_{index:03d}"


def _splits(cases: int) -> list[dict[str, list[str]]]:
    return [
        {
            "train": [_case_id(i) for i in range(cases) if i % FOLDS != fold],
            "val": [_case_id(i) for i in range(cases) if i % FOLDS == fold],
        }
        for fold in range(FOLDS)
    ]


def _description(config: PhantomConfig, origin: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "Phantom",
        "description": "Synthetic touching structures, told apart by texture, shape and position",
        "licence": "CC0-1.0",
        "tensorImageSize": "3D" if config.channels == 1 else "4D",
        "modality": {str(channel): "MRI" for channel in range(config.channels)},
        "labels": {str(index): name for index, name in enumerate(CLASS_NAMES[: config.num_classes])},
        "numTraining": config.cases,
        "numTest": 0,
        "training": [
            {"image": f"./imagesTr/{_case_id(i)}.nii.gz", "label": f"./labelsTr/{_case_id(i)}.nii.gz"}
            for i in range(config.cases)
        ],
        "test": [],
        "phantom": origin,
    }


def _is_there(path: Path, origin: dict[str, Any]) -> bool:
    if not path.is_file():
        return False
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    found = found.get("phantom") if isinstance(found, dict) else None
    if found == origin:
        return True
    if not isinstance(found, dict):
        rule = "must be of a phantom, which never replaces another data set"
        raise DataError(Problem(str(path), "other", rule, "another data set", "name another folder"))
    changed = [key for key in {**found, **origin} if found.get(key) != origin.get(key)]
    listed = ", ".join(f"{key} {found.get(key)} there, {origin.get(key)} asked for" for key in changed)
    rule = "must have the settings it was made with"
    raise DataError(Problem(str(path), "changed", rule, listed, "name another folder or delete this one"))


def _write_nifti(path: Path, array: NDArray[Any], config: PhantomConfig) -> None:
    affine = np.diag([*config.spacing_mm, 1.0])
    affine[:3, 3] = [-(n - 1) / 2 * step for n, step in zip(config.shape, config.spacing_mm, strict=True)]
    nifti: Any = nibabel.Nifti1Image(array, affine)
    nifti.header.set_xyzt_units("mm")
    # No time of writing in the archive: equal arrays give equal files.
    write_bytes(path, gzip.compress(nifti.to_bytes(), compresslevel=1, mtime=0))
