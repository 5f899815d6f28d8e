"""Reading volumes of any format and writing NIfTI files, each fault named with its file."""

from __future__ import annotations

import gzip
import importlib.util
import stat
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, cast

import nibabel
import numpy as np

from seg.data.classes import ClassMap, class_indices
from seg.data.formats import FORMATS, NIFTI
from seg.data.formats.base import Array, Format, fault, named_faults
from seg.data.formats.base import Header as Header
from seg.data.formats.base import OpenVolume as OpenVolume
from seg.data.formats.nifti import is_gzip
from seg.data.formats.nifti import is_whole as is_whole
from seg.data.formats.worker import open_foreign
from seg.data.geometry import Affine, Geometry, oriented_grid
from seg.errors import DataError, RunError
from seg.files import written_aside

nib: Any = nibabel  # only parts of it are annotated
NIFTI_ENDINGS = NIFTI.endings
ENDINGS = tuple(ending for kind in FORMATS for ending in kind.endings)
SLAB_BYTES = 1 << 24
LABEL_LEVEL = 4
"""Compression of label maps: the level behind which files hardly shrink and time multiplies."""
FLOAT_LEVEL = 1
"""Compression of floats, which hardly shrink at any level."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Volume:
    """A volume in memory.

    Attributes:
        array: Voxels (C, X, Y, Z), or (X, Y, Z) of a label map or a single channel.
        header: What the file says of it, its axes in the order of the array.
    """

    array: Array
    header: Header

    @property
    def affine(self) -> Affine:
        """Affine (4, 4) from voxel indices to RAS, in mm."""
        return self.header.affine

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along X, Y and Z, in mm."""
        return self.header.spacing_mm

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences on what is doubtful about where the volume lies."""
        return self.header.warnings

    def oriented(self, like: Affine | None = None) -> Volume:
        """Returns a view of the volume with its axes turned to RAS, or to those of a grid of the affine ``like``."""
        orientation, _, _ = oriented_grid(self.header.shape, self.affine, like)
        turned = nib.apply_orientation(np.moveaxis(self.array, 0, 3), orientation)
        return Volume(array=np.moveaxis(turned, 3, 0), header=self.header.oriented(like))


def format_of(path: Path) -> Format | None:
    """Returns the format of a file, by its name, or of a folder, by its content; None where no format takes it."""
    if path.is_dir():
        return next((kind for kind in FORMATS if kind.is_folder(path)), None)
    return next((kind for kind in FORMATS if path.name.lower().endswith(kind.endings)), None)


def is_series(folder: Path) -> bool:
    """Says whether a folder is one volume, such as a DICOM series."""
    return any(kind.is_folder(folder) for kind in FORMATS)


def companion_files(path: Path) -> tuple[Path, ...]:
    """Returns the files beside a header that hold its voxels; none where these are in the same file."""
    kind = format_of(path)
    return () if kind is None else kind.companions(path)


def stored_files(path: Path) -> tuple[Path, ...]:
    """Returns all files of a volume: the file, those beside it that hold its voxels, or the slices in a folder."""
    if path.is_dir():
        return tuple(sorted(entry for entry in path.iterdir() if entry.is_file()))
    return (path, *companion_files(path))


@contextmanager
def open_volume(path: Path) -> Iterator[OpenVolume]:
    """Opens a file of any format, or a folder of slices, and checks its header.

    The voxels can be read until the context ends. Every fault that is met until then becomes an error that names the
    file.

    Raises:
        DataError: The file is absent, cannot be read, is no regular file, or is of no known format; the package that
            reads the format is not installed; or the file is damaged or describes no volume.
    """
    with ExitStack() as stack:
        with named_faults(path):
            file = stack.enter_context(_opener(path))
        yield file


def _opener(path: Path) -> AbstractContextManager[OpenVolume]:
    """Finds the reader of a file."""
    try:
        mode = path.stat().st_mode
    except ValueError as error:
        raise fault(path, "name", "must be the name of a file", f"'{error}'", "correct it") from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise fault(path, "file", "must be a regular file", "a pipe or a device", "give the file itself")
    if (kind := format_of(path)) is None:
        found = f"a folder of {len(list(path.iterdir()))} other files" if stat.S_ISDIR(mode) else "another name"
        rule = f"must be a file named {', '.join(ENDINGS)}, or a folder of DICOM slices"
        raise fault(path, "format", rule, found, "convert it")
    if missing := [name for name in kind.packages if importlib.util.find_spec(name) is None]:
        rule, value = f"needs the packages that read {kind.name}", f"no {' and no '.join(missing)}"
        raise fault(path, "package", rule, value, f"pip install {' '.join(missing)}, or convert the file to NIfTI")
    return open_foreign(path, kind) if kind.foreign else kind.open(path)


def read_header(path: Path) -> Header:
    """Reads the header of a file and no voxel; see :func:`open_volume`."""
    with open_volume(path) as file:
        return file.header


def read_volume(path: Path) -> Volume:
    """Reads a file to its end, checksum included, in its own order of axes.

    Raises:
        DataError: As for :func:`open_volume`, or the voxels are damaged or do not fit in memory.
    """
    with open_volume(path) as file:
        return Volume(array=file.voxels(), header=file.header)


@contextmanager
def open_label(path: Path, on: Path | None = None) -> Iterator[OpenVolume]:
    """Opens a label map, on its own grid or on that of an image, whatever its own header says; see :func:`open_volume`.

    Raises:
        DataError: Also where the label map has another shape than that image.
    """
    with open_volume(path) as file:
        if on is None:
            yield file
            return
        image = read_header(on)
        if image.shape != file.header.shape:
            rule, value = f"must have the image's shape {image.shape}", str(file.header.shape)
            raise fault(path, "grid", rule, value, "export the label on the image's grid")
        yield replace(file, header=replace(file.header, affine=image.affine, geometry=image.geometry))


def read_label(path: Path, like: Affine | None = None, on: Path | None = None) -> Volume:
    """Reads a label map (X, Y, Z), oriented to RAS, or as a grid of the affine ``like``.

    A second map of the same case is read like the first: each by its own affine would be turned differently where a
    scan is turned by 45 degrees and the affines differ in their last digits.

    Raises:
        DataError: As for :func:`open_label` and :func:`read_volume`, or the file has several channels.
    """
    with open_label(path, on) as file:
        if file.header.channels > 1:
            shape = (*file.header.shape, file.header.channels)
            raise fault(path, "axes", "must have the 3 axes of a label map", f"shape {shape}", "export one label map")
        volume = Volume(array=file.voxels(), header=file.header).oriented(like)
    return replace(volume, array=volume.array[0])


def read_classes(
    path: Path, like: Affine | None = None, classes: ClassMap | None = None, on: Path | None = None
) -> Volume:
    """Reads a label map as :func:`read_label` does, its voxels as class indices.

    Args:
        path: The file.
        like: Affine of the grid that it is oriented as.
        classes: What its values mean; None takes each for an index.
        on: Image whose grid it lies on; None lies where its own header says.

    Raises:
        DataError: As for :func:`read_label`, or a value is of no class.
    """
    volume = read_label(path, like, on)
    return replace(volume, array=class_indices(volume.array, classes, str(path)))


def read_first_channel(path: Path, like: Affine | None = None) -> Volume:
    """Reads the first channel (X, Y, Z) of a file, oriented as by :func:`read_label`; see :func:`read_volume`."""
    volume = read_volume(path).oriented(like)
    return replace(volume, array=volume.array[0])


def split_ending(name: str, endings: Iterable[str] = NIFTI_ENDINGS) -> tuple[str, str]:
    """Splits a file name before its ending; capitals count as small letters, since some scanners write them so.

    Returns:
        The stem, and the ending as the name has it; the whole name and an empty ending where the name has none of
        them, or consists of one alone.
    """
    ending = max((known for known in endings if name.lower().endswith(known)), key=len, default="")
    stem = name[: len(name) - len(ending)]
    return (stem, name[len(stem) :]) if stem else (name, "")


def write_labels(path: Path, array: Array, geometry: Geometry, classes: ClassMap | None = None) -> None:
    """Writes a label map beside its target, flushes it to disk and renames it.

    The same array and geometry always give the same bytes.

    Args:
        path: Target, ending in ``.nii`` or ``.nii.gz``; its folder is made where absent.
        array: Integer labels (X, Y, Z) in [0, 65535]; stored in 8 bits where they fit, else in 16.
        geometry: The grid the array is on; every field of it is handed on.
        classes: The value that is written for each class index; None writes the index.

    Raises:
        ValueError: The array is not of three axes, or not of integers in that range.
        DataError: The folder cannot be written or the disk is full; the target is as it was.
    """
    array = array if classes is None else classes.values(array)
    if array.ndim != 3 or array.dtype.kind not in "iub":
        raise ValueError(f"array must hold integers on 3 axes, got {array.dtype} of shape {array.shape}.")
    lowest, highest = int(array.min(initial=0)), int(array.max(initial=0))
    if lowest < 0 or highest > np.iinfo(np.uint16).max:
        raise ValueError(f"labels must lie in [0, 65535], got {lowest} to {highest}.")
    dtype = np.dtype("u1" if highest < 256 else "<u2")
    _write(path, [array], geometry.file_header(array.shape, dtype), dtype, LABEL_LEVEL)


def write_maps(path: Path, maps: Array, geometry: Geometry) -> None:
    """Writes maps of numbers as a 4-D file, channels last, as :func:`write_labels` does.

    Numbers are (K, X, Y, Z) and stored in 32-bit floats.

    Raises:
        DataError: The folder cannot be written or the disk is full; the target is as it was.
    """
    dtype = np.dtype("<f4")
    header = geometry.file_header((*maps.shape[1:], len(maps)), dtype)
    _write(path, list(maps), header, dtype, FLOAT_LEVEL)


def _write(path: Path, volumes: list[Array], header: bytes, dtype: np.dtype[Any], level: int) -> None:
    try:
        with written_aside(path) as file:
            if not is_gzip(path):
                _write_voxels(file, volumes, header, dtype)
                return
            # Without a name and a time, equal content has equal bytes.
            with gzip.GzipFile("", "wb", level, file, mtime=0) as packed:
                _write_voxels(cast(IO[bytes], packed), volumes, header, dtype)
    except RunError as error:
        raise DataError(error.problems) from error


def _write_voxels(file: IO[bytes], volumes: list[Array], header: bytes, dtype: np.dtype[Any]) -> None:
    """Writes slab by slab, so that no second copy of a large volume comes to be."""
    file.write(header)
    for volume in volumes:
        step = max(1, SLAB_BYTES // max(1, volume.shape[0] * volume.shape[1] * dtype.itemsize))
        for first in range(0, volume.shape[2], step):
            file.write(volume[:, :, first : first + step].astype(dtype, copy=False).tobytes(order="F"))
