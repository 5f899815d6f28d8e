"""The one way from the files of a case to the arrays that a network sees: read, orient, sample, normalise.

Training, prediction, planning and checks all come here, so that a case lies at one place:

- The first file of the image makes the grid of the case: its voxels, with their axes brought to RAS by its affine.
- Every other file, further channels and the label, is brought to the axes of that grid by its own affine. Files whose
  grids agree to a hundredth of a voxel at every corner are taken voxel by voxel, without interpolation; others are
  refused.
- With ``data.spacing_mm`` the case is sampled on a grid that begins at the same first voxel and has the same
  directions. Places are computed in voxels of the first file and never in mm, so the origin of the scan plays no part.
  How many of the scan's voxels a new voxel spans is the simplest fraction that is off by less than a thousandth of a
  voxel over the whole axis: rounding in headers does not change a voxel, and what falls halfway does so exactly.
- Images are interpolated linearly; beyond the outermost voxel its value continues. Labels take the nearest voxel.
  What lies halfway between two voxels takes the lower one, and half a voxel at the end of an axis is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from seg.config import CtConfig, DataConfig
from seg.data.cases import Case
from seg.data.classes import MAX_INDEX, ClassMap, class_indices
from seg.data.geometry import GRID_TOLERANCE, Affine, Geometry, corner_distance, oriented_grid, spacing_of
from seg.data.memory import check_memory
from seg.data.volumes import Header, OpenVolume, open_label, open_volume
from seg.errors import DataError, Problem
from seg.words import dimensions

Array = npt.NDArray[Any]
Triple = tuple[int, int, int]
Step = tuple[Fraction, Fraction, Fraction]
"""Voxels of the scan that a voxel of the sampled grid spans, along X, Y and Z."""
UNCHANGED = (Fraction(1), Fraction(1), Fraction(1))
STEP_TOLERANCE = Fraction(1, 1000)
"""How far a simple fraction in place of a step may move the last voxel of an axis, in voxels of either grid."""
SLAB_BYTES = 1 << 24
"""Volumes are sampled in slabs of about this size."""
LEAST_DEVIATION = 1e-8
"""Equal voxels become 0."""
BYTES_PER_IMAGE_VOXEL = 4
BYTES_PER_LABEL_VOXEL = 1


@dataclass(frozen=True, eq=False)
class CaseGrid:
    """The grid of a case: that of the first file of its image, with its axes brought to RAS.

    Attributes:
        shape: Voxels along X, Y and Z.
        affine: Affine (4, 4) from voxel indices to mm.
    """

    shape: Triple
    affine: Affine

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along X, Y and Z, in mm."""
        return spacing_of(self.affine)


@dataclass(frozen=True, kw_only=True, eq=False)
class Image:
    """The image of a case on its own grid.

    Attributes:
        array: Voxels f32 (C, X, Y, Z) on the case's grid.
        grid: The case's grid.
        geometry: The grid of the first file, in the file's own order of axes.
    """

    array: npt.NDArray[np.float32]
    grid: CaseGrid
    geometry: Geometry


def grid_of(header: Header) -> CaseGrid:
    """Returns the grid of a file, with its axes brought to RAS."""
    return CaseGrid(*oriented_grid(header.shape, header.affine)[1:])


def read_voxels(file: OpenVolume, grid: CaseGrid, dtype: npt.DTypeLike | None = None) -> Array:
    """Reads all voxels (C, X, Y, Z) of a file with the axes of a grid that it lies on, in its own type or another.

    Raises:
        DataError: The file is damaged, or its voxels do not fit in memory.
    """
    kept = np.dtype(file.header.dtype if dtype is None else dtype)
    file.check_memory(kept.itemsize * math.prod((file.header.channels, *grid.shape)))
    array = np.empty((file.header.channels, *grid.shape), kept)
    _read_onto(file, grid, array)
    return array


def _read_onto(file: OpenVolume, grid: CaseGrid, channels: Array) -> None:
    """Reads all voxels of a file into an array (C, X, Y, Z) with the axes of a grid that the file lies on."""
    orientation, _, _ = oriented_grid(file.header.shape, file.header.affine, grid.affine)
    order = [int(axis) for axis in orientation[:, 0]]
    # The array in the file's own order of axes: what is written through the view is oriented by that.
    flips = tuple(slice(None, None, int(sign)) for sign in orientation[:, 1])
    # What the type does not hold becomes infinite, and is refused by whoever looks at the values.
    with np.errstate(over="ignore", invalid="ignore"):
        file.read_into([single.transpose(order)[flips] for single in channels])


def read_image(paths: Sequence[Path], channel_names: Sequence[str] | None = None, *, fill: bool = False) -> Image:
    """Reads the image of a case from a file per channel, a 4-D file or the folder of a DICOM series.

    Args:
        paths: The files.
        channel_names: Channels that it must have; None takes any.
        fill: Whether voxels that are not a number are background; see :func:`fill_background`.

    Raises:
        DataError: A file cannot be read, lacks some of the channels named, lies on another grid than the first, holds
            values that are not finite, or does not fit in memory.
    """
    with ExitStack() as stack:
        files = [stack.enter_context(open_volume(path)) for path in paths]
        grid = grid_of(files[0].header)
        problems = list(channel_problems([file.header.channels for file in files], channel_names, str(paths[0])))
        for file in files[1:]:
            problems += grid_problems(file, "channel", grid)
        if problems:
            raise DataError(problems)
        channels = sum(file.header.channels for file in files)
        size = math.prod((channels, *grid.shape)) * (BYTES_PER_IMAGE_VOXEL + BYTES_PER_LABEL_VOXEL)
        files[0].check_memory(size + sum(file.reader_bytes for file in files[1:]))
        array = np.empty((channels, *grid.shape), dtype=np.float32)
        done = 0
        for file in files:
            _read_onto(file, grid, array[done : done + file.header.channels])
            done += file.header.channels
    for channel, values in enumerate(array):
        if fill:
            fill_background(values)
        # NaN and infinity always reach the minimum or the maximum.
        if not np.isfinite(values.min()) or not np.isfinite(values.max()):
            count = int(np.count_nonzero(~np.isfinite(values)))
            path = str(paths[channel if len(paths) > 1 else 0])
            value = f"{count} NaN or infinite ones"
            raise DataError(Problem(path, "finite", "must hold finite voxels", value, "mend the image"))
    return Image(array=array, grid=grid, geometry=files[0].header.geometry)


def fill_background(values: Array) -> None:
    """Gives voxels that are not a number the lowest value of the others, in place; all or none are left alone.

    The lowest value is what lies around the patient: air in CT, and what was cut away from an MR image. 0 may be water.
    """
    if values.dtype.kind == "f" and np.isnan(values.min()):
        missing = np.isnan(values)
        if not missing.all():
            values[missing] = values.min(where=~missing, initial=np.inf)


def read_channels(paths: Sequence[Path]) -> Iterator[tuple[CaseGrid, Array]]:
    """Reads the channels of an image one after the other, whether in files of their own or in one 4-D file.

    Yields:
        The grid of the case, and voxels (X, Y, Z) on it in the type of the file.

    Raises:
        DataError: A file cannot be read, does not fit in memory, or lies on another grid than the first.
    """
    grid: CaseGrid | None = None
    for path in paths:
        with open_volume(path) as file:
            grid = grid or grid_of(file.header)
            if problems := grid_problems(file, "channel", grid):
                raise DataError(problems)
            array = read_voxels(file, grid)
        for channel in array:
            yield grid, channel
        del array, channel


def label_on_grid(
    path: Path, grid: CaseGrid, classes: ClassMap | None = None, *, on: Path | None = None
) -> npt.NDArray[np.uint8]:
    """Reads the label map of a case, of integers in whatever type, as class indices (X, Y, Z).

    Args:
        path: The file.
        grid: The grid of the case.
        classes: What the values mean; None takes values from 0 to 255 for indices.
        on: Image whose grid it lies on; None lies where its own header says.

    Raises:
        DataError: The file cannot be read, lies on another grid than the case, or holds other values.
    """
    with open_label(path, on) as file:
        if problems := label_problems(file, grid):
            raise DataError(problems)
        (array,) = read_voxels(file, grid, np.float32)
    labels = class_indices(array, classes, str(path))
    if labels.dtype != np.uint8:
        value, remedy = f"{labels.min()} to {labels.max()}", "correct the label"
        raise DataError(Problem(str(path), "values", f"must hold integers from 0 to {MAX_INDEX}", value, remedy))
    return labels


def prepare_case(
    case: Case, config: DataConfig, channel_names: Sequence[str] | None = None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Prepares a case: its image as of :func:`prepare`, and class indices (X, Y, Z) on the grid of that.

    Raises:
        DataError: The case has no label, or as for :func:`read_image`, :func:`label_on_grid` and :func:`prepare`.
    """
    if case.label is None:
        raise DataError(Problem(f"case {case.id}", "missing", "must have a label", remedy="add a label"))
    image = read_image(case.images, channel_names, fill=config.nan == "background")
    label = label_on_grid(case.label, image.grid, case.classes, on=case.label_on)
    array, step = prepare(image, config)
    return array, nearest_label(label, step, cast(Triple, array.shape[1:]))


def prepare(image: Image, config: DataConfig) -> tuple[npt.NDArray[np.float32], Step]:
    """Samples an image at the network's spacing and normalises it.

    The voxels of the image are changed or handed on: it is of no further use.

    Args:
        image: The image.
        config: Spacing and normalisation.

    Returns:
        Normalised voxels f32 (C, X, Y, Z), oriented to RAS; and how many voxels of the scan each spans, along X, Y, Z.

    Raises:
        DataError: The sampled image does not fit in memory.
    """
    array, grid = image.array, image.grid
    step, target = sampled_grid(grid, config.spacing_mm)
    if target != grid.shape or step != UNCHANGED:
        spacing = dimensions(config.spacing_mm or (), "g")
        check_memory(f"image of shape {target} at the network's {spacing} mm", 4 * math.prod((len(array), *target)))
        array = np.empty((len(array), *target), dtype=np.float32)
        for source, sampled in zip(image.array, array, strict=True):
            _interpolate(source, step, sampled)
    normalize(array, config.normalization, config.ct)
    return array, step


def nearest_label(label: npt.NDArray[np.uint8], step: Step, shape: Triple) -> npt.NDArray[np.uint8]:
    """Samples a label map (X, Y, Z): voxels take the class of the nearest voxel, of two equally near the lower one."""
    if shape == label.shape and step == UNCHANGED:
        return label
    indices = []
    for axis in range(3):
        low, high, rest = neighbours(step[axis], shape[axis], label.shape[axis])
        indices.append(np.where(2 * rest > 1, high, low))
    return label[np.ix_(*indices)]


def sampled_grid(grid: CaseGrid, spacing_mm: Sequence[float] | None) -> tuple[Step, Triple]:
    """Lays a grid of another spacing over a case: it begins at the same voxel and runs in the same directions.

    Returns:
        Voxels of the case that a new voxel spans, and the shape of the new grid. The last new voxel is the one whose
        centre is nearest to that of the last voxel of the case, the lower one of two equally near.
    """
    if spacing_mm is None:
        return UNCHANGED, grid.shape
    steps = [
        _step(Fraction(wanted) / Fraction(own), size)
        for wanted, own, size in zip(spacing_mm, grid.spacing_mm, grid.shape, strict=True)
    ]
    x, y, z = (1 + math.ceil((size - 1) / step - Fraction(1, 2)) for size, step in zip(grid.shape, steps, strict=True))
    return (steps[0], steps[1], steps[2]), (x, y, z)


def _step(ratio: Fraction, size: int) -> Fraction:
    """Returns the simplest fraction near a ratio of voxel sizes, for an axis of so many voxels."""
    tolerance = STEP_TOLERANCE / max(size, math.ceil(size / ratio))
    return _simplest(ratio * (1 - tolerance), ratio * (1 + tolerance))


def _simplest(low: Fraction, high: Fraction) -> Fraction:
    """Returns the fraction of the smallest denominator in an interval of positive numbers, by continued fractions."""
    whole = math.ceil(low)
    if whole <= high:
        return Fraction(whole)
    return whole - 1 + 1 / _simplest(1 / (high - whole + 1), 1 / (low - whole + 1))


def neighbours(step: Fraction, count: int, size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Array]:
    """Finds the two voxels that each voxel of a sampled axis lies between.

    Beyond the last of so many voxels of the source its value continues.

    Returns:
        Index of the lower and of the upper voxel, and how far from the lower to the upper one the place is, in [0, 1).
    """
    # Python's integers: a product may exceed 64 bits.
    places = [divmod(index * step.numerator, step.denominator) for index in range(count)]
    low = np.array([min(whole, size - 1) for whole, _ in places], dtype=np.int64)
    share = np.array([rest / step.denominator if whole < size - 1 else 0.0 for whole, rest in places])
    return low, np.minimum(low + 1, size - 1), share


def _interpolate(source: npt.NDArray[np.float32], step: Step, sampled: npt.NDArray[np.float32]) -> None:
    """Interpolates a volume (X, Y, Z) linearly along each axis, slab by slab along X."""
    axes = [neighbours(step[axis], sampled.shape[axis], source.shape[axis]) for axis in range(3)]
    low, high, _ = axes[0]
    rows = max(1, int(SLAB_BYTES // (4 * max(1.0, float(step[0])) * math.prod(source.shape[1:]))))
    for first in range(0, len(sampled), rows):
        part = slice(first, first + rows)
        begin = int(low[part][0])
        values: Array = source[begin : int(high[part][-1]) + 1]
        # Axes that lose voxels come first: the others have less to do.
        for axis in sorted(range(3), key=lambda axis: -step[axis]):
            lower, upper, share = axes[axis]
            if axis == 0:
                lower, upper, share = lower[part] - begin, upper[part] - begin, share[part]
            if step[axis] == 1 and len(lower) == values.shape[axis]:
                continue
            near, far = np.take(values, lower, axis), np.take(values, upper, axis)
            far -= near
            far *= share.astype(np.float32).reshape([-1 if own == axis else 1 for own in range(3)])
            near += far
            values = near
        sampled[part] = values


def normalize(array: npt.NDArray[np.float32], modes: Sequence[str], ct: CtConfig | None) -> None:
    """Brings the intensities of each channel to a common scale, in place.

    ``zscore`` subtracts the volume's mean and divides by its standard deviation, so that equal voxels become 0; ``ct``
    clips to a fixed window and applies the data set's mean and standard deviation; ``none`` leaves values alone.

    ``array`` is f32 (C, X, Y, Z); there is one mode per channel or one for all.
    """
    for channel, values in enumerate(array):
        mode = modes[channel if len(modes) > 1 else 0]
        if mode == "zscore":
            _zscore(values)
        elif mode == "ct" and ct is not None:
            np.clip(values, ct.lower[channel], ct.upper[channel], out=values)
            values -= ct.mean[channel]
            values /= ct.std[channel]


def _zscore(values: npt.NDArray[np.float32]) -> None:
    """Normalises a channel (X, Y, Z) to mean 0 and standard deviation 1, in place.

    Sums are in double precision and in one order, so that they are the same on any number of threads.
    """
    mean = values.mean(dtype=np.float64)
    deviation = 1.0  # of a single voxel, which has none
    if values.size > 1:
        squares = sum(float(np.square(plane - mean, dtype=np.float64).sum()) for plane in values)
        deviation = max(math.sqrt(squares / (values.size - 1)), LEAST_DEVIATION)
    values -= np.float32(mean)
    values /= np.float32(deviation)


def channel_problems(channels: Sequence[int], names: Sequence[str] | None, path: str) -> Iterator[Problem]:
    """Says why files that hold so many volumes each do not make up an image of the channels wanted."""
    several = [count for count in channels if count > 1]
    if several and len(channels) > 1:
        rule, value = "must be 3-D where there is one file per channel", f"{several[0]} channels in a file"
        yield Problem(path, "channels", rule, value, "split it by channel")
    elif names is not None and sum(channels) != len(names):
        rule = f"must have {len(names)} channel(s), {', '.join(names)}"
        remedy = "name files of one case _0000, _0001, ... or stack them in a 4-D file"
        yield Problem(path, "channels", rule, str(sum(channels)), remedy)


def label_problems(file: OpenVolume, grid: CaseGrid) -> list[Problem]:
    """Says why a file is no label map on the grid of a case."""
    if file.header.channels == 1:
        return grid_problems(file, "label", grid)
    value, remedy = f"{file.header.channels} channels", "merge its parts into one label map"
    return [Problem(str(file.path), "channels", "must have 3 axes", value, remedy)]


def grid_problems(file: OpenVolume, what: str, grid: CaseGrid) -> list[Problem]:
    """Says how the grid of a file, which holds a ``channel`` or a ``label``, differs from that of the case."""
    _, shape, affine = oriented_grid(file.header.shape, file.header.affine, grid.affine)
    remedy = f"export the {what} on the image's grid"
    if shape != grid.shape:
        rule, value = f"must have the image's shape {grid.shape}", str(shape)
    elif (apart := corner_distance(shape, affine, grid.affine) / min(grid.spacing_mm)) > GRID_TOLERANCE:
        rule, value = f"must lie on the image's grid to {GRID_TOLERANCE:g} voxel", f"a corner {apart:.3g} voxels away"
        remedy += ", or set data.label_grid to image where its header is wrong" if what == "label" else ""
    else:
        return []
    return [Problem(str(file.path), "grid", rule, value, remedy)]
