"""Whole images, whatever their format: voxels oriented to RAS, and the grid that results are written on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt

from seg.data.checks import grid_problems
from seg.data.formats import Foreign, format_of, read_foreign
from seg.data.geometry import Geometry, geometry_of_affine, geometry_of_nifti, is_invertible
from seg.data.memory import check_memory
from seg.data.nifti import OpenFile, Volume, open_nifti, read_channels
from seg.data.nifti_header import Header
from seg.errors import DataError

nib: Any = nibabel  # only parts of it are annotated
Array = npt.NDArray[np.float32]
BYTES_PER_VOXEL = 4
LABEL_BYTES = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Image:
    """A case's image in memory.

    Attributes:
        array: Voxels f32 (C, X, Y, Z), oriented to RAS.
        affine: Affine (4, 4) of that array, in mm.
        geometry: The grid of the first file, in its own order of axes.
    """

    array: Array
    affine: npt.NDArray[np.float64]
    geometry: Geometry


def read_image(paths: Sequence[Path], channel_names: Sequence[str]) -> Image:
    """Reads the image of a case as training does, voxel for voxel.

    Args:
        paths: One file per channel, one 4-D file, or the folder of a DICOM series.
        channel_names: Channels that the image must have.

    Returns:
        The image.

    Raises:
        DataError: A file cannot be read, has another number of channels, lies on another grid than the first, holds
            values that are not finite, or does not fit in memory; all problems together.
    """
    kind = format_of(paths[0])
    image = _read_nifti(paths, channel_names) if kind is None else _read_other(paths, channel_names)
    # NaN and infinity always reach the minimum or the maximum.
    for channel, values in enumerate(image.array):
        if not np.isfinite(values.min()) or not np.isfinite(values.max()):
            count = int(np.count_nonzero(~np.isfinite(values)))
            path = paths[channel if len(paths) > 1 else 0]
            raise DataError(f"{path}: image must be finite, got {count} NaN or infinite voxels; mend the image.")
    return image


def read_first_channel(paths: Sequence[Path]) -> Volume:
    """Reads the first channel of an image of any format, oriented to RAS.

    Args:
        paths: One file per channel, one file of all, or the folder of a DICOM series.

    Raises:
        DataError: The file cannot be read.
    """
    kind = format_of(paths[0])
    if kind is None:
        return next(read_channels(paths[:1]))
    read = read_foreign(paths[0], kind)
    said, orientation = _header(read), nib.io_orientation(read.affine)
    return Volume(
        array=nib.apply_orientation(read.array[0], orientation),
        affine=read.affine @ nib.orientations.inv_ornt_aff(orientation, said.shape),
        spacing_mm=said.spacing_mm,
        warnings=read.warnings,
    )


def _read_nifti(paths: Sequence[Path], channel_names: Sequence[str]) -> Image:
    with ExitStack() as stack:
        files = [stack.enter_context(open_nifti(path)) for path in paths]
        _check_files(paths, files, channel_names)
        geometry = geometry_of_nifti(files[0].image)
        orientation = nib.io_orientation(geometry.affine)
        order = [int(axis) for axis in orientation[:, 0]]
        shape: list[int] = [0, 0, 0]
        for own, axis in enumerate(order):
            shape[axis] = geometry.shape[own]
        voxels = int(np.prod(np.array((len(channel_names), *shape), dtype=object)))
        check_memory(f"{paths[0]}: volume of shape {geometry.shape}", (BYTES_PER_VOXEL + LABEL_BYTES) * voxels)
        array = np.empty((len(channel_names), *shape), dtype=np.float32)
        # The array in the file's own order of axes: what is written through the view is oriented by that.
        flips = tuple(slice(None, None, int(sign)) for sign in orientation[:, 1])
        views = [single.transpose(order)[flips] for single in array]
        # What single precision does not hold becomes infinite, and is refused by its own sentence.
        with np.errstate(over="ignore", invalid="ignore"):
            for index, file in enumerate(files):
                file.read_into(views if len(files) == 1 else views[index : index + 1])
    return _oriented(array, geometry, orientation)


def _oriented(array: Array, geometry: Geometry, orientation: npt.NDArray[Any]) -> Image:
    affine = geometry.affine @ nib.orientations.inv_ornt_aff(orientation, geometry.shape)
    return Image(array=array, affine=affine, geometry=geometry)


def _check_files(paths: Sequence[Path], files: Sequence[OpenFile], channel_names: Sequence[str]) -> None:
    headers = [file.header for file in files]
    several = [header.shape for header in headers if len(header.shape) > 3]
    if several and len(files) > 1:
        raise DataError(
            f"{paths[0]}: image files must be 3-D where there is one per channel, got shape {several[0]}; "
            "split it by channel."
        )
    _check_channels(paths, several[0][3] if several else len(files), channel_names)
    problems = [
        f"{path}: {text}"
        for path, header in zip(paths[1:], headers[1:], strict=True)
        for text in grid_problems("channel", header, headers[0])
    ]
    if problems:
        raise DataError(problems)


def _check_channels(paths: Sequence[Path], found: int, channel_names: Sequence[str]) -> None:
    if found != len(channel_names):
        raise DataError(
            f"{paths[0]}: image must have {len(channel_names)} channel(s), {', '.join(channel_names)}, as the "
            f"model was trained on, got {found}; name files of one case _0000, _0001, ... or stack them in a 4-D file."
        )


def _read_other(paths: Sequence[Path], channel_names: Sequence[str]) -> Image:
    kind = format_of(paths[0])
    if kind is None or any(format_of(path) is not kind for path in paths):
        raise DataError(f"{paths[0]}: channels of a case must be files of one kind, got several; convert them.")
    first, *others = parts = [read_foreign(path, kind) for path in paths]
    if not is_invertible(first.affine):
        raise DataError(
            f"{paths[0]}: affine must be invertible, got {first.affine[:3].tolist()}; export it with its geometry."
        )
    if several := [part for part in parts if others and len(part.array) > 1]:
        raise DataError(
            f"{paths[0]}: image files must have one value for each voxel where there is one per channel, got "
            f"{len(several[0].array)}; split it by channel."
        )
    _check_channels(paths, sum(len(part.array) for part in parts), channel_names)
    problems = [
        f"{path}: {text}"
        for path, part in zip(paths[1:], others, strict=True)
        for text in grid_problems("channel", _header(part), _header(first))
    ]
    if problems:
        raise DataError(problems)
    x, y, z = first.array.shape[1:]
    geometry = replace(geometry_of_affine((x, y, z), first.affine), warnings=first.warnings)
    orientation = nib.io_orientation(first.affine)
    array = np.stack([nib.apply_orientation(single, orientation) for part in parts for single in part.array])
    return _oriented(array, geometry, orientation)


def _header(part: Foreign) -> Header:
    """Describes a volume for a comparison of grids."""
    x, y, z = (float(length) for length in np.linalg.norm(part.affine[:3, :3], axis=0))
    return Header(shape=part.array.shape[1:], affine=part.affine, spacing_mm=(x, y, z), dtype=part.array.dtype)
