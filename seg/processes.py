"""Processes: how many are started, and the name of the user whom they belong to."""

from __future__ import annotations

import logging
import os

LOG = logging.getLogger(__name__)


def usable_cores() -> int:
    """Returns the processors that this process may use; a container or a job may be held to some of the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # macOS, Windows


def capped_workers(option: str, wanted: int, *, cases: int | None = None) -> int:
    """Returns as many processes as are wanted, at most one for each core and each case; says where these decide.

    Args:
        option: What the user gave, for the message.
        wanted: Processes wanted, 0 or more.
        cases: Cases that are shared among the processes; None counts cores alone.
    """
    cores = usable_cores()
    most = cores if cases is None else min(cores, max(1, cases))
    if wanted <= most:
        return wanted
    limit = f"{cores} cores" if most == cores else f"{cases} cases"
    LOG.warning("%s: %d in place of %d, as there are %s", option, most, wanted, limit)
    return most


def name_user() -> None:
    """Sets the variable USER where the system knows no name for the current user id, as torch asks for one."""
    try:
        import pwd
    except ImportError:  # Windows
        return
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        os.environ.setdefault("USER", f"uid{os.getuid()}")
