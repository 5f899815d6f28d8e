"""NIfTI files, plain or packed by gzip."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import nibabel
import numpy as np

from seg.data.formats.base import SLAB_BYTES, Block, Format, Header, OpenVolume, check_header, fault, named_faults
from seg.data.geometry import UNITS_MM, geometry_of_nifti, unit_of_nifti
from seg.errors import DataError

nib: Any = nibabel  # only parts of it are annotated
ENDINGS = (".nii.gz", ".nii")
GZIP_MAGIC = b"\x1f\x8b"
CHUNK_BYTES = 1 << 20
LENGTH_BYTES = 4
TAIL_BYTES = 1 << 22
"""What may follow the last voxel; a stream that goes on is not unpacked to an end that may be hours away."""
DEFLATE_LIMIT = 1032
"""Bytes that one byte of a deflate stream can stand for, at most."""


def is_gzip(path: Path) -> bool:
    """Says whether a file of this name is packed."""
    return path.name.lower().endswith(".gz")


@contextmanager
def open_nifti(path: Path) -> Iterator[OpenVolume]:
    """Opens a NIfTI file and checks its header.

    Axes of length 1 behind the third are dropped; lengths are in mm whatever the file's unit.

    Raises:
        DataError: The file is empty, no NIfTI or damaged, its header is none or contradicts itself, its unit of length
            is not known, it is not 3-D or 4-D, or it is too small for the volume it announces.
    """
    with path.open("rb") as raw:
        start = raw.read(352)
    if is_gzip(path) and _kind(start) is not None:
        raise fault(path, "format", "must be packed, as .gz says", "a plain NIfTI file", "rename it to end in .nii")
    if not is_gzip(path) and start.startswith(GZIP_MAGIC):
        raise fault(path, "format", "must be a plain NIfTI file", "a packed one", "rename it to end in .nii.gz")
    with gzip.open(path) if is_gzip(path) else path.open("rb") as opened:
        stream = cast(IO[bytes], opened)
        image, header = _header(path, stream)
        yield OpenVolume(path=path, header=header, blocks=lambda: _blocks(path, image, header, stream))


def _header(path: Path, stream: IO[bytes]) -> tuple[Any, Header]:
    start = stream.read(352)
    stream.seek(0)
    if not start:
        raise fault(path, "format", "must be a NIfTI file", "an empty one", "copy or export it again")
    kind = _kind(start)
    if kind is None:
        raise fault(path, "format", "must be a NIfTI file", "other content", "convert it")
    try:
        with nib.imageglobals.LoggingOutputSuppressor():  # its remarks name no file
            image = kind.from_stream(stream)
        return image, _checked(path, image)
    except (DataError, OSError, EOFError, zlib.error):
        raise
    except Exception as error:  # what nibabel raises on fields that make no sense is of many types
        reason = f"'{type(error).__name__}: {error}'"
        raise fault(path, "header", "must have a valid NIfTI header", reason) from error


def _kind(start: bytes) -> Any:
    """Returns the class of a NIfTI file from its first 352 bytes, or null where it is none."""
    if start[344:348] == b"n+1\0":
        return nib.Nifti1Image
    return nib.Nifti2Image if start[4:8] == b"n+2\0" else None


def _checked(path: Path, image: Any) -> Header:
    stored = image.get_data_dtype()
    sizes = tuple(int(size) for size in image.shape)
    sizes = (*sizes[:3], *(size for size in sizes[3:] if size != 1))
    if len(sizes) not in (3, 4):
        rule = "must have 3 axes, or 4 with channels last"
        raise fault(path, "axes", rule, f"shape {sizes}", "export volumes")
    if (unit := unit_of_nifti(image)) not in UNITS_MM:
        raise fault(path, "unit", "must give lengths in mm, micron or metre", f"code {unit}", "export it in mm")
    geometry, proxy = geometry_of_nifti(image), image.dataobj
    dtype = stored
    if stored.kind in "iuf":
        dtype = nib.volumeutils.apply_read_scaling(np.zeros(1, stored), proxy.slope, proxy.inter).dtype
    x, y, z, channels = (*sizes, 1)[:4]
    dtype = dtype.newbyteorder("=")
    check_header(path, sizes, dtype, geometry.affine)
    header = Header(shape=(x, y, z), channels=channels, affine=geometry.affine, dtype=dtype, geometry=geometry)
    needed = _end(image, header)
    size = path.stat().st_size
    if needed > size * (DEFLATE_LIMIT if is_gzip(path) else 1):
        rule, value = f"must hold the {needed} bytes of shape {sizes}", f"a truncated file of {size} bytes"
        raise fault(path, "truncated", rule, value, "copy or export it again")
    return header


def _end(image: Any, header: Header) -> int:
    """Returns where the last voxel ends in the unpacked file, in bytes."""
    proxy = image.dataobj
    return int(proxy.offset) + header.voxels_bytes // header.dtype.itemsize * int(proxy.dtype.itemsize)


def _blocks(path: Path, image: Any, header: Header, stream: IO[bytes]) -> Iterator[Block]:
    proxy = image.dataobj
    stream.seek(proxy.offset)
    x, y, z = header.shape
    step = max(1, SLAB_BYTES // (x * y * proxy.dtype.itemsize))
    for channel in range(header.channels):
        for first in range(0, z, step):
            count = min(step, z - first)
            content = stream.read(x * y * count * proxy.dtype.itemsize)
            if len(content) < x * y * count * proxy.dtype.itemsize:
                raise EOFError("voxels are missing at the end")
            slab = np.frombuffer(content, proxy.dtype)
            scaled = nib.volumeutils.apply_read_scaling(slab, proxy.slope, proxy.inter)
            yield Block(channel=channel, z=first, array=scaled.reshape((1, x, y, count), order="F"))
    _finish(path, stream)


def _finish(path: Path, stream: IO[bytes]) -> None:
    """Reads from the voxels to the end of a file, where gzip compares its checksum; refuses a long tail."""
    tail = 0
    while part := len(stream.read(CHUNK_BYTES)):
        tail += part
        if tail > TAIL_BYTES:
            raise _tail(path)


def _tail(path: Path) -> DataError:
    return fault(path, "tail", "must end behind its last voxel", f"{TAIL_BYTES >> 20} MiB and more after it")


def is_whole(path: Path) -> bool:
    """Says whether a NIfTI file can be read to its end; of a packed one, the length at its end is looked at first.

    Files that are written here have that length of all their bytes; of others all bytes are unpacked.
    """
    try:
        with named_faults(path), gzip.open(path) if is_gzip(path) else path.open("rb") as opened:
            stream = cast(IO[bytes], opened)
            image, header = _header(path, stream)
            end = _end(image, header)
            if is_gzip(path) and _packed_length(path) != end % (1 << 32):
                stream.seek(end)
                _finish(path, stream)
    except DataError:
        return False
    return True


def _packed_length(path: Path) -> int:
    """Returns the last four bytes of a gzip file: how many it holds unpacked, modulo 2^32."""
    with path.open("rb") as file:
        file.seek(-LENGTH_BYTES, io.SEEK_END)
        return int.from_bytes(file.read(), "little")


NIFTI = Format(name="NIfTI", open=open_nifti, endings=ENDINGS, foreign=False)
