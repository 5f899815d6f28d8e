"""Prediction of many cases: reading, networks and writing work on different cases at the same time."""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from seg.data.memory import GIB, available_bytes
from seg.data.volumes import write_labels, write_maps
from seg.errors import Problem, SegError
from seg.files import quoted
from seg.inference.arrays import HOST
from seg.inference.cases import DONE, FAILED, Record, Source
from seg.inference.cleaning import class_volumes
from seg.inference.model import Model
from seg.inference.predictor import PROBABILITY_BYTES, Predictor, finish_case, load_case, segment_case
from seg.inference.resampling import BLOCK_BYTES
from seg.inference.segmentation import Prepared, Segmentation, label_bytes

LOG = logging.getLogger(__name__)
QUEUE_LENGTH = 2
"""Most cases that wait between two threads."""
MEMORY_BUDGET = 1 << 29
"""The next case is read while all cases in work hold less, in bytes; so large volumes go through one at a time."""
SMALL_VOXELS = 1 << 21
"""Cases of up to so many voxels (128^3) are segmented side by side, each on a share of the processor's threads: their
tensors are too small to be worth sharing among all threads. Larger cases have all threads, one after the other."""
T = TypeVar("T")
U = TypeVar("U")
OnRecord = Callable[[Source, Record], None]


class MemoryBudget:
    """Counts the memory of the cases in work, and makes the reader wait while they hold too much."""

    def __init__(self) -> None:
        self._bytes = 0
        self._changed = threading.Condition()

    def wait(self) -> None:
        """Waits until there is room for a further case."""
        with self._changed:
            self._changed.wait_for(lambda: self._bytes < MEMORY_BUDGET)

    def add(self, amount: int) -> None:
        """Adds the memory of a case; a negative amount takes the memory off again."""
        with self._changed:
            self._bytes += amount
            self._changed.notify_all()


@dataclass(frozen=True, eq=False)
class _Job:
    """A case on its way through the pipeline.

    Attributes:
        source: The case.
        content: What the last step made of the case, or the record of its failure.
        memory: Memory that the case holds, in bytes.
    """

    source: Source
    content: Prepared | Segmentation | Record
    memory: int = 0


class Pipeline:
    """Predicts cases: a thread reads ahead, the calling thread or a pool runs the networks, a thread writes.

    Args:
        predictor: What to segment with.
        sources: The cases.
        report: Called by the writing thread for each case, in order.
    """

    def __init__(self, predictor: Predictor, sources: Sequence[Source], report: OnRecord) -> None:
        self._predictor, self._sources, self._report = predictor, sources, report
        self._pool = NetworkPool(predictor.models, len(predictor.class_names), len(sources))
        self._loaded: queue.Queue[_Job] = queue.Queue(QUEUE_LENGTH)
        self._predicted: queue.Queue[Future[_Job] | None] = queue.Queue(QUEUE_LENGTH + self._pool.most)
        self._budget = MemoryBudget()
        self._stopped = threading.Event()
        self._fault: Exception | None = None

    def run(self) -> None:
        """Predicts all cases. An interrupt is raised again once the cases that are predicted have been written.

        Raises:
            SegError: The report of a case failed, such as for a full disk; all cases have been dealt with.
        """
        reader = threading.Thread(target=self._read, name="reader", daemon=True)
        writer = threading.Thread(target=self._write, name="writer")
        reader.start()
        writer.start()
        try:
            for _ in self._sources:
                self._predicted.put(self._begin(self._loaded.get()))
            self._pool.wait()
        finally:
            self._stopped.set()
            try:
                self._pool.close()  # waits for the cases in work; a second interrupt may end the wait
            finally:
                self._predicted.put(None)
                writer.join()
        if self._fault is not None:
            raise self._fault

    # A case is freed with the last variable that names it: no loop keeps a case until the next one has come.

    def _begin(self, job: _Job) -> Future[_Job]:
        """Hands a small case to the pool, and segments a large case with all threads."""
        if isinstance(job.content, Prepared):
            if self._pool.accepts(job.content.image.shape[1:], job.content.target.shape):
                return self._pool.submit(self._segment, job)
            self._pool.wait()
        future: Future[_Job] = Future()
        future.set_result(self._segment(job))
        return future

    def _read(self) -> None:
        for source in self._sources:
            self._budget.wait()
            if self._stopped.is_set():
                return
            self._loaded.put(self._load(source))

    def _load(self, source: Source) -> _Job:
        if source.problem is not None:
            return _Job(source, Record(output=source.output.name, status=FAILED, problems=(source.problem,)))
        loaded = _attempt(source, load_case, self._predictor, source.paths)
        if isinstance(loaded, Record):
            return _Job(source, loaded)
        classes, voxels = len(self._predictor.class_names), math.prod(loaded.target.shape)
        # The label map has the scan's own grid, which may be many times that of a coarse network.
        memory = loaded.image.nbytes + label_bytes(classes) * voxels
        if self._predictor.probabilities:
            memory += PROBABILITY_BYTES * classes * voxels
        self._budget.add(memory)
        return _Job(source, loaded, memory)

    def _segment(self, job: _Job) -> _Job:
        if not isinstance(job.content, Prepared):
            return job
        return replace(job, content=_attempt(job.source, segment_case, self._predictor, job.content))

    def _write(self) -> None:
        while self._write_next():
            pass

    def _write_next(self) -> bool:
        """Writes the next case; False where there is none left."""
        future = self._predicted.get()
        if future is None:
            return False
        try:
            job = future.result()
        except CancelledError:  # an interrupt came before the case was begun
            return True
        del future
        source, memory, content = job.source, job.memory, job.content
        del job
        if isinstance(content, Segmentation):
            content = _attempt(source, self._finish, source, content)
        assert isinstance(content, Record)  # what was prepared has been segmented
        self._budget.add(-memory)
        try:
            self._report(source, content)
        except Exception as error:  # the thread goes on: the other threads wait for it
            self._fault = error
        return True

    def _finish(self, source: Source, predicted: Segmentation) -> Record:
        """Cleans up and writes a predicted case."""
        done = finish_case(self._predictor, predicted)
        start = time.perf_counter()
        if done.probabilities is not None:
            write_maps(source.probabilities, done.probabilities, done.geometry)
        # Last: a case whose label map is there is complete.
        write_labels(source.output, done.labels, done.geometry, self._predictor.classes)
        return Record(
            output=source.output.name,
            status=DONE,
            volumes_ml=class_volumes(done.labels, done.geometry.voxel_ml, self._predictor.class_names),
            seconds={**done.seconds, "write": time.perf_counter() - start},
            warnings=done.warnings,
        )


def _attempt(source: Source, step: Callable[..., T], *arguments: Any) -> T | Record:
    """Takes a step of a case; a failure becomes the record of the case and costs no other case."""
    try:
        return step(*arguments)
    except SegError as error:
        problems = error.problems
    except Exception as error:
        LOG.debug("case %s", quoted(source.name), exc_info=True)
        reason = f"{type(error).__name__}: {error}".strip(": ").splitlines()[0]
        rule = "must be an image that can be segmented"
        problems = (Problem(f"{source.paths[0]}", "segment", rule, f"'{reason}'", "see the image"),)
    return Record(output=source.output.name, status=FAILED, problems=problems)


class NetworkPool:
    """Threads that segment small cases side by side; ``most`` of them, 1 but for torch on the processor."""

    def __init__(self, models: Sequence[Model], num_classes: int, cases: int) -> None:
        self._models, self._num_classes, self._cases = models, num_classes, cases
        self._threads = 1
        if models[0].device != HOST:  # other engines share a case among their own threads
            import torch

            self._threads = torch.get_num_threads()
        self.most = self._threads if all(model.device.type == "cpu" for model in models) else 1
        self._pool: ThreadPoolExecutor | None = None
        self._room = math.inf  # bytes for each case
        self._shares: list[int] = []
        self._pending: set[Future[Any]] = set()

    def accepts(self, shape: Sequence[int], target: Sequence[int]) -> bool:
        """Returns whether a case is small enough for the pool; the first case decides on the number of threads.

        Args:
            shape: Shape (X, Y, Z) of the prepared image.
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
        """Runs a step of a case in a thread of the pool."""
        if self._pool is None:
            free: queue.SimpleQueue[int] = queue.SimpleQueue()
            for share in self._shares:
                free.put(share)
            # torch keeps the number of its threads for each calling thread.
            self._pool = ThreadPoolExecutor(len(self._shares), "network", initializer=lambda: _set_threads(free.get()))
        future = self._pool.submit(step, argument)
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)  # else the pool would keep each case to the end
        return future

    def wait(self) -> None:
        """Waits for all steps, and gives all processor threads back to the calling thread."""
        wait(self._pending)
        self._restore()

    def close(self) -> None:
        """Ends the threads; steps that have not begun are cancelled."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._restore()

    def _restore(self) -> None:
        if self._models[0].device != HOST:
            _set_threads(self._threads)


def _set_threads(count: int) -> None:
    """Sets the threads of torch in the calling thread."""
    import torch

    torch.set_num_threads(count)


def shares(threads: int, cases: int, needed: int, available: int | None) -> list[int]:
    """Divides processor threads between cases that are segmented at the same time.

    Args:
        threads: Processor threads.
        cases: Number of cases.
        needed: Memory that a case takes, in bytes.
        available: Memory that is available, in bytes; None where the system does not say.

    Returns:
        Processor threads of each case in work. As many cases are in work as there are threads, or cases, or as memory
        suffices for; the last is logged.
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
    """Estimates the memory that a prepared image (X, Y, Z) takes in the networks and behind them.

    Labels are made block by block on the target, the shape of the scan's own grid.
    """
    voxels = math.prod(target)
    labels = label_bytes(num_classes) * voxels + 3 * min(BLOCK_BYTES, 4 * num_classes * voxels)
    scores = 4 * num_classes * math.prod(shape) * (len(models) + 2)  # sums of each, and two that labels are made of
    return labels + scores + max(model.pass_bytes(shape, num_classes) for model in models)
