"""Reading everything before training starts, and naming all that is wrong with it together."""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from seg.data.cases import LABEL_TOLERANCE, Case, Dataset
from seg.data.geometry import corner_distance
from seg.data.volumes import Header, read_header, read_volume
from seg.errors import DataError

GRID_TOLERANCE = 0.01
"""How far two grids may lie apart at a corner of the volume, in voxels of the smallest edge.

Files of one grid differ by rounding: headers hold single precision, and a rotation is kept as a quaternion.
"""

LARGEST_INTENSITY = 1e15
"""Largest magnitude of a voxel: the squares of 3e8 such voxels still add up within single precision."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with a case.

    Attributes:
        case_id: The case.
        message: A whole sentence that begins with the case.
        severity: ``error`` where the case cannot be used; ``warning`` where it can, but deserves a look: a label
            without foreground is legitimate in some data sets and a failed export in others.
    """

    case_id: str
    message: str
    severity: Literal["error", "warning"] = "error"


def check_dataset(dataset: Dataset, *, workers: int = 0, progress: bool = True) -> tuple[Problem, ...]:
    """Reads every file of a data set and says what is wrong with it.

    Holds one volume in memory at a time and process.

    Args:
        dataset: The data set; every case is expected to have a label.
        workers: Processes that read; 0 or 1 reads in this one.
        progress: Whether a terminal on stderr shows a progress bar.

    Returns:
        All problems, in the order of the cases.
    """
    check = partial(
        _inspect,
        num_channels=len(dataset.channel_names),
        num_classes=len(dataset.class_names),
        ignore_label=dataset.ignore_label,
    )
    bar = partial(tqdm, total=len(dataset.cases), desc="check", unit="case", disable=None if progress else True)
    if workers <= 1:
        found = list(bar(map(check, dataset.cases)))
    else:
        # Spawned, not forked: a caller may hold threads, which a fork would copy half of.
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            found = list(bar(pool.map(check, dataset.cases, chunksize=4)))
    return tuple(itertools.chain.from_iterable(found))


def _inspect(case: Case, *, num_channels: int, num_classes: int, ignore_label: int | None) -> list[Problem]:
    errors: list[str] = []
    warnings: list[str] = []
    doubts: dict[str, str] = {}  # what is doubtful of all files of a case is said of the first
    headers = [_header(path, "image", errors) for path in case.images]
    grids = [header for header in headers if header is not None]
    if len(grids) == len(case.images):
        errors.extend(channel_problems(headers=grids, num_channels=num_channels))
    for header, path in zip(headers, case.images, strict=True):
        if header is not None:
            for text in header.warnings:
                doubts.setdefault(text, f"image {path.name}: {text}")
            errors.extend(grid_problems(f"image {path.name}", header, grids[0]))
            errors.extend(_voxels(path, "image", _image_problems))
    if case.label is not None:
        header = _header(case.label, "label", errors)
        for text in () if header is None else header.warnings:
            doubts.setdefault(text, f"label {case.label.name}: {text}")
        if header is not None and header.channels > 1:
            shape = (*header.shape, header.channels)
            errors.append(f"label must have 3 axes, got shape {shape}; merge its parts into one label map.")
        elif header is not None:
            errors.extend(grid_problems("label", header, grids[0]) if grids else ())
            check = partial(_label_problems, num_classes=num_classes, ignore_label=ignore_label, warnings=warnings)
            errors.extend(_voxels(case.label, "label", check))
    else:
        errors.append("has no label; training and evaluation need one: add it or remove the case.")
    return [
        *(Problem(case.id, f"case {case.id}: {text}") for text in errors),
        *(Problem(case.id, f"case {case.id}: {text}", "warning") for text in (*doubts.values(), *warnings)),
    ]


def _header(path: Path, role: str, errors: list[str]) -> Header | None:
    try:
        return read_header(path).oriented()
    except DataError as error:
        errors.extend(f"{role} {problem}" for problem in error.sentences)
        return None


def _voxels(path: Path, role: str, check: Callable[[Path, npt.NDArray[Any]], Iterable[str]]) -> list[str]:
    """Applies a check to the voxels of a file, which are let go before the next file is read."""
    try:
        return list(check(path, read_volume(path).array))
    except DataError as error:
        return [f"{role} {problem}" for problem in error.sentences]


def channel_problems(*, headers: list[Header], num_channels: int) -> Iterator[str]:
    """Says why files do not make up an image of so many channels."""
    several = [(*header.shape, header.channels) for header in headers if header.channels > 1]
    if several and len(headers) > 1:
        yield f"image files must be 3-D where there is one per channel, got shape {several[0]}; split it by channel."
        return
    found = several[0][3] if several else len(headers)
    if found != num_channels:
        shape = f" (a 4-D image of shape {several[0]})" if several else ""
        yield (
            f"image must have the {num_channels} channel(s) that the data set declares, got {found}{shape}; "
            "add or remove files, or correct channel_names."
        )


def grid_problems(name: str, header: Header, reference: Header) -> Iterator[str]:
    """Says how a grid differs from that of the first image."""
    shape, expected = header.shape, reference.shape
    if shape != expected:
        yield f"{name} shape {shape} differs from image shape {expected}; export the {name} on the image's grid."
        return
    apart = corner_distance(shape, header.affine, reference.affine)
    if apart > GRID_TOLERANCE * min(reference.spacing_mm):
        yield (
            f"{name} affine differs from image affine by {apart:.4g} mm at a corner, more than "
            f"{GRID_TOLERANCE:g} voxel; export the {name} on the image's grid."
        )


def _image_problems(path: Path, array: npt.NDArray[Any]) -> Iterator[str]:
    for index, channel in enumerate(array):
        name = path.name if len(array) == 1 else f"{path.name} channel {index}"
        # One pass where all is well: a NaN or an infinity always reaches the minimum or the maximum.
        lowest, highest = float(channel.min()), float(channel.max())
        if not (np.isfinite(lowest) and np.isfinite(highest)):
            count = int(np.count_nonzero(~np.isfinite(channel)))
            yield f"image {name} must be finite, got {count} NaN or infinite voxels; mend or remove the image."
        elif max(-lowest, highest) > LARGEST_INTENSITY:
            yield (
                f"image {name} must lie within {LARGEST_INTENSITY:g} of 0, so that its variance is finite in single "
                f"precision, got {lowest!r} to {highest!r}; mend or rescale the image."
            )
        elif np.float32(lowest) == np.float32(highest):
            yield f"image {name} must vary, got {lowest:g} in every voxel; export it again or remove the case."


def _label_problems(
    path: Path, array: npt.NDArray[Any], *, num_classes: int, ignore_label: int | None, warnings: list[str]
) -> Iterator[str]:
    lowest, highest = float(array.min()), float(array.max())
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        yield f"label {path.name} must be finite, got NaN or infinite voxels; export it again."
        return
    if array.dtype.kind == "f":
        # In place: a label and one copy are all that is held.
        apart = np.rint(array)
        np.abs(np.subtract(apart, array, out=apart), out=apart)
        uneven = array[apart > LABEL_TOLERANCE]
        del apart
        if uneven.size:
            yield (
                f"label {path.name} must hold integers, got {uneven[0]!s} and {uneven.size - 1} more fractions; "
                "export it without interpolation."
            )
            return
        array = np.rint(array)
        lowest, highest = round(lowest), round(highest)
    allowed = f"0 to {num_classes - 1}" + ("" if ignore_label is None else f" or {ignore_label} (ignore)")
    if lowest < 0 or highest >= num_classes:
        values = np.unique(array)
        strange = [v for v in values if not 0 <= v < num_classes and v != ignore_label]
        if strange:
            yield (
                f"label {path.name} values must be {allowed}, got {', '.join(f'{v:.17g}' for v in strange[:10])}; "
                "declare these classes or correct the label."
            )
            return
    foreground = array > 0 if ignore_label is None else (array > 0) & (array != ignore_label)
    if not foreground.any():
        warnings.append(f"label {path.name} holds no foreground; check that this is meant.")
