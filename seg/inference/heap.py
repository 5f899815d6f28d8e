"""Gives free memory back to the system."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

EVERY = 8
"""Passes between two calls: more often costs time, more seldom memory."""


@functools.cache
def _find() -> Callable[[int], int] | None:
    """Returns glibc's malloc_trim; None with another C library, whose heap need not have the fault."""
    trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim


def trim_heap() -> None:
    """Gives back the pages of all holes in the heap.

    A network's work space comes and goes while sums of logits stay. glibc does not fit aligned blocks into holes that
    were left by equal ones, so between what stays they add up: to three times the size of all sums on a volume of
    512 x 512 x 600 voxels.
    """
    trim = _find()
    if trim is not None:
        trim(0)
