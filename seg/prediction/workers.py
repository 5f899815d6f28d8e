"""Small cases are segmented side by side, as many at a time as there are processor threads and memory for."""

from __future__ import annotations

import logging
import math
import queue
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

import torch

from seg.data.memory import GIB, available_bytes
from seg.inference import Model
from seg.inference.resampling import BLOCK_BYTES
from seg.inference.target import label_bytes

LOG = logging.getLogger(__name__)
SMALL_VOXELS = 1 << 21
"""Cases of up to so many voxels (128^3) are segmented side by side, on a processor thread each where there are enough
cases: their tensors are too small to be shared by threads that wait for one another after each operation. Larger ones
have all threads in turn."""
T = TypeVar("T")
U = TypeVar("U")


class Workers:
    """Threads that segment a case each. There are none on a GPU.

    Args:
        models: The networks.
        num_classes: Classes, background included.
        cases: How many cases there are.
    """

    def __init__(self, models: Sequence[Model], num_classes: int, cases: int) -> None:
        self._models, self._num_classes, self._cases = models, num_classes, cases
        self.most = torch.get_num_threads() if all(model.device.type == "cpu" for model in models) else 1
        self._threads = torch.get_num_threads()
        self._pool: ThreadPoolExecutor | None = None
        self._room = math.inf  # bytes for each
        self._shares: list[int] = []
        self._pending: set[Future[Any]] = set()

    def take(self, shape: Sequence[int], target: Sequence[int]) -> bool:
        """Says whether an image of the shape (X, Y, Z) goes beside others; the first one decides how many they are.

        Args:
            shape: Shape of the prepared image.
            target: Shape of the scan's own grid.
        """
        if self.most == 1 or math.prod(shape) > SMALL_VOXELS:
            return False
        needed = needed_bytes(self._models, shape, self._num_classes, target)
        if not self._shares:
            available = available_bytes()
            self._shares = shares(self._threads, self._cases, needed, available)
            self._room = math.inf if available is None else available / len(self._shares)
        return len(self._shares) > 1 and needed <= self._room

    def submit(self, step: Callable[[U], T], argument: U) -> Future[T]:
        """Takes a step of a case in a thread of its own."""
        if self._pool is None:
            free: queue.SimpleQueue[int] = queue.SimpleQueue()
            for share in self._shares:
                free.put(share)
            # The number of threads is that of the thread which sets it.
            self._pool = ThreadPoolExecutor(
                len(self._shares), "network", initializer=lambda: torch.set_num_threads(free.get())
            )
        future = self._pool.submit(step, argument)
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)  # what is done is kept by the one who waits for it alone
        return future

    def wait(self) -> None:
        """Waits for all that was submitted, and gives all processor threads to the calling thread."""
        wait(self._pending)
        torch.set_num_threads(self._threads)

    def close(self) -> None:
        """Ends the threads; what none has begun yet is cancelled."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._threads)


def shares(threads: int, cases: int, needed: int, available: int | None) -> list[int]:
    """Divides processor threads between cases that are segmented at the same time.

    Args:
        threads: Processor threads.
        cases: Cases there are.
        needed: Memory that a case takes, in bytes.
        available: Memory there is, in bytes; None where the system does not say.

    Returns:
        Threads for each of the cases at work, all threads together. There are as many as there are threads, or cases,
        or as memory suffices for, which is announced.
    """
    count = min(threads, cases)
    if available is not None and count * needed > available:
        fitting = max(1, available // needed)
        LOG.warning(
            "memory suffices for %d instead of %d cases at a time: each takes about %.2g GiB, with %.3g GiB available",
            *(fitting, count, needed / GIB, available / GIB),
        )
        count = fitting
    least, more = divmod(threads, count)
    return [least + (index < more) for index in range(count)]


def needed_bytes(models: Sequence[Model], shape: Sequence[int], num_classes: int, target: Sequence[int]) -> int:
    """Estimates the memory that a prepared image takes in the networks and behind them.

    Args:
        models: The networks.
        shape: Shape of the prepared image (X, Y, Z).
        num_classes: Classes, background included.
        target: Shape of the scan's own grid, on which labels are made, block by block.
    """
    voxels = math.prod(target)
    labels = label_bytes(num_classes) * voxels + 3 * min(BLOCK_BYTES, 4 * num_classes * voxels)
    scores = 4 * num_classes * math.prod(shape) * (len(models) + 2)  # sums of each, and two that labels are made of
    return labels + scores + max(model.pass_bytes(shape, num_classes) for model in models)
