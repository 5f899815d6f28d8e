"""Removal of small and stray components from a label map, and volumes of its classes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from seg.config import PostprocessingConfig
from seg.data.classes import ClassMap
from seg.data.volumes import read_label
from seg.errors import ConfigError, DataError, Problem, about

NEIGHBOURS = np.ones((3, 3, 3), bool)
"""Voxels that share a corner are connected."""
SLAB_VOXELS = 1 << 22
"""Components are numbered in slabs of about so many voxels, at up to 14 bytes each."""


@dataclass(frozen=True)
class CleaningRule:
    """What is kept of a class.

    Attributes:
        largest: Whether the largest component alone is kept; of equals the one whose first
            voxel comes first, along Z first and along X last.
        min_volume_ml: Components below this are removed, in ml.
    """

    largest: bool
    min_volume_ml: float


def cleaning_rules(config: PostprocessingConfig, class_names: Sequence[str]) -> dict[int, CleaningRule]:
    """Returns the rules of a configuration by class index, of the classes (background first) that have any.

    Raises:
        ConfigError: A name is not that of a foreground class, or volumes do not match classes; all problems together.
    """
    names, largest = list(class_names)[1:], config.largest_component or ()
    rule = f"must name foreground classes of the data set, {', '.join(names)}"
    problems = [
        Problem("postprocessing.largest_component", "unknown", rule, f"'{name}'", "correct the name")
        for name in largest
        if name not in names
    ]
    volumes = config.min_volume_ml
    if len(volumes) not in (0, 1, len(names)):
        rule = f"must have one number, or one for each foreground class of the data set ({', '.join(names)})"
        problems.append(Problem("postprocessing.min_volume_ml", "length", rule, f"{len(volumes)}", "give one number"))
    if problems:
        raise ConfigError(problems)
    per_class = volumes * len(names) if len(volumes) == 1 else volumes or (0.0,) * len(names)
    rules = {
        index: CleaningRule(name in largest, volume)
        for index, (name, volume) in enumerate(zip(names, per_class, strict=True), start=1)
    }
    return {index: rule for index, rule in rules.items() if rule.largest or rule.min_volume_ml > 0}


def clean_labels(labels: npt.NDArray[Any], rules: dict[int, CleaningRule], voxel_ml: float) -> dict[int, float]:
    """Removes components in place; what is removed becomes background.

    Args:
        labels: Class indices (X, Y, Z).
        rules: Rules by class index.
        voxel_ml: Volume of a voxel, in ml.

    Returns:
        What was removed of each class that has a rule, in ml.
    """
    if not rules:
        return {}
    from scipy import ndimage  # takes half a second, which most runs have no use for

    boxes = ndimage.find_objects(labels, max_label=max(rules))
    removed = {}
    for index, rule in rules.items():
        box = boxes[index - 1]
        removed[index] = 0.0 if box is None else voxel_ml * _clean_class(labels[box], index, rule, voxel_ml)
    return removed


@dataclass(frozen=True, eq=False)
class _Slab:
    """Some planes of a class, their components numbered by themselves.

    Attributes:
        own: Voxels (x, Y, Z) that the slab answers for; the plane behind them begins the next slab too.
        numbers: Number of each voxel's component (x or x + 1, Y, Z), from 1; 0 beside the class.
        count: Largest number.
    """

    own: npt.NDArray[Any]
    numbers: npt.NDArray[np.int32]
    count: int

    def sizes(self) -> npt.NDArray[np.int64]:
        """Counts the slab's own voxels of each number."""
        return np.bincount(self.numbers[: len(self.own)].ravel(), minlength=self.count + 1)


def _slabs(labels: npt.NDArray[Any], index: int) -> Iterator[_Slab]:
    """Numbers the components of a class slab by slab; the whole volume at once would take 5 bytes a voxel or more."""
    from scipy import ndimage

    step = max(1, SLAB_VOXELS // (labels.shape[1] * labels.shape[2]))
    for first in range(0, len(labels), step):
        numbers, count = ndimage.label(labels[first : first + step + 1] == index, structure=NEIGHBOURS)
        yield _Slab(labels[first : first + step], numbers, count)


def _clean_class(labels: npt.NDArray[Any], index: int, rule: CleaningRule, voxel_ml: float) -> int:
    slabs: Iterable[_Slab] = _slabs(labels, index)
    if labels.size <= SLAB_VOXELS:
        slabs = list(slabs)
    component, sizes = _components(slabs)
    # Half a voxel: a component of exactly the smallest volume stays, whatever the rounding.
    keep = (sizes + 0.5) * voxel_ml > rule.min_volume_ml
    if rule.largest:
        keep &= np.arange(len(sizes)) == sizes.argmax()
    removed = before = 0
    # The plane shared with the next slab is changed by the next slab, which must number the voxels unchanged first.
    for slab in slabs if isinstance(slabs, list) else _slabs(labels, index):
        gone = np.append(False, ~keep[component[before : before + slab.count]])[slab.numbers[: len(slab.own)]]
        slab.own[gone] = 0
        removed += int(np.count_nonzero(gone))
        before += slab.count
    return removed


def _components(slabs: Iterable[_Slab]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int64]]:
    """Joins the components of slabs by the planes that two of them share.

    Returns:
        The component of each number, slab after slab, and the size of each component in voxels. Components are in the
        order of their first voxels, along Z first and along X last.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    sizes: list[npt.NDArray[np.int64]] = []
    pairs = [np.empty((2, 0), np.int64)]
    total, previous, shared = 0, 0, None  # numbers so far, numbers before the last slab, the last slab's last plane
    for slab in slabs:
        sizes.append(slab.sizes()[1:])
        if shared is not None:
            met = shared > 0
            ends = (shared[met].astype(np.int64) + previous - 1, slab.numbers[0][met].astype(np.int64) + total - 1)
            pairs.append(np.unique(np.stack(ends), axis=1))
        shared = slab.numbers[-1].copy()
        previous, total = total, total + slab.count
    first, second = np.concatenate(pairs, axis=1)
    joined = coo_array((np.ones(len(first), bool), (first, second)), shape=(total, total))
    count, component = connected_components(joined, directed=False)  # numbered by their first member
    return component, np.bincount(component, np.concatenate(sizes), count).astype(np.int64)


COUNTED_VOXELS = 1 << 22


def class_volumes(labels: npt.NDArray[Any], voxel_ml: float, class_names: Sequence[str]) -> dict[str, float]:
    """Returns the volume of each foreground class, in ml, of class indices or floats of integer value.

    Raises:
        DataError: A value is no class index.
    """
    counts = np.zeros(len(class_names), dtype=np.int64)
    flat = labels.ravel(order="K")
    for first in range(0, flat.size, COUNTED_VOXELS):  # indices take 8 bytes each
        part = flat[first : first + COUNTED_VOXELS]
        with np.errstate(invalid="ignore"):
            indices = part.astype(np.int64)
        wrong = (indices != part) | (indices < 0) | (indices >= len(class_names))
        if wrong.any():
            rule, remedy = f"must be integers from 0 to {len(class_names) - 1}", "give a label map of these classes"
            raise DataError(Problem("labels", "classes", rule, f"{part[wrong][0]:g}", remedy))
        counts += np.bincount(indices, minlength=len(class_names))
    return {name: float(count) * voxel_ml for name, count in zip(class_names[1:], counts[1:], strict=True)}


def file_volumes(path: Path, class_names: Sequence[str], classes: ClassMap | None = None) -> dict[str, float]:
    """Returns the volume of each foreground class in the file of a label map, in ml.

    Args:
        path: The file.
        class_names: Names by class index, the background first.
        classes: The values of label maps; None where each is the index of its class.

    Raises:
        DataError: The file is no label map of these classes, or does not fit in memory.
    """
    label = read_label(path)
    with about(str(path)):
        labels = label.array if classes is None else classes.indices(label.array, "labels")
        return class_volumes(labels, label.header.geometry.voxel_ml, class_names)
