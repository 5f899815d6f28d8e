"""Reading single NIfTI files, with every fault named."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, cast

import nibabel
import numpy as np
import numpy.typing as npt

from seg.data.endings import is_gzip, split_ending
from seg.data.geometry import Affine, affine_of_nifti
from seg.data.nifti_header import Header, header_of, image_of, trimmed
from seg.errors import DataError

nib: Any = nibabel  # only parts of it are annotated
Array = npt.NDArray[Any]
CHUNK_BYTES = 1 << 20
LENGTH_BYTES = 4
SLAB_BYTES = 1 << 22
TAIL_BYTES = 1 << 22
"""What may follow the last voxel; a stream that goes on is not unpacked to an end that may be hours away."""


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A volume in memory, oriented to RAS.

    Attributes:
        array: Voxels (X, Y, Z), or (X, Y, Z, C) of a file of several channels, in the type of the file and the byte
            order of the machine, or a float type where the file scales its values.
        affine: 4x4 matrix from voxel indices to mm.
        spacing_mm: Voxel size along X, Y and Z, in mm.
        warnings: Sentences on what is doubtful about where the volume lies.
    """

    array: Array
    affine: Affine
    spacing_mm: tuple[float, float, float]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class OpenFile:
    """A file whose header has been read and checked, and whose voxels have not been read yet.

    Attributes:
        path: The file.
        image: The image of nibabel.
        header: What it says of its volume.
        stream: The bytes of the file, decompressed.
    """

    path: Path
    image: Any
    header: Header
    stream: IO[bytes]

    def read_into(self, channels: Sequence[Array]) -> None:
        """Reads all voxels, slab by slab, to the end of the file, checksum included.

        Args:
            channels: One array (X, Y, Z) for each channel in the file's own order of axes; views of any strides and of
                any type that holds the values.
        """
        proxy = self.image.dataobj
        self.stream.seek(proxy.offset)
        for channel in channels:
            x, y, z = channel.shape
            step = max(1, SLAB_BYTES // (x * y * proxy.dtype.itemsize))
            for first in range(0, z, step):
                count = min(step, z - first)
                raw = self.stream.read(x * y * count * proxy.dtype.itemsize)
                slab = np.frombuffer(raw, proxy.dtype)
                if slab.size < x * y * count:
                    raise EOFError("voxels are missing at the end")
                scaled = nib.volumeutils.apply_read_scaling(slab, proxy.slope, proxy.inter)
                channel[:, :, first : first + count] = scaled.reshape((x, y, count), order="F")
        self.finish()

    def finish(self) -> None:
        """Reads on behind the voxels, to the end: gzip compares its checksum there only."""
        tail = 0
        while part := len(self.stream.read(CHUNK_BYTES)):
            tail += part
            if tail > TAIL_BYTES:
                raise DataError(
                    f"{self.path}: file must end behind its last voxel, got {TAIL_BYTES >> 20} MiB and more after it; "
                    "export it again."
                )


@contextmanager
def open_nifti(path: Path) -> Iterator[OpenFile]:
    """Opens a NIfTI file, checks its header, and turns what goes wrong until it is closed into a sentence.

    Raises:
        DataError: As for :func:`read_header`, or the file is truncated or damaged.
    """
    with _opened(path) as stream:
        image = image_of(path, stream)
        yield OpenFile(path=path, image=image, header=header_of(path, image), stream=stream)


def read_header(path: Path) -> Header:
    """Reads the header of a NIfTI file, and no voxel.

    Args:
        path: File ending in ``.nii`` or ``.nii.gz``.

    Returns:
        The header; axes of length 1 behind the third are dropped, and lengths are in mm whatever the file's unit.

    Raises:
        DataError: The file is missing, empty or no NIfTI, has no unit of length that is known, has an axis without
            voxels or a singular affine, is not 3-D or 4-D, or is too small for the volume it announces.
    """
    with open_nifti(path) as file:
        return file.header


def is_whole(path: Path) -> bool:
    """Says whether a NIfTI file can be read to its end; of a packed one, the length at its end is looked at first.

    Files that are written here have that length of all their bytes; of others all bytes are unpacked.
    """
    try:
        with open_nifti(path) as file:
            needed = int(file.image.dataobj.offset) + file.header.dtype.itemsize * math.prod(file.header.shape)
            if is_gzip(path.name) and _packed_length(path) != needed % (1 << 32):
                file.stream.seek(needed)
                file.finish()
    except DataError:
        return False
    return True


def _packed_length(path: Path) -> int:
    """Returns the last four bytes of a gzip file: how many it holds unpacked, modulo 2^32."""
    with path.open("rb") as file:
        file.seek(-LENGTH_BYTES, io.SEEK_END)
        return int.from_bytes(file.read(), "little")


def read_volume(path: Path) -> Volume:
    """Reads a NIfTI file to its end, checksum included, and orients it to RAS.

    Args:
        path: File ending in ``.nii`` or ``.nii.gz``.

    Returns:
        The volume.

    Raises:
        DataError: As for :func:`read_header`, or the file is truncated or damaged.
    """
    with open_nifti(path) as file:
        stored = np.asanyarray(file.image.dataobj)
        stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
        file.finish()
    orientation = nib.io_orientation(affine_of_nifti(file.image))
    array = nib.apply_orientation(stored.reshape(trimmed(stored.shape)), orientation)
    said = file.header
    return Volume(array=array, affine=said.affine, spacing_mm=said.spacing_mm, warnings=said.warnings)


def read_channels(paths: Sequence[Path]) -> Iterator[Volume]:
    """Reads the channels of an image one after the other, whether in files of their own or in one 4-D file.

    Args:
        paths: The files of a case's image.

    Yields:
        One 3-D volume per channel.

    Raises:
        DataError: As for :func:`read_volume`.
    """
    for path in paths:
        volume = read_volume(path)
        channels = [volume.array] if volume.array.ndim == 3 else np.moveaxis(volume.array, 3, 0)
        yield from (replace(volume, array=channel) for channel in channels)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file and turns what goes wrong in reading it into a sentence."""
    if not split_ending(path.name)[1]:
        raise DataError(f"{path}: must be a NIfTI file named .nii or .nii.gz; convert it.")
    try:
        with gzip.open(path) if is_gzip(path.name) else path.open("rb") as stream:
            yield cast(IO[bytes], stream)
    except FileNotFoundError as error:
        raise DataError(f"{path}: file must exist, got none; restore it or remove the case.") from error
    except gzip.BadGzipFile as error:
        raise DataError(f"{path}: must be a whole gzip file, got '{error}'; copy or export it again.") from error
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path}: file is truncated or damaged ('{error}'); copy or export it again.") from error
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0]
        raise DataError(f"{path}: file must be readable, got '{reason}'; copy or export it again.") from error
