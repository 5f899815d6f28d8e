"""DICOM: a folder of slices, or a file of one slice, placed by the headers of the slices.

The value of a voxel is the stored number times RescaleSlope plus RescaleIntercept, in double precision, whatever the
modality and the photometric interpretation. Packed pixels are decoded by GDCM, which by itself rescales some modalities
in other ways and inverts MONOCHROME1: it is given a copy of the slice that says nothing but how its pixels are coded.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from seg.data.formats.base import Block, Format, OpenVolume, fault, header_of_affine
from seg.data.formats.itk import LPS_TO_RAS
from seg.errors import DataError

MARK = b"DICM"
MARK_OFFSET = 128
DIRECTORY = b"\x02\x00\x02\x00UI\x14\x001.2.840.10008.1.3.10"
"""The attribute by which a DICOMDIR says that it lists files and holds no image: Media Storage SOP Class UID."""
DIRECTORY_BYTES = 1024
"""Where it stands: among the first attributes."""
PLACE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
"""Attributes that say where a slice lies: position of its first voxel in mm, direction of its rows and columns (LPS),
and distance of voxels in mm."""
PIXELS = ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
"""Attributes that say how pixels are coded."""
OTHERS = (
    "SamplesPerPixel",
    "NumberOfFrames",
    "PhotometricInterpretation",
    "RescaleSlope",
    "RescaleIntercept",
    "SeriesInstanceUID",
    "SliceThickness",
)
DEFER_BYTES = 1024
"""Values of more than so many bytes are left in the file."""
GREY = ("MONOCHROME1", "MONOCHROME2")
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
"""The class of images that GDCM takes nothing but pixels from."""
UNEVEN = 0.02
"""Share of the distance of two slices by which a slice may lie off its place on an even line, and off the normal."""
ROUNDING_MM = 0.06
"""The same in mm, as positions are often rounded to a tenth; but no more than a tenth of the distance."""
SAME_MM = 0.01
"""Slices that are no further apart lie at one place."""
SAME_DIRECTION = 1e-3


@dataclass(frozen=True, kw_only=True, eq=False)
class Slice:
    """What the header of a slice says: lengths in mm, places and directions in LPS.

    Attributes:
        position: Place of the first voxel.
        orientation: Directions of rows and columns, six numbers.
        spacing: Distance of rows, and of columns.
        size: Columns and rows.
        rescale: Slope and intercept from stored numbers to values.
        thickness: 0 where the header does not say it.
        warnings: Sentences on what is doubtful about its values.
        data: The attributes, as pydicom reads them; the pixels are left in the file.
    """

    path: Path
    position: npt.NDArray[np.float64]
    orientation: npt.NDArray[np.float64]
    spacing: npt.NDArray[np.float64]
    size: tuple[int, int]
    rescale: tuple[float, float]
    series: str
    thickness: float
    warnings: tuple[str, ...]
    data: Any


def is_series(folder: Path) -> bool:
    """Says whether a file of a folder is a slice."""
    try:
        return any(map(_is_slice, _files(folder)))
    except OSError:
        return False


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _is_slice(path: Path) -> bool:
    """Says whether a file is DICOM, and no DICOMDIR."""
    with path.open("rb") as file:
        start = file.read(DIRECTORY_BYTES)
    return start[MARK_OFFSET:].startswith(MARK) and DIRECTORY not in start


@contextmanager
def open_dicom(path: Path) -> Iterator[OpenVolume]:
    """Opens a series.

    Slices are ordered by where they lie, whatever their numbers say. Their distance is that of their positions; of a
    single slice it is its thickness.

    Raises:
        DataError: A file holds several frames or colours, or does not say where it lies; or slices are of several
            series, differ in size, spacing or orientation, lie at one place, are unevenly spaced or off their normal.
    """
    found = []
    for file in filter(_is_slice, _files(path)) if path.is_dir() else [path]:
        with _slice_faults(file):
            found.append(_read_slice(file))
    slices = _ordered(path, found)
    columns, rows = slices[0].size
    warnings = list(dict.fromkeys(text for one in slices for text in one.warnings))
    row, column = slices[0].orientation.reshape(2, 3)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = row * slices[0].spacing[1], column * slices[0].spacing[0]
    affine[:3, 3] = slices[0].position
    if len(slices) > 1:
        affine[:3, 2] = (slices[-1].position - slices[0].position) / (len(slices) - 1)
    else:
        thickness = slices[0].thickness
        affine[:3, 2] = np.cross(row, column) * (thickness or 1.0)
        if not thickness:
            warnings.append("a single slice must say how thick it is, got no SliceThickness; 1 mm was used.")
    shape = (columns, rows, len(slices))
    header = header_of_affine(path, shape, 1, np.dtype(np.float32), LPS_TO_RAS @ affine, warnings)

    def blocks() -> Iterator[Block]:
        for z, one in enumerate(slices):
            slope, intercept = one.rescale
            with _slice_faults(one.path):
                values = _pixels(one).astype(np.float64) * slope + intercept
            yield Block(channel=0, z=z, array=values.astype(np.float32).T[None, :, :, None])

    yield OpenVolume(path=path, header=header, blocks=blocks)


@contextmanager
def _slice_faults(path: Path) -> Iterator[None]:
    """Names the slice in what pydicom or GDCM say of it within the block."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # of many types
        reason = (str(error).strip().splitlines() or [""])[-1]
        raise fault(path, "damaged", "must be a readable slice", f"'{type(error).__name__}: {reason}'") from error


def _read_slice(path: Path) -> Slice:
    import pydicom

    # Pixels are read from the file where they are asked for.
    data: Any = pydicom.dcmread(path, defer_size=DEFER_BYTES, specific_tags=[*PLACE, *PIXELS, *OTHERS, "PixelData"])
    frames, samples = int(data.get("NumberOfFrames") or 1), int(data.get("SamplesPerPixel") or 1)
    if frames > 1:
        remedy = "export single slices, or convert it to NIfTI"
        raise fault(path, "frames", "must hold one slice", f"{frames} frames", remedy)
    interpretation = str(data.get("PhotometricInterpretation") or GREY[1])
    if samples > 1 or interpretation not in GREY:
        value = f"{samples} of {interpretation}"
        raise fault(path, "colours", "must hold one number for each voxel", value, "export the original series")
    if absent := [name for name in PLACE if not data.get(name)]:
        value = f"no {', '.join(absent)}"
        raise fault(path, "place", "must say where it lies", value, "export the original series")
    position, orientation, spacing = (np.array(data[name].value, dtype=np.float64) for name in PLACE)
    if (position.shape, orientation.shape, spacing.shape) != ((3,), (6,), (2,)) or not all(
        np.isfinite(values).all() for values in (position, orientation, spacing)
    ):
        value = f"{_listed(position)}, {_listed(orientation)} and {_listed(spacing)}"
        raise fault(path, "place", f"must give 3, 6 and 2 numbers for {', '.join(PLACE)}", value)
    warnings = []
    if interpretation == GREY[0]:
        warnings.append("values are those that are stored, got MONOCHROME1; it is shown with white for low values.")
    slope, intercept = (_number(path, data, name) for name in ("RescaleSlope", "RescaleIntercept"))
    if slope == 0:
        warnings.append("RescaleSlope must not be 0, got 0; values were taken as stored, with RescaleIntercept added.")
    return Slice(
        path=path,
        position=position,
        orientation=orientation,
        spacing=spacing,
        size=(int(data.get("Columns") or 0), int(data.get("Rows") or 0)),
        rescale=(slope or 1.0, intercept or 0.0),
        series=str(data.get("SeriesInstanceUID") or ""),
        thickness=abs(_number(path, data, "SliceThickness") or 0.0),
        warnings=tuple(warnings),
        data=data,
    )


def _number(path: Path, data: Any, name: str) -> float | None:
    """Returns a number of a header; None where it is absent or empty."""
    value = data.get(name)
    if value in (None, ""):
        return None
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise fault(path, "number", f"must give a finite number for {name}", repr(value))
    return float(value)


def _pixels(one: Slice) -> npt.NDArray[Any]:
    """Reads the stored numbers (rows, columns) of a slice."""
    import pydicom

    data = one.data
    if "PixelData" not in data:
        raise fault(one.path, "pixels", "must have pixels", "no PixelData", "export the original series")
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, GREY[1]
    syntax = data.file_meta.TransferSyntaxUID
    if syntax == pydicom.uid.RLELossless:  # of which GDCM refuses some with an odd number of voxels
        data.decompress(decoding_plugin="pydicom")
    elif syntax.is_compressed and not syntax.is_deflated:
        return _decoded(one)
    columns, rows = one.size
    allocated, stored, signed = int(data.BitsAllocated), int(data.BitsStored), bool(data.PixelRepresentation)
    if allocated not in (8, 16, 32) or not 0 < stored <= allocated or int(data.HighBit) != stored - 1:
        value = f"{stored} of {allocated}, the highest {data.HighBit}"
        raise fault(one.path, "bits", "must keep its numbers in the lower bits of 8, 16 or 32", value)
    needed, got = columns * rows * allocated // 8, len(data.PixelData)
    if got not in (needed, needed + needed % 2):
        rule = f"must have {needed} bytes of PixelData for {columns} x {rows} voxels of {allocated} bits"
        raise fault(one.path, "size", rule, str(got))
    order = "<" if syntax.is_little_endian else ">"
    values = np.frombuffer(data.PixelData, f"{order}{'i' if signed else 'u'}{allocated // 8}", columns * rows)
    unused = allocated - stored  # bits that may hold something else
    return ((values << unused) >> unused if unused else values).reshape(rows, columns)


def _decoded(one: Slice) -> npt.NDArray[Any]:
    """Lets GDCM decode a copy of a slice that says how pixels are coded and no more."""
    import pydicom
    import SimpleITK

    sitk: Any = SimpleITK
    data: Any = pydicom.Dataset()
    data.file_meta = one.data.file_meta
    for name in (*PIXELS, "SamplesPerPixel", "PhotometricInterpretation", "PixelData"):
        data[name] = one.data[name]
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = SECONDARY_CAPTURE
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "slice.dcm"
        data.save_as(copy)
        reader.SetFileName(str(copy))
        columns, rows = one.size
        array: npt.NDArray[Any] = sitk.GetArrayFromImage(reader.Execute()).reshape(rows, columns)
    return array


def _ordered(path: Path, slices: Sequence[Slice]) -> list[Slice]:
    """Orders slices along their normal; refuses those whose distance or grid would have to be guessed.

    Readers that take the number of a slice for its order and the ends of a series for its distances stretch a volume
    where a slice is missing, and double it where there is a second phase, without a word.
    """
    series = sorted({one.series for one in slices})
    if len(series) > 1:
        value = f"{len(series)}: {', '.join(series[:5])}"
        remedy = "give each series a folder of its own"
        raise fault(path, "series", "must hold slices of one DICOM series", value, remedy)
    _check_alike(slices)
    normal = np.cross(*slices[0].orientation.reshape(2, 3))
    order = np.argsort([one.position @ normal for one in slices], kind="stable")
    ordered = [slices[index] for index in order]
    if len(slices) > 1:
        _check_steps(ordered, normal)
    return ordered


def _check_alike(slices: Sequence[Slice]) -> None:
    """Checks that all slices have the grid of the first."""
    for name, values, tolerance in (
        ("size", [one.size for one in slices], 0.0),
        ("PixelSpacing", [one.spacing for one in slices], SAME_DIRECTION),
        ("ImageOrientationPatient", [one.orientation for one in slices], SAME_DIRECTION),
    ):
        found = np.array(values, dtype=np.float64)
        if (apart := np.abs(found - found[0]).max(axis=1) > tolerance).any():
            worst = int(apart.argmax())
            value = f"{_listed(found[worst])} where {slices[0].path.name} has {_listed(found[0])}"
            remedy = "give each stack a folder of its own"
            raise fault(slices[worst].path, "grid", f"must have the {name} of the other slices", value, remedy)


def _check_steps(slices: Sequence[Slice], normal: npt.NDArray[np.float64]) -> None:
    """Checks that slices, in order, lie evenly along their normal."""
    positions = np.array([one.position for one in slices])
    steps = np.diff(positions @ normal)
    usual, doubled = float(np.median(steps)), int(steps.argmin())
    if steps[doubled] <= SAME_MM:
        value = f"that of {slices[doubled].path.name} again"
        remedy = "give each phase, echo or reconstruction a folder of its own"
        raise fault(slices[doubled + 1].path, "doubled", "must lie at a place of its own", value, remedy)
    apart = np.linalg.norm(positions - np.linspace(positions[0], positions[-1], len(positions)), axis=1)
    if apart.max() > max(UNEVEN * usual, min(ROUNDING_MM, usual / 10)):
        worst = int(np.abs(steps - usual).argmax())
        value = f"{steps[worst]:.4g} mm from {slices[worst].path.name} where {usual:.4g} mm is usual, and slices up to "
        value += f"{apart.max():.3g} mm from their place"
        remedy = "add the slices that are missing, or resample the series"
        raise fault(slices[worst + 1].path, "uneven", "must be spaced evenly with the other slices", value, remedy)
    mean = (positions[-1] - positions[0]) / (len(positions) - 1)
    shift = float(np.linalg.norm(mean - (mean @ normal) * normal))
    if shift > UNEVEN * usual:
        rule = "must lie along the normal of the slices"
        value = f"a shift of {shift:.4g} mm from {slices[0].path.name}, as of a tilted gantry"
        raise fault(slices[1].path, "tilted", rule, value, "resample the series to a straight grid")


def _listed(values: Any) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in np.ravel(values)) + ")"


DICOM = Format(name="DICOM", open=open_dicom, endings=(".dcm",), packages=("pydicom", "SimpleITK"), is_folder=is_series)
