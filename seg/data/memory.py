"""Memory that is free, and refusal of what would not fit in it."""

from __future__ import annotations

from pathlib import Path

from seg.errors import DataError

GIB = 1 << 30
MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def available_bytes() -> int | None:
    """Returns the memory that can be had, within the limit of the container; None where the system does not say."""
    free = [amount for amount in (_of_machine(), _of_container()) if amount is not None]
    return min(free) if free else None


def _of_machine() -> int | None:
    try:
        lines = MEMINFO.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _of_container() -> int | None:
    try:
        limit, used = (CGROUP / "memory.max").read_text(), (CGROUP / "memory.current").read_text()
        cached = next(
            int(line.split()[1])
            for line in (CGROUP / "memory.stat").read_text().splitlines()
            if line.startswith("inactive_file ")
        )
        return max(0, int(limit) - int(used) + cached)
    except (OSError, ValueError, StopIteration):  # "max" is no number: no limit
        return None


def check_memory(what: str, needed: int, *, remedy: str = "crop the volume or take a machine with more") -> None:
    """Refuses what would not fit, before it is allocated.

    Args:
        what: Begins the sentence: the file, and what it holds.
        needed: Memory it takes, in bytes.
        remedy: Ends the sentence.

    Raises:
        DataError: It is more than what is available.
    """
    available = available_bytes()
    if available is not None and needed > available:
        raise DataError(
            f"{what} must fit in memory, got {needed / GIB:.3g} GiB with {available / GIB:.3g} GiB available; {remedy}."
        )
