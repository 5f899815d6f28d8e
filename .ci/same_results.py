"""Compare two folders of results: weights, label maps and scores, to the last bit."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch

# Columns of cases.csv that say what a row is about; all others are measured.
IDENTITY = ("case_id", "patient", "fold", "class_index", "class_name")


def main() -> int:
    """Compare the two folders of the command line, file by file; return 1 where anything differs."""
    inside, outside = (Path(argument) for argument in sys.argv[1:3])
    names = [comparable(folder) for folder in (inside, outside)]
    problems = [f"{name} is in one folder only" for name in sorted(names[0] ^ names[1])]
    both = sorted(names[0] & names[1])
    problems += [f"{name} differs" for name in both if not same(inside / name, outside / name)]
    maps = sum(name.endswith(".nii.gz") for name in both)
    if not any(name.endswith("weights.pt") for name in both) or not maps:
        problems.append("weights and label maps must be among the files, got none")
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if not problems:
        print(f"container: the same inside as outside, to the last bit: weights, scores and {maps} label maps")
    return 1 if problems else 0


def comparable(folder: Path) -> set[str]:
    """Name the files whose content follows from the configuration and the data alone."""
    endings = ("weights.pt", ".nii.gz", "evaluation.json", "cases.csv")
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.name.endswith(endings) and "cache" not in path.parts
    }


def same(one: Path, other: Path) -> bool:
    """Tell whether two files hold the same tensors, the same voxels and affine, or the same text."""
    if one.name.endswith(".pt"):
        states = [tensors(path) for path in (one, other)]
        return states[0].keys() == states[1].keys() and all(
            torch.equal(value, states[1][name]) for name, value in states[0].items()
        )
    if one.name.endswith(".nii.gz"):
        return different_voxels(one, other) == 0
    return one.read_bytes() == other.read_bytes()


def tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read the weights of a network by name."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    return dict(content.get("network", content))


def different_voxels(one: Path, other: Path) -> int:
    """Count the voxels in which two label maps differ; all of them where shape or affine differ."""
    images: list[Any] = [nibabel.load(path) for path in (one, other)]
    if images[0].shape != images[1].shape or not np.array_equal(images[0].affine, images[1].affine):
        return int(np.prod(images[0].shape))
    return int(np.count_nonzero(np.asarray(images[0].dataobj) != np.asarray(images[1].dataobj)))


def scores(run: Path) -> dict[str, Any]:
    """Read what a run measured, as values by name.

    Args:
        run: Run directory with cases.csv and evaluation.json.

    Returns:
        Numbers by "case class column" and by the path of a field in the summary.
    """
    found: dict[str, Any] = {}
    with (run / "cases.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            place = f"{row['case_id']} {row['class_index']}"
            found |= {f"{place} {name}": number(text) for name, text in row.items() if name not in IDENTITY}
    found |= numbers(json.loads((run / "evaluation.json").read_text(encoding="utf-8")))
    return found


def number(text: str) -> Any:
    """Read a number, or keep the text that is none."""
    try:
        return float(text)
    except ValueError:
        return text


def numbers(value: Any, path: str = "") -> dict[str, float]:
    """Flatten a JSON value to its numbers by dotted path; an entry of a list is called by its name, if it has any."""
    return dict(_numbers(value, path))


def _numbers(value: Any, path: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for name, entry in value.items():
            yield from _numbers(entry, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        for position, entry in enumerate(value):
            known = entry.get("name", position) if isinstance(entry, dict) else position
            yield from _numbers(entry, f"{path}[{known}]")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, float(value)


def differences(old: dict[str, Any], new: dict[str, Any], *, relative: float = 0.0, absolute: float = 0.0) -> list[str]:
    """Name the entries of both sides whose values differ by more than both tolerances; NaN equals NaN."""

    def equal(one: Any, other: Any) -> bool:
        if isinstance(one, float) and isinstance(other, float):
            alike = math.isnan(one) and math.isnan(other)
            return alike or math.isclose(one, other, rel_tol=relative, abs_tol=absolute)
        return bool(one == other)

    return [name for name in sorted(old.keys() & new.keys()) if not equal(old[name], new[name])]


if __name__ == "__main__":
    sys.exit(main())
