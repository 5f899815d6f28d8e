"""Memory of a known size, to measure."""

from __future__ import annotations

import mmap
import os


def block(mib: int) -> mmap.mmap:
    """Maps memory and writes to it; what the heap holds does not matter."""
    mapped = mmap.mmap(-1, mib * 2**20)
    for _ in range(mib):
        mapped.write(os.urandom(2**20))
    return mapped
