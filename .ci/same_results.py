"""Compares two folders, file by file: what the same commands left on the same machine, inside and outside the image."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch


def main() -> int:
    """Compares what the two folders of the command line hold; the exit code is 1 where anything differs."""
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
    """Names the files whose content follows from the configuration and the data alone."""
    endings = ("weights.pt", ".nii.gz", "evaluation.json", "cases.csv")
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.name.endswith(endings) and "cache" not in path.parts
    }


def same(one: Path, other: Path) -> bool:
    """Tells whether two files hold the same: tensors, voxels with their affine, or text."""
    if one.name.endswith(".pt"):
        states = [torch.load(path, map_location="cpu", weights_only=True)["network"] for path in (one, other)]
        return states[0].keys() == states[1].keys() and all(
            torch.equal(value, states[1][name]) for name, value in states[0].items()
        )
    if one.name.endswith(".nii.gz"):
        images: list[Any] = [nibabel.load(path) for path in (one, other)]
        return np.array_equal(images[0].dataobj, images[1].dataobj) and np.array_equal(
            images[0].affine, images[1].affine
        )
    return one.read_bytes() == other.read_bytes()


if __name__ == "__main__":
    sys.exit(main())
