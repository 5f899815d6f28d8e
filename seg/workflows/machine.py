"""A run that goes on computes as it began."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from seg.workflows.directory import read_origin

LOG = logging.getLogger(__name__)


@contextmanager
def as_begun(run_dir: Path, computed_with: Mapping[str, Any]) -> Iterator[None]:
    """Computes with as many threads as a run began with, and warns where device or torch are others.

    Sums are taken in parts, one for each thread, so their last digits depend on the number of threads.

    Args:
        run_dir: Run directory that has begun.
        computed_with: What this process computes with.
    """
    recorded = read_origin(run_dir)
    began = computed_with if recorded is None else recorded.computed_with
    for name, then, now in (
        ("device", began.get("device"), computed_with.get("device")),
        ("torch", _torch(began), _torch(computed_with)),
    ):
        if then != now:
            LOG.warning(
                "%s: began with %s %s and goes on with %s; its weights may differ in the last digits from those of a "
                "run that was not interrupted",
                run_dir,
                name,
                then,
                now,
            )
    here, threads = torch.get_num_threads(), began.get("threads")
    if not isinstance(threads, int) or threads < 1 or threads == here:
        yield
        return
    LOG.info("%s: threads: %d, as it began, in place of %d", run_dir, threads, here)
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(here)


def _torch(computed_with: Mapping[str, Any]) -> object:
    packages = computed_with.get("packages")
    return packages.get("torch") if isinstance(packages, Mapping) else None
