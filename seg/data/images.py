"""Whole images, whatever their format: voxels oriented to RAS, and the grid that results are written on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt

from seg.data.checks import grid_problems
from seg.data.formats.base import fault
from seg.data.geometry import Geometry
from seg.data.volumes import OpenVolume, open_volume
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
    image = _read(paths, channel_names)
    # NaN and infinity always reach the minimum or the maximum.
    for channel, values in enumerate(image.array):
        if not np.isfinite(values.min()) or not np.isfinite(values.max()):
            count = int(np.count_nonzero(~np.isfinite(values)))
            path = paths[channel if len(paths) > 1 else 0]
            raise fault(path, "finite", "must be finite", f"{count} NaN or infinite voxels", "mend the image")
    return image


def _read(paths: Sequence[Path], channel_names: Sequence[str]) -> Image:
    with ExitStack() as stack:
        files = [stack.enter_context(open_volume(path)) for path in paths]
        _check_files(files, channel_names)
        oriented = files[0].header.oriented()
        shape = (len(channel_names), *oriented.shape)
        files[0].check_memory((BYTES_PER_VOXEL + LABEL_BYTES) * math.prod(shape))
        array = np.empty(shape, dtype=np.float32)
        # What single precision does not hold becomes infinite, and is refused by its own sentence.
        with np.errstate(over="ignore", invalid="ignore"):
            for index, file in enumerate(files):
                # Views in the file's own order of axes: what is written through them is oriented by that.
                orientation = nib.io_orientation(file.header.affine)
                flips = tuple(slice(None, None, int(sign)) for sign in orientation[:, 1])
                part = array if len(files) == 1 else array[index : index + 1]
                file.read_into([single.transpose(orientation[:, 0].astype(int))[flips] for single in part])
    return Image(array=array, affine=oriented.affine, geometry=files[0].header.geometry)


def _check_files(files: Sequence[OpenVolume], channel_names: Sequence[str]) -> None:
    first, *others = files
    several = [file for file in files if file.header.channels > 1]
    if several and others:
        raise fault(
            first.path,
            "axes",
            "must have one value for each voxel, as there is a file for each channel",
            str(several[0].header.channels),
            "split it by channel",
        )
    _check_channels(first.path, first.header.channels if several else len(files), channel_names)
    problems = [
        f"{file.path}: {text}"
        for file in others
        for text in grid_problems("channel", file.header.oriented(), first.header.oriented())
    ]
    if problems:
        raise DataError(problems)


def _check_channels(path: Path, found: int, channel_names: Sequence[str]) -> None:
    if found != len(channel_names):
        raise fault(
            path,
            "channels",
            f"must have {len(channel_names)} channel(s), {', '.join(channel_names)}, as the model was trained on",
            str(found),
            "name files of one case _0000, _0001, ... or stack them in a 4-D file",
        )
