"""What a trial takes and says: time, threads, and its log."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from seg.runs import METRICS_FILE


def set_threads(count: int) -> None:
    """Sets the threads of the numerical library; 0 leaves its own choice."""
    if count > 0:
        import torch

        torch.set_num_threads(count)


def trained_seconds(run_dir: Path) -> float:
    """Returns the seconds of training that a run's checkpoint has behind it; 0 before the first."""
    path = run_dir / METRICS_FILE
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
