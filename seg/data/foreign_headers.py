"""What files that are no NIfTI announce in their headers, found without reading a voxel."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seg.data.dicom import TAGS, Slice, check_series
from seg.data.memory import check_memory
from seg.errors import DataError

BYTES_PER_VALUE = {"itk": 8, "pydicom": 30}
"""Memory at the peak of reading for each value of 16 bits, as measured, by the package that reads."""
SERIES = "0020|000e"


@dataclass(frozen=True, kw_only=True)
class Announced:
    """What a header says of a file.

    Attributes:
        shape: Values per axis, channels among them.
        axes: Axes of the volume, channels left out.
        channels: Values for each voxel.
        series: Unique id of the DICOM series; empty where there is none.
        place: Where a DICOM slice lies; None for other kinds.
    """

    shape: tuple[int, ...]
    axes: int = 3
    channels: int = 1
    series: str = ""
    place: Slice | None = None


def check_announced(paths: Sequence[Path], package: str, *, dicom: bool = False) -> list[Announced]:
    """Refuses what cannot be one image in memory, by headers alone.

    Args:
        paths: A file, or the files of a series.
        package: The package that reads them, installed.
        dicom: Whether they are DICOM.

    Returns:
        What each of them announces.

    Raises:
        DataError: The files hold more than fits in memory, slices of several series, or slices that make up no volume.
    """
    found = [HEADERS[package](path) for path in paths]
    series = sorted({header.series for header in found})
    if len(series) > 1:
        raise DataError(
            f"{paths[0].parent}: slices must be of one DICOM series, got {len(series)}: {', '.join(series[:5])}; give "
            "each series a folder of its own."
        )
    values = sum(math.prod(header.shape) for header in found)
    several = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    check_memory(f"{paths[0]}: volume of shape {found[0].shape}{several}", BYTES_PER_VALUE[package] * values)
    if dicom:
        check_series([header.place for header in found if header.place is not None])
    return found


def _by_itk(path: Path) -> Announced:
    itk: Any = importlib.import_module("itk")
    reader = itk.ImageIOFactory.CreateImageIO(str(path), itk.CommonEnums.IOFileMode_ReadMode)
    if reader is None:
        raise ValueError("no reader of ITK takes it")
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    shape = [int(reader.GetDimensions(axis)) for axis in range(reader.GetNumberOfDimensions())]
    channels = int(reader.GetNumberOfComponents())
    tags = reader.GetMetaDataDictionary()
    place = {name: _numbers(str(tags[tag])) for name, tag in TAGS.items() if tags.HasKey(tag)}
    return Announced(
        shape=(*shape, channels) if channels > 1 else tuple(shape),
        axes=len(shape),
        channels=channels,
        series=str(tags[SERIES]).strip(" \0") if tags.HasKey(SERIES) else "",
        place=Slice(path=path, shape=(shape[0], shape[1]), frames=math.prod(shape[2:]), place=place),
    )


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(word) for word in text.strip(" \0").split("\\"))


def _by_pydicom(path: Path) -> Announced:
    pydicom: Any = importlib.import_module("pydicom")
    names = ["Columns", "Rows", "NumberOfFrames", "SamplesPerPixel"]
    header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=[*names, "SeriesInstanceUID", *TAGS])
    columns, rows, frames, channels = (int(header.get(name) or 1) for name in names)
    shape = (columns, rows, *(size for size in (frames, channels) if size > 1))
    place = {name: tuple(float(value) for value in header[name].value) for name in TAGS if header.get(name)}
    return Announced(
        shape=shape,
        series=str(header.get("SeriesInstanceUID") or ""),
        place=Slice(path=path, shape=(columns, rows), frames=frames, place=place),
    )


HEADERS = {"itk": _by_itk, "pydicom": _by_pydicom}
