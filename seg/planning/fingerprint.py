"""What a data set looks like: the numbers from which an experiment is planned."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from seg.data.cases import Case, Dataset, of_case
from seg.data.geometry import voxel_ml_of
from seg.data.prepare import grid_of, label_on_grid, read_channels
from seg.data.volumes import read_header, stored_files
from seg.errors import DataError, Problem
from seg.files import file_digest

SAMPLES_PER_CASE = 10_000


@dataclass(frozen=True, kw_only=True)
class ChannelIntensity:
    """Intensities of one channel over the foreground voxels of all cases, in the image's own unit.

    Attributes:
        p00_5: 0.5th percentile.
        median: 50th percentile.
        p99_5: 99.5th percentile.
        mean: Mean.
        std: Standard deviation of the population, >= 0.
    """

    p00_5: float
    median: float
    p99_5: float
    mean: float
    std: float


@dataclass(frozen=True)
class IntensitySample:
    """What is kept of one channel of one case.

    Attributes:
        count: Voxels seen.
        mean: Their mean.
        squares: Sum of their squared deviations from the mean.
        ranked: All of them, sorted, or 10,000 evenly spaced order statistics, of shape (N,).
    """

    count: int
    mean: float
    squares: float
    ranked: npt.NDArray[np.float64]


def sample_intensities(voxels: npt.NDArray[Any]) -> IntensitySample:
    """Summarises voxels of one channel of one case, possibly none; those that are NaN or infinite are left out."""
    values = np.sort(voxels[np.isfinite(voxels)].astype(np.float64))
    if not values.size:
        return IntensitySample(0, 0.0, 0.0, values)
    mean = float(values.mean())
    squares = float(np.square(values - mean).sum())
    count = int(values.size)
    if count > SAMPLES_PER_CASE:
        # The middle of each of 10,000 equal shares of the sorted voxels: no random draw, so no seed.
        ranks = (np.arange(SAMPLES_PER_CASE) + 0.5) * count / SAMPLES_PER_CASE
        values = values[ranks.astype(np.int64)]
    return IntensitySample(count, mean, squares, values)


def pool_intensities(samples: Sequence[IntensitySample]) -> ChannelIntensity:
    """Joins the summaries of one channel, one per case: mean and deviation are exact over all voxels.

    Raises:
        DataError: No sample holds a voxel.

    References:
        Chan, Golub, LeVeque. Algorithms for computing the sample variance. 1983. doi:10.1080/00031305.1983.10483115.
    """
    filled = [sample for sample in samples if sample.count]
    if not filled:
        rule = "must have a foreground voxel in some label"
        raise DataError(Problem("data set", "foreground", rule, remedy="correct the labels"))
    counts = np.array([sample.count for sample in filled], dtype=np.float64)
    means = np.array([sample.mean for sample in filled])
    mean = float(np.average(means, weights=counts))
    squares = sum(sample.squares for sample in filled) + float((counts * np.square(means - mean)).sum())
    values = np.concatenate([sample.ranked for sample in filled])
    weights = np.concatenate([np.full(sample.ranked.size, sample.count / sample.ranked.size) for sample in filled])
    low, median, high = weighted_percentiles(values, weights, (0.5, 50, 99.5))
    return ChannelIntensity(p00_5=low, median=median, p99_5=high, mean=mean, std=float(np.sqrt(squares / counts.sum())))


def weighted_percentiles(
    values: npt.NDArray[np.float64], weights: npt.NDArray[np.float64], percents: Sequence[float]
) -> tuple[float, ...]:
    """Percentiles of values that each stand for a number of voxels.

    A value lies at the middle of the voxels it stands for, and positions between are interpolated: Hazen's definition,
    where all weights are 1.

    Args:
        values: Values, of shape (N,), N >= 1, in any order.
        weights: Voxels each stands for, of shape (N,), > 0.
        percents: Percentiles wanted, in [0, 100].

    References:
        Hyndman, Fan. Sample quantiles in statistical packages. 1996. doi:10.2307/2684934 (definition 5).
    """
    order = np.argsort(values, kind="stable")
    ranked, mass = values[order], weights[order]
    positions = np.cumsum(mass) - mass / 2
    wanted = np.asarray(percents) / 100 * mass.sum()
    return tuple(float(value) for value in np.interp(wanted, positions, ranked))


Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """Geometry, intensities and class sizes of a data set.

    Everything that is listed per case is in the order of ``case_ids``; axes are X, Y, Z after orientation to RAS.

    Attributes:
        case_ids: Cases, sorted.
        shapes: Voxels per axis of each case.
        spacings_mm: Voxel size per axis of each case, in mm.
        foreground_extents: Voxels per axis of the box around each case's foreground; 0 where it has none.
        channels: Names of the input channels.
        intensities: Foreground intensities, per channel.
        class_names: Names of the foreground classes, from label value 1 upwards.
        class_volumes_ml: Volume of each foreground class in each case, in ml.
        digest: SHA-256 of the case ids and of the contents of their files, 64 hexadecimal digits.
    """

    case_ids: tuple[str, ...]
    shapes: tuple[tuple[int, int, int], ...]
    spacings_mm: tuple[Triple, ...]
    foreground_extents: tuple[tuple[int, int, int], ...]
    channels: tuple[str, ...]
    intensities: tuple[ChannelIntensity, ...]
    class_names: tuple[str, ...]
    class_volumes_ml: tuple[tuple[float, ...], ...]
    digest: str


@dataclass(frozen=True)
class _CaseSummary:
    """One case's share of the fingerprint; small, so that volumes can be let go one by one."""

    shape: tuple[int, int, int]
    spacing_mm: Triple
    extent: tuple[int, int, int]
    class_volumes_ml: tuple[float, ...]
    channels: tuple[IntensitySample, ...]


def fingerprint_dataset(dataset: Dataset) -> Fingerprint:
    """Reads every labelled case once, one volume at a time; a terminal on stderr shows a progress bar.

    Percentiles are exact while a case has at most 10,000 foreground voxels; beyond, 10,000 of its order statistics,
    evenly spaced, stand for them. Voxels that are NaN or infinite are left out of intensities.

    Args:
        dataset: Data set, its cases in any order; those without a label are passed over.

    Raises:
        DataError: No case has a label, or files cannot be read or do not fit together; all such cases are named.
    """
    chosen = sorted((case for case in dataset.cases if case.label is not None), key=lambda case: case.id)
    if not chosen:
        raise DataError(Problem("data set", "labels", "must have a case with a label", remedy="add labelled cases"))
    hasher = hashlib.sha256()
    problems: list[Problem] = []
    summaries: list[_CaseSummary] = []
    for case in tqdm(chosen, desc="fingerprint", unit="case", disable=None):
        try:
            summaries.append(_summarise(case, len(dataset.class_names), len(dataset.channel_names)))
            _hash_case(hasher, case)
        except DataError as error:
            problems += of_case(case, error.problems)
    if problems:
        raise DataError(problems)
    return Fingerprint(
        case_ids=tuple(case.id for case in chosen),
        shapes=tuple(item.shape for item in summaries),
        spacings_mm=tuple(item.spacing_mm for item in summaries),
        foreground_extents=tuple(item.extent for item in summaries),
        channels=tuple(dataset.channel_names),
        intensities=tuple(
            pool_intensities([item.channels[index] for item in summaries])
            for index in range(len(dataset.channel_names))
        ),
        class_names=tuple(dataset.class_names[1:]),
        class_volumes_ml=tuple(item.class_volumes_ml for item in summaries),
        digest=hasher.hexdigest(),
    )


def _summarise(case: Case, num_classes: int, num_channels: int) -> _CaseSummary:
    assert case.label is not None  # only labelled cases are chosen
    grid = grid_of(read_header(case.images[0]))
    label = label_on_grid(case.label, grid, case.classes, on=case.label_on)
    foreground = (label > 0) & (label < num_classes)
    counts = np.bincount(label[foreground], minlength=num_classes)[1:num_classes]
    channels = [sample_intensities(channel[foreground]) for _, channel in read_channels(case.images)]
    if len(channels) != num_channels:
        rule, remedy = f"must have the data set's {num_channels} channels", "export all channels"
        raise DataError(Problem("image", "channels", rule, str(len(channels)), remedy))
    return _CaseSummary(
        shape=grid.shape,
        spacing_mm=grid.spacing_mm,
        extent=_extent(foreground),
        class_volumes_ml=tuple(float(count) * voxel_ml_of(grid.affine) for count in counts),
        channels=tuple(channels),
    )


def _extent(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int]:
    def along(axis: int) -> int:
        hit = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        return int(hit[-1] - hit[0] + 1) if hit.size else 0

    return along(0), along(1), along(2)


def _hash_case(hasher: Any, case: Case) -> None:
    """Adds a case's id and the digest of each of its files, so that no two lists of files share a byte stream."""
    hasher.update(case.id.encode() + b"\0")
    for path in case.files:
        for file in stored_files(path):
            hasher.update(file_digest(file))
