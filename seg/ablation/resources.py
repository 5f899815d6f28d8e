"""What a trial takes and says: time, threads, memory, and its log."""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

MIB = 2**20
KIB_PER_MIB = 1024


class PeakMemory:
    """The largest memory from its making on: of the GPU where there is one, else resident memory of this process."""

    def __init__(self) -> None:
        import torch

        self._gpu = torch.cuda.is_available()
        if self._gpu:
            torch.cuda.reset_peak_memory_stats()
        self._known = self._gpu or _reset_resident()

    def mib(self) -> float | None:
        """Returns it in MiB; None where the system does not tell."""
        if not self._known:
            return None
        if self._gpu:
            import torch

            return torch.cuda.max_memory_allocated() / MIB
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
        return int(found[1]) / KIB_PER_MIB if found else None


def _reset_resident() -> bool:
    """Makes Linux count the peak from now on."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def set_threads(count: int) -> None:
    """Sets the threads of the numerical library; 0 leaves its own choice."""
    if count > 0:
        import torch

        torch.set_num_threads(count)


def trained_seconds(run_dir: Path) -> float:
    """Returns the seconds of training that a run's checkpoint has behind it; 0 before the first."""
    path = run_dir / "metrics.csv"
    if not path.is_file():
        return 0.0
    with path.open(newline="", encoding="utf-8") as file:
        return max((float(row["seconds"]) for row in csv.DictReader(file)), default=0.0)


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Sends what is printed and announced within a block to the end of a file."""
    logger = logging.getLogger("seg")
    handlers, level = logger.handlers, logger.level
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        handler = logging.StreamHandler(file)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        try:
            yield
        finally:
            logger.handlers = handlers
            logger.setLevel(level)
