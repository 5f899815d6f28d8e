"""Which values of label files are of which class: the one place that turns values into class indices, and back.

References:
    Isensee et al. nnU-Net. 2021. doi:10.1038/s41592-020-01008-z (labels as lists of values are regions, which may
    overlap. Deviation: a network learns the parts that they cut each other into, each voxel of one; nnU-Net learns each
    region by itself, by a sigmoid).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from seg.errors import ConfigError, DataError, Problem, shown

Array = npt.NDArray[Any]
MAX_VALUE = 65535
"""Largest value of a class in label files."""
MAX_INDEX = 255
"""Largest class index, that of ignored voxels included."""
NAMED_VALUES = 10


@dataclass(frozen=True)
class ClassMap:
    """The values of label files, by class.

    Attributes:
        groups: Values of each class, the background first; the first value of a class is written for it.
        ignore: Value of voxels left out of training and scores; null where there is none. Its index is the number of
            classes.
    """

    groups: tuple[tuple[int, ...], ...]
    ignore: int | None = None

    @property
    def known(self) -> tuple[int, ...]:
        """All values that a label file may hold, sorted."""
        return tuple(sorted({*(value for group in self.groups for value in group), *self._ignored}))

    @property
    def _ignored(self) -> tuple[int, ...]:
        return () if self.ignore is None else (self.ignore,)

    def __str__(self) -> str:
        values = sorted(value for group in self.groups for value in group)
        run = values == list(range(len(values)))
        listed = f"0 to {values[-1]}" if run else ", ".join(map(str, values))
        return listed if self.ignore is None else f"{listed} or {self.ignore} (ignore)"

    @property
    def simplest(self) -> ClassMap | None:
        """The map, or null where every value is the index of its class."""
        plain = self.groups == tuple((index,) for index in range(len(self.groups)))
        return None if plain and (self.ignore is None or self.ignore >= len(self.groups)) else self

    @cached_property
    def _table(self) -> npt.NDArray[np.int16]:
        """Class index by value, as an array; -1 for a value of no class."""
        table = np.full(self.known[-1] + 1, -1, np.int16)
        for index, group in enumerate((*self.groups, self._ignored)):
            table[list(group)] = index
        return table

    def strange(self, values: Iterable[float]) -> list[float]:
        """Returns those of some values that are of no class."""
        known = set(self.known)
        return [value for value in values if value not in known]

    def indices(self, values: Array, name: str = "label") -> npt.NDArray[np.uint8]:
        """Returns the class index of each voxel of integer value.

        Raises:
            DataError: A value is of no class; the problem has the name given.
        """
        table = self._table
        fits = (values >= 0) & (values < len(table))  # NaN does not
        found = table[np.where(fits, values, 0).astype(np.intp)]
        if (wrong := ~fits | (found < 0)).any():
            listed = ", ".join(f"{value:.17g}" for value in np.unique(values[wrong])[:NAMED_VALUES])
            remedy = "declare these classes or correct the label"
            raise DataError(Problem(name, "values", f"values must be {self}", listed, remedy))
        return found.astype(np.uint8)

    def values(self, indices: Array) -> Array:
        """Returns the value that is written for each class index."""
        written = np.array([group[0] for group in self.groups])
        return written.astype(np.uint8 if written.max() < 256 else np.uint16)[indices]


def class_indices(values: Array, classes: ClassMap | None, name: str = "label") -> Array:
    """Returns the class index of each voxel of a label file, whose values may be floats near integers.

    Args:
        values: Voxels as the file holds them.
        classes: What they mean; None takes each value for an index.
        name: What a problem is of.

    Returns:
        Indices in 8 bits, or in 32 where values that are taken for indices do not fit.

    Raises:
        DataError: A value is of no class.
    """
    if values.dtype.kind == "f":
        values = np.rint(values)
    if classes is not None:
        return classes.indices(values, name)
    small = values.min(initial=0) >= 0 and values.max(initial=0) <= MAX_INDEX
    with np.errstate(invalid="ignore"):  # NaN becomes a number that is no index
        return values.astype(np.uint8 if small else np.int32)


@dataclass(frozen=True)
class Classes:
    """The classes of a data set.

    Attributes:
        names: Name of each class, the background (index 0) first.
        map: The values of each.
        regions: Class indices of each scored region, by its name, where regions overlap; none where classes are scored.
    """

    names: tuple[str, ...]
    map: ClassMap
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def chosen(self, names: Sequence[str]) -> Classes:
        """Returns some classes or regions as the only classes; all else becomes background.

        Raises:
            ConfigError: Names are unknown, repeated or those of the background, or regions overlap.
        """
        every = {name: (index,) for index, name in enumerate(self.names)} | dict(self.regions)
        allowed = [name for name in every if name != self.names[0]]
        rule = f"must name foreground classes of the data set, {', '.join(allowed)}, each once"
        if wrong := [name for position, name in enumerate(names) if name not in allowed or name in names[:position]]:
            problems = [Problem("data.classes", "unknown", rule, f"'{name}'", "correct the name") for name in wrong]
            raise ConfigError(problems)
        if not names:
            raise ConfigError(Problem("data.classes", "empty", rule, "none", "name one, or take all by null"))
        parts = [index for name in names for index in every[name]]
        if len(set(parts)) < len(parts):
            rule, remedy = "must name classes that do not overlap", "leave one out"
            raise ConfigError(Problem("data.classes", "overlap", rule, ", ".join(names), remedy))
        groups = self.map.groups
        kept = sorted((tuple(value for index in every[name] for value in groups[index]), name) for name in names)
        rest = tuple(value for index, group in enumerate(groups) if index not in parts for value in group)
        chosen = ClassMap((rest, *(group for group, _ in kept)), self.map.ignore)
        return Classes((self.names[0], *(name for _, name in kept)), chosen)


def declared_classes(
    labels: Mapping[str, Any], path: Path, layout: str, problems: list[Problem], *, order: Sequence[int] = ()
) -> Classes:
    """Reads the entry ``labels`` of a description, by name; what is wrong with it is added to the problems.

    Args:
        labels: A value for each name, or a list of values for a region; ``ignore`` names what is left out.
        path: The description, for problems.
        layout: Its layout.
        problems: Problems so far.
        order: Values that are written before others of their class, as nnU-Net's ``regions_class_order`` states.
    """
    if labels and all(
        as_integer(name) is not None and isinstance(value, str) and as_integer(value) is None
        for name, value in labels.items()
    ):
        example = '{"0": "background", "1": "liver"}' if layout == "msd" else '{"background": 0, "liver": 1}'
        rule, remedy = f"labels must be written as {example}", "swap values and names"
        problems.append(Problem(str(path), "order", rule, "the other way round", remedy))
        return Classes((), ClassMap(()))
    found: dict[str, frozenset[int]] = {}
    ignore: int | None = None
    for name, value in labels.items():
        numbers = [as_integer(one) for one in (value if isinstance(value, list) else [value])]
        values = frozenset(number for number in numbers if number is not None)
        if not numbers or None in numbers or (name.lower() == "ignore" and len(numbers) > 1):
            rule, remedy = f"label '{name}' must be an integer, or a list of integers", "give each label its value"
            problems.append(Problem(str(path), "labels", rule, shown(value), remedy))
        elif name.lower() == "ignore":
            ignore = min(values)
        elif (other := next((one for one, own in found.items() if own == values), None)) is not None:
            rule = f"labels '{other}' and '{name}' must have values of their own"
            problems.append(Problem(str(path), "labels", rule, f"{shown(sorted(values))} twice", "give each its own"))
        else:
            found[name] = values
    background = next((name for name, own in found.items() if own == {0}), None)
    regions = {name: own for name, own in found.items() if name != background}
    known = sorted({value for own in regions.values() for value in own})
    classes = _parts(background or "", regions, ignore, order)
    if background is None or 0 in known or not 2 <= len(classes.names) <= MAX_INDEX:
        rule = f"label values must be 0 (background) and those of 1 to {MAX_INDEX - 1} classes"
        every = sorted({value for own in found.values() for value in own})
        problems.append(Problem(str(path), "labels", rule, shown(every), "declare each label"))
    if max((*known, ignore or 0), default=0) > MAX_VALUE or ignore in (0, *known):
        rule = f"the ignore label must have a value of its own and no label may exceed {MAX_VALUE}"
        value = f"ignore {shown(ignore)} with {shown(known)}"
        problems.append(Problem(str(path), "labels", rule, value, "renumber the labels"))
    if len(set(classes.names)) < len(classes.names):
        rule, listed = "labels must not be named as the parts of regions are", ", ".join(classes.names)
        problems.append(Problem(str(path), "labels", rule, listed, "rename one"))
    return classes


def _parts(background: str, regions: Mapping[str, frozenset[int]], ignore: int | None, order: Sequence[int]) -> Classes:
    """Cuts regions into the parts of which each lies in or out of every region: the classes, in order of values."""
    parts: dict[tuple[str, ...], list[int]] = {}
    for value in sorted({value for own in regions.values() for value in own}):
        parts.setdefault(tuple(name for name, own in regions.items() if value in own), []).append(value)
    whole = {tuple(sorted(own)): name for name, own in regions.items()}
    names = tuple(whole.get(tuple(part), f"label_{'_'.join(map(str, part))}") for part in parts.values())
    groups = tuple(tuple(sorted(part, key=lambda value: (value not in order, value))) for part in parts.values())
    unions = {
        name: tuple(index for index, group in enumerate(groups, start=1) if own.issuperset(group))
        for name, own in regions.items()
    }
    overlap = any(len(own) > 1 for own in unions.values())
    return Classes((background, *names), ClassMap(((0,), *groups), ignore), unions if overlap else {})


def as_integer(value: object) -> int | None:
    """Returns an integer >= 0 given as such or as decimal digits, else null."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value if value >= 0 else None
    return int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value.strip()) else None
