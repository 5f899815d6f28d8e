"""Reading single NIfTI files, with every fault named."""

from __future__ import annotations

import gzip
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
from seg.data.geometry import Affine, affine_of_nifti, doubts_of_nifti, is_invertible
from seg.errors import DataError

nib: Any = nibabel  # only parts of it are annotated
Array = npt.NDArray[Any]
DEFLATE_LIMIT = 1032  # bytes that one byte of a deflate stream can stand for, at most
CHUNK_BYTES = 1 << 20
SLAB_BYTES = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a file says of its volume, after orientation to RAS.

    Attributes:
        shape: Voxels per axis (X, Y, Z), and channels last where there are several.
        affine: 4x4 matrix from voxel indices to mm.
        spacing_mm: Voxel size along X, Y and Z, in mm.
        dtype: Type in which voxels are stored.
        warnings: Sentences on what is doubtful about where the volume lies.
    """

    shape: tuple[int, ...]
    affine: Affine
    spacing_mm: tuple[float, float, float]
    dtype: np.dtype[Any]
    warnings: tuple[str, ...] = ()


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
        image: The image of nibabel.
        header: What it says of its volume.
        stream: The bytes of the file, decompressed.
    """

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
        _finish(self.stream)


@contextmanager
def open_nifti(path: Path) -> Iterator[OpenFile]:
    """Opens a NIfTI file, checks its header, and turns what goes wrong until it is closed into a sentence.

    Raises:
        DataError: As for :func:`read_header`, or the file is truncated or damaged.
    """
    with _opened(path) as stream:
        image = _image(path, stream)
        yield OpenFile(image=image, header=_header(path, image), stream=stream)


def read_header(path: Path) -> Header:
    """Reads the header of a NIfTI file, and no voxel.

    Args:
        path: File ending in ``.nii`` or ``.nii.gz``.

    Returns:
        The header; axes of length 1 behind the third are dropped. The file's unit of length is taken to be mm.

    Raises:
        DataError: The file is missing or no NIfTI, has an axis without voxels or a singular affine, is not 3-D or 4-D,
            or is too small for the volume it announces.
    """
    with open_nifti(path) as file:
        return file.header


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
        _finish(file.stream)
    orientation = nib.io_orientation(affine_of_nifti(file.image))
    array = nib.apply_orientation(stored.reshape(_trimmed(stored.shape)), orientation)
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


def _image(path: Path, stream: IO[bytes]) -> Any:
    """Reads the header of an open file; voxels stay in the file."""
    start = stream.read(352)
    stream.seek(0)
    if start[344:348] == b"n+1\0":
        kind = nib.Nifti1Image
    elif start[4:8] == b"n+2\0":
        kind = nib.Nifti2Image
    else:
        raise DataError(f"{path}: must be a NIfTI file, got other content; convert it.")
    try:
        return kind.from_stream(stream)
    except (nib.spatialimages.HeaderDataError, nib.filebasedimages.ImageFileError, ValueError, TypeError) as error:
        raise DataError(f"{path}: must have a valid NIfTI header, got '{error}'; export it again.") from error


def _header(path: Path, image: Any) -> Header:
    """Checks a header and orients it to RAS."""
    shape = _trimmed(tuple(int(size) for size in image.shape))
    dtype = image.get_data_dtype()
    if len(shape) not in (3, 4):
        raise DataError(f"{path}: must have 3 axes, or 4 with channels last, got shape {shape}; export volumes.")
    if min(shape) < 1:
        raise DataError(f"{path}: every axis must have at least one voxel, got shape {shape}; export it again.")
    if dtype.kind not in "iuf":
        raise DataError(f"{path}: voxels must be real numbers, got {dtype}; export one number per voxel.")
    # Python's integers: a product of header fields may exceed 64 bits.
    needed = int(image.dataobj.offset) + dtype.itemsize * int(np.prod(np.array(shape, dtype=object)))
    size = path.stat().st_size
    if needed > size * (DEFLATE_LIMIT if is_gzip(path.name) else 1):
        raise DataError(
            f"{path}: file must hold the {needed} bytes of shape {shape}, got a truncated file of {size} bytes; "
            "copy or export it again."
        )
    affine = affine_of_nifti(image)
    if not is_invertible(affine):
        raise DataError(f"{path}: affine must be invertible, got {affine[:3].tolist()}; export it with its geometry.")
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    orientation = nib.io_orientation(affine)
    order = np.argsort(orientation[:, 0])
    oriented = affine @ nib.orientations.inv_ornt_aff(orientation, shape[:3])
    return Header(
        shape=(*(shape[axis] for axis in order), *shape[3:]),
        affine=oriented,
        spacing_mm=(float(lengths[order[0]]), float(lengths[order[1]]), float(lengths[order[2]])),
        dtype=dtype,
        warnings=doubts_of_nifti(image),
    )


def _finish(stream: IO[bytes]) -> None:
    """Reads on to the end: gzip compares its checksum there only."""
    while stream.read(CHUNK_BYTES):
        pass


def _trimmed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Drops axes of length 1 behind the third, which some programs write."""
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return shape
