"""Which values of label files are of which class: the one place that turns values into class indices, and back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from seg.errors import DataError, Problem

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
        """The index of each value; -1 where a value is of no class."""
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
