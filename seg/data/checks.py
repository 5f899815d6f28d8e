"""Checks that come before training: every file of a data set is read, and all that is wrong is named together."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from seg.config import DataConfig
from seg.data.cases import LABEL_TOLERANCE, Case, Dataset, of_case
from seg.data.classes import NAMED_VALUES, ClassMap
from seg.data.likeness import Look, alike, look_of
from seg.data.prepare import CaseGrid, channel_problems, fill_background, grid_of, grid_problems, label_problems
from seg.data.volumes import ENDINGS, OpenVolume, open_label, open_volume, split_ending
from seg.errors import ConfigError, DataError, Problem
from seg.processes import usable_cores
from seg.words import some

LOG = logging.getLogger(__name__)
FOLDERS = ("imagesTr", "labelsTr")
LARGEST_INTENSITY = 1e15
"""Largest magnitude of a voxel: the squares of 3e8 such voxels still add up within single precision."""


@dataclass(frozen=True, kw_only=True)
class CaseReport:
    """What is wrong with a case: why it cannot be used, and what deserves a look.

    A label without foreground is legitimate in some data sets and a failed export in others.
    """

    case_id: str
    errors: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()


def check_dataset(
    dataset: Dataset, *, workers: int = 0, progress: bool = True, fill: bool = False
) -> tuple[CaseReport, ...]:
    """Reads every file of a data set and reports the cases about which there is something to say, in their order.

    Holds one volume in memory at a time and process; every case is expected to have a label. Scans in imagesTr and
    labelsTr that no case uses are announced by a warning, and so are neighbouring cases that look like one patient
    where no patients are named.

    Args:
        dataset: The data set.
        workers: Processes that read, at most one for each case and core; 0 or 1 reads in this one.
        progress: Whether a terminal on stderr shows a progress bar.
        fill: Whether voxels that are not a number are background.
    """
    if unused := _unused_files(dataset):
        value = f"{len(unused)}: {some(unused, NAMED_VALUES)}"
        rule, remedy = "should hold no scan that no case uses", "name them as dataset.json says or move them away"
        LOG.warning("%s", Problem(str(dataset.root), "unused", rule, value, remedy))
    check = partial(_check_case, channel_names=dataset.channel_names, classes=dataset.class_map, fill=fill)
    bar = partial(tqdm, total=len(dataset.cases), desc="check", unit="case", disable=None if progress else True)
    workers = min(workers, usable_cores(), len(dataset.cases))
    if workers <= 1:
        checked = list(bar(map(check, dataset.cases)))
    else:
        # Spawned, not forked: a caller may hold threads, which a fork would copy half of.
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            checked = list(bar(pool.map(check, dataset.cases, chunksize=4)))
    if all(case.patient is None for case in dataset.cases):
        _announce_alike(dataset, {report.case_id: look for report, look in checked if look is not None})
    return tuple(report for report, _ in checked if report.errors or report.warnings)


def _announce_alike(dataset: Dataset, looks: Mapping[str, Look]) -> None:
    if pairs := alike(looks):
        named = some([f"{one} and {two}" for one, two in pairs], NAMED_VALUES)
        rule = "should name its patients: neighbouring cases look like one, which on both sides makes scores too good"
        remedy = "if they are, give data.patient_pattern or a table patients.csv"
        value = f"{len(pairs)} of {len(looks)} cases: {named}"
        LOG.warning("%s", Problem(str(dataset.root), "patients", rule, value, remedy))


def _unused_files(dataset: Dataset) -> list[str]:
    used = {path for case in dataset.cases for path in case.files}
    found = [
        path.relative_to(dataset.root)
        for folder in FOLDERS
        for path in sorted(dataset.root.joinpath(folder).rglob("*"))
        if split_ending(path.name, ENDINGS)[1] and path not in used
    ]
    return [str(path) for path in found if not any(part.startswith(".") for part in path.parts)]


def check_channels(config: DataConfig, channels: int) -> None:
    """Checks that normalisation says what to do with every channel of a data set, and with no other.

    Raises:
        ConfigError: The number of modes or of windows does not fit; both are named.
    """
    problems = []
    modes = config.normalization
    if len(modes) not in (1, channels):
        rule = f"must name one mode for all channels or one for each of the data set's {channels}"
        value, remedy = f"{len(modes)}: {', '.join(modes)}", "correct it or channel_names of the data set"
        problems.append(Problem("data.normalization", "channels", rule, value, remedy))
    if config.ct is not None and len(config.ct.lower) != channels:
        rule = f"must have one value for each of the data set's {channels} channels"
        problems.append(Problem("data.ct", "channels", rule, str(len(config.ct.lower)), "seg plan finds them"))
    if problems:
        raise ConfigError(problems)


def _check_case(
    case: Case, *, channel_names: tuple[str, ...], classes: ClassMap, fill: bool
) -> tuple[CaseReport, Look | None]:
    errors: list[Problem] = []
    doubts: dict[str, Path] = {}  # what is doubtful of all files of a case is said of the first
    warnings: list[Problem] = []
    channels: list[int] = []
    grid: CaseGrid | None = None
    look: Look | None = None
    for path in case.images:
        try:
            with open_volume(path) as file:
                grid = grid or grid_of(file.header)
                channels.append(file.header.channels)
                doubts = dict.fromkeys(file.header.warnings, path) | doubts
                errors += of_case(case, grid_problems(file, "channel", grid))
                found, seen = _image_problems(case, file, fill)
                errors, look = errors + found, look or seen
        except DataError as error:
            errors += of_case(case, error.problems, "image")
    if len(channels) == len(case.images):
        errors += channel_problems(channels, channel_names, f"case {case.id}")
    if case.label is None:
        rule, remedy = "must have a label, as training and evaluation need it", "add the label or remove the case"
        errors.append(Problem(f"case {case.id}", "missing", rule, f"the image {case.images[0].name} alone", remedy))
    else:
        try:
            with open_label(case.label, case.label_on) as file:
                doubts = dict.fromkeys(file.header.warnings, case.label) | doubts
                errors += of_case(case, label_problems(file, grid or grid_of(file.header)), "label")
                if case.label_on_image and grid is not None:
                    warnings += _moved(case, case.label, grid)
                if file.header.channels == 1:
                    errors += _label_problems(case, file, classes, warnings)
        except DataError as error:
            errors += of_case(case, error.problems, "label")
    of_grid = [_problem(case, path, "grid", text) for text, path in doubts.items()]
    return CaseReport(case_id=case.id, errors=tuple(errors), warnings=(*of_grid, *warnings)), look


def _moved(case: Case, label: Path, grid: CaseGrid) -> list[Problem]:
    """Says that a label is taken on the grid of its image though its own header says otherwise."""
    with open_volume(label) as file:
        rule, remedy = "is taken on the image's grid, as data.label_grid states", "look at cases.html"
        return [
            _problem(case, label, "label_grid", rule, one.value, remedy) for one in grid_problems(file, "label", grid)
        ]


def _problem(case: Case, path: Path, kind: str, rule: str, value: str = "", remedy: str = "") -> Problem:
    role = "label" if path == case.label else "image"
    return Problem(f"case {case.id}", kind, f"{role} {path.name} {rule}", value, remedy)


def _image_problems(case: Case, file: OpenVolume, fill: bool) -> tuple[list[Problem], Look | None]:
    """Returns what is wrong with an image, and what is kept of its first channel."""
    found = []
    look = None
    for index, channel in enumerate(file.voxels()):
        name = file.path if file.header.channels == 1 else file.path.with_name(f"{file.path.name} channel {index}")
        if fill:
            fill_background(channel)
        # One pass where all is well: a NaN or an infinity always reaches the minimum or the maximum.
        lowest, highest = float(channel.min()), float(channel.max())
        if not (np.isfinite(lowest) and np.isfinite(highest)):
            count = int(np.count_nonzero(~np.isfinite(channel)))
            value = f"{count} NaN or infinite voxels"
            remedy = "mend or remove the image, or set data.nan to background where NaN stands for it"
            found.append(_problem(case, name, "finite", "must be finite", value, remedy))
        elif max(-lowest, highest) > LARGEST_INTENSITY:
            rule = f"must lie within {LARGEST_INTENSITY:g} of 0, for a finite variance in single precision"
            value, remedy = f"{lowest!r} to {highest!r}", "mend or rescale the image"
            found.append(_problem(case, name, "range", rule, value, remedy))
        elif np.float32(lowest) == np.float32(highest):
            value, remedy = f"{lowest:g} in every voxel", "export it again or remove the case"
            found.append(_problem(case, name, "constant", "must vary", value, remedy))
        elif index == 0:
            look = look_of(channel)
    return found, look


def _label_problems(case: Case, file: OpenVolume, classes: ClassMap, warnings: list[Problem]) -> list[Problem]:
    (array,) = file.voxels()
    lowest, highest = float(array.min()), float(array.max())
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        value, remedy = "NaN or infinite voxels", "export it again"
        return [_problem(case, file.path, "finite", "must be finite", value, remedy)]
    if array.dtype.kind == "f":
        # In place: a label and one copy are all that is held.
        apart = np.rint(array)
        np.abs(np.subtract(apart, array, out=apart), out=apart)
        uneven = array[apart > LABEL_TOLERANCE]
        del apart
        if uneven.size:
            value, remedy = f"{uneven[0]!s} and {uneven.size - 1} more fractions", "export it without interpolation"
            return [_problem(case, file.path, "integer", "must hold integers", value, remedy)]
        array = np.rint(array)
    gapless = classes.known == tuple(range(len(classes.known)))
    # Sorting the values of a whole volume takes longer than all else here.
    if not (gapless and 0 <= round(lowest) <= round(highest) < len(classes.known)) and (
        strange := classes.strange(np.unique(array))
    ):
        value = ", ".join(f"{value:.17g}" for value in strange[:NAMED_VALUES])
        remedy = "declare these classes or correct the label"
        return [_problem(case, file.path, "values", f"values must be {classes}", value, remedy)]
    if not any(np.any(array == value) for group in classes.groups[1:] for value in group):
        warnings.append(_problem(case, file.path, "empty", "holds no foreground", remedy="check that this is meant"))
    return []
