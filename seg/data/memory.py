"""Memory that is free, and refusal of what would not fit in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from seg.errors import DataError, Problem

GIB = 1 << 30
LARGEST = 10**300  # a floating-point number holds no more
MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
V2 = ("memory.max", "memory.current", "inactive_file")
"""Limit and use of a control group, and the entry of its ``memory.stat`` that could be freed, by version."""


def available_bytes() -> int | None:
    """Returns the memory that can be had, within the limit of the container; None where the system does not say."""
    free = [amount for amount in (_of_machine(), _of_container()) if amount is not None]
    return min(free) if free else None


def total_bytes() -> int | None:
    """Returns the memory that the machine has; None where the system does not say."""
    return _of_machine("MemTotal:")


def _of_machine(entry: str = "MemAvailable:") -> int | None:
    try:
        lines = MEMINFO.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(entry)), None)


def _of_container() -> int | None:
    """Gives what the tightest of the limits leaves: of a container, of a job of Slurm, of a group above them."""
    left = [amount for folder, names in _groups() if (amount := _left(folder, names)) is not None]
    return min(left) if left else None


def _groups() -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """Gives the folders of this process's control groups up to their root, of both versions, with the names in them."""
    try:
        lines = [line.split(":", 2) for line in OWN_GROUPS.read_text().splitlines()]
    except OSError:
        lines = []
    paths = {controllers: path for _, controllers, path in (line for line in lines if len(line) == 3)}
    v1 = next((path for controllers, path in paths.items() if "memory" in controllers.split(",")), "/")
    for root, path, names in ((CGROUP, paths.get("", "/"), V2), (CGROUP / "memory", v1, V1)):
        own = Path(path.lstrip("/"))
        # A container may be told the path that its group has outside, where none of these folders is.
        for part in (own, *own.parents):
            yield root / part, names


def _left(folder: Path, names: tuple[str, str, str]) -> int | None:
    limit, used, cache = names
    try:
        cached = next(
            int(line.split()[1])
            for line in (folder / "memory.stat").read_text().splitlines()
            if line.startswith(f"{cache} ")
        )
        return max(0, int((folder / limit).read_text()) - int((folder / used).read_text()) + cached)
    except (OSError, ValueError, StopIteration):  # "max" is no number: no limit
        return None


def gib(count: int) -> str:
    """Formats a number of bytes in GiB."""
    return f"{min(count, LARGEST) / GIB:.3g} GiB"


def check_memory(
    what: str,
    needed: int,
    *,
    rule: str = "must fit in memory",
    remedy: str = "crop the volume or take a machine with more",
) -> None:
    """Refuses what would not fit, a file or what is to be made of it, before so many bytes are allocated.

    Raises:
        DataError: They are more than what is available.
    """
    available = available_bytes()
    if available is not None and needed > available:
        value = f"{gib(needed)} with {gib(available)} available"
        raise DataError(Problem(what, "memory", rule, value, remedy))
