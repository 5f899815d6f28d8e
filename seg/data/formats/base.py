"""What every format gives of a file: a header without its voxels, then the voxels in the order of the file."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt

from seg.data.geometry import Affine, Geometry, geometry_of_affine, is_invertible, oriented_grid, spacing_of
from seg.data.memory import check_memory
from seg.errors import DataError, Problem

nib: Any = nibabel  # only parts of it are annotated
Array = npt.NDArray[Any]
SLAB_BYTES = 1 << 22


def fault(path: Path, kind: str, rule: str, value: str = "", remedy: str = "export it again") -> DataError:
    """Returns the error of a file that breaks a rule."""
    return DataError(Problem(str(path), kind, rule, value, remedy))


@dataclass(frozen=True, kw_only=True, eq=False)
class Header:
    """What a file says of its volume.

    Attributes:
        shape: Voxels per axis (X, Y, Z), in the file's own order of axes unless oriented.
        channels: Values for each voxel.
        affine: Affine (4, 4) from voxel indices to RAS, in mm.
        dtype: Type of the voxels as they are read, in the byte order of the machine: a float type where the file
            scales its values.
        geometry: The file's own grid, which results are written on.
    """

    shape: tuple[int, int, int]
    channels: int
    affine: Affine
    dtype: np.dtype[Any]
    geometry: Geometry

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences on what is doubtful about where the volume lies."""
        return self.geometry.warnings

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along each axis, in mm."""
        return spacing_of(self.affine)

    @property
    def voxels_bytes(self) -> int:
        """Memory that the voxels take, in bytes."""
        x, y, z = self.shape  # Python's integers: the product of what a header says may exceed 64 bits
        return self.dtype.itemsize * self.channels * x * y * z

    def oriented(self, like: Affine | None = None) -> Header:
        """Returns the header with its axes turned to RAS, or to those of a grid of the affine ``like``."""
        _, shape, affine = oriented_grid(self.shape, self.affine, like)
        return replace(self, shape=shape, affine=affine)


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """A part of a volume: its first channel, its first slice, and its voxels (c, X, Y, z)."""

    channel: int
    z: int
    array: Array


@dataclass(frozen=True, kw_only=True, eq=False)
class OpenVolume:
    """A file whose header has been read and checked, and whose voxels have not been read yet.

    Attributes:
        path: The file, or the folder of a series.
        header: What it says of its volume.
        blocks: Reads the voxels part by part, to the end of the file, checksum included.
        reader_bytes: Memory that the reader takes beside the array it fills.
    """

    path: Path
    header: Header
    blocks: Callable[[], Iterator[Block]]
    reader_bytes: int = 0

    def voxels(self) -> Array:
        """Returns all voxels (C, X, Y, Z) in the file's own order of axes.

        Raises:
            DataError: The file is truncated or damaged, or its voxels do not fit in memory.
        """
        self.check_memory(self.header.voxels_bytes)
        x, y, z = self.header.shape
        array = np.empty((self.header.channels, z, y, x), self.header.dtype).transpose(0, 3, 2, 1)
        self.read_into(array)
        return array

    def read_into(self, channels: Sequence[Array] | Array) -> None:
        """Reads all voxels into an array (X, Y, Z) for each channel in the file's own order of axes.

        The arrays may be views of any strides, and of any type that holds the values.

        Raises:
            DataError: The file is truncated or damaged.
        """
        with named_faults(self.path):
            for block in self.blocks():
                for index, part in enumerate(block.array):
                    channels[block.channel + index][:, :, block.z : block.z + part.shape[2]] = part

    def check_memory(self, needed: int) -> None:
        """Refuses the volume where the bytes needed are more than there is memory.

        Raises:
            DataError: They are.
        """
        rule = f"must fit in memory with its shape {self.header.shape}"
        check_memory(str(self.path), needed + self.reader_bytes, rule=rule)


@dataclass(frozen=True, kw_only=True)
class Format:
    """A kind of file.

    Attributes:
        name: What people call it.
        open: Opens a file or a folder, whose voxels can be read until the context ends.
        endings: Endings of its names in small letters; none where a folder's content decides.
        packages: Packages that must be installed to read it.
        foreign: Whether a library in C++ reads it, which damaged files can kill: it runs in a process of its own.
        is_folder: Says whether a folder is a volume of the format.
        companions: Returns the files beside a header that hold its voxels.
    """

    name: str
    open: Callable[[Path], AbstractContextManager[OpenVolume]]
    endings: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    foreign: bool = True
    is_folder: Callable[[Path], bool] = lambda folder: False
    companions: Callable[[Path], tuple[Path, ...]] = lambda path: ()


def check_header(path: Path, shape: Sequence[int], dtype: np.dtype[Any], affine: Affine) -> None:
    """Refuses what describes no volume.

    Raises:
        DataError: An axis has no voxels, voxels are no real numbers, or the affine is singular.
    """
    if min(shape) < 1:
        raise fault(path, "shape", "must have at least one voxel along every axis", f"shape {tuple(shape)}")
    if dtype.kind not in "iuf":
        raise fault(path, "dtype", "must hold real numbers", f"{dtype}", "export one number per voxel")
    if not is_invertible(affine):
        value = str(affine[:3].tolist())
        raise fault(path, "affine", "must have an invertible affine", value, "export it with its geometry")


def header_of_affine(
    path: Path, shape: Sequence[int], channels: int, dtype: np.dtype[Any], affine: Affine, warnings: Sequence[str]
) -> Header:
    """Makes the header of a file that is no NIfTI; see :func:`check_header`."""
    check_header(path, (*shape, channels), dtype, affine)
    x, y, z = shape
    geometry = replace(geometry_of_affine((x, y, z), affine), warnings=tuple(warnings))
    return Header(shape=(x, y, z), channels=channels, affine=affine, dtype=dtype, geometry=geometry)


@contextmanager
def named_faults(path: Path) -> Iterator[None]:
    """Turns what goes wrong in reading a file within the block into an error that names the file.

    Raises:
        DataError: The file is absent, cannot be read, is truncated, or its checksum is wrong.
    """
    remedy = "copy or export it again"
    try:
        yield
    except FileNotFoundError as error:
        raise fault(path, "missing", "must exist", "none", "restore it or remove the case") from error
    except gzip.BadGzipFile as error:
        raise fault(path, "damaged", "must be a whole gzip file", f"'{error}'", remedy) from error
    except (EOFError, zlib.error) as error:
        raise fault(path, "truncated", f"is truncated or damaged ('{error}')", remedy=remedy) from error
    except OSError as error:
        from seg.files import file_error  # which the process of foreign readers has no use for

        raise DataError(file_error(path, error).problems) from error
