"""Reading, networks and writing of different cases at the same time."""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from seg.data.memory import GIB, available_bytes
from seg.data.volumes import write_labels, write_maps
from seg.errors import SegError
from seg.inference.cases import DONE, FAILED, Record, Source
from seg.inference.model import Model
from seg.inference.predictor import (
    PROBABILITY_BYTES,
    LoadedCase,
    PredictedCase,
    Predictor,
    finish_case,
    load_case,
    segment_case,
)
from seg.inference.resampling import BLOCK_BYTES
from seg.inference.target import label_bytes

if TYPE_CHECKING:
    from seg.inference.predictor import Predictor
if TYPE_CHECKING:
    from seg.inference.predictor import Predictor


LOG = logging.getLogger(__name__)
AHEAD = 2
"""Cases that wait between two threads, at most."""
HELD_BYTES = 1 << 29
"""A further case is read while those under way hold less; so large volumes go through one at a time."""


Report = Callable[[Source, Record], None]


class Held:
    """Counts the memory of the cases under way."""

    def __init__(self) -> None:
        self._bytes = 0
        self._changed = threading.Condition()

    def wait(self) -> None:
        """Returns once there is room for a further case."""
        with self._changed:
            self._changed.wait_for(lambda: self._bytes < HELD_BYTES)

    def add(self, amount: int) -> None:
        """Adds a case's memory, or takes it off again."""
        with self._changed:
            self._bytes += amount
            self._changed.notify_all()


@dataclass(frozen=True, eq=False)
class _Item:
    """A case between two threads: what was made of it so far, or its record where it failed."""

    source: Source
    content: LoadedCase | PredictedCase | Record
    held: int = 0


class Line:
    """One thread reads ahead, the calling thread or several side by side run the networks, one thread writes.

    Args:
        predictor: What to segment with.
        sources: The cases.
        report: Called by the writing thread for each case, in order.
    """

    def __init__(self, predictor: Predictor, sources: Sequence[Source], report: Report) -> None:
        self._predictor = predictor
        self._sources = sources
        self._report = report
        self._workers = Workers(predictor.models, len(predictor.class_names), len(sources))
        self._loaded: queue.Queue[_Item] = queue.Queue(AHEAD)
        self._predicted: queue.Queue[Future[_Item] | None] = queue.Queue(AHEAD + self._workers.most)
        self._held = Held()
        self._stopped = threading.Event()
        self._fault: Exception | None = None

    def run(self) -> None:
        """Deals with all cases; on an interrupt, finishes writing those that are predicted and raises it again.

        Raises:
            SegError: Reporting failed, such as for a full disk; all cases have been dealt with.
        """
        reader = threading.Thread(target=self._read, name="reader", daemon=True)
        writer = threading.Thread(target=self._write, name="writer")
        reader.start()
        writer.start()
        try:
            for _ in self._sources:
                self._predicted.put(self._begin(self._loaded.get()))
            self._workers.wait()
        finally:
            self._stopped.set()
            try:
                self._workers.close()  # waits for cases in work; a second interrupt may end that
            finally:
                self._predicted.put(None)
                writer.join()
        if self._fault is not None:
            raise self._fault

    # What a case holds goes with the last name of it: no loop keeps one until the next has come.

    def _begin(self, item: _Item) -> Future[_Item]:
        """Hands a small case to a thread of its own, and segments a large one with all threads."""
        if isinstance(item.content, LoadedCase):
            prepared = item.content.prepared
            if self._workers.take(prepared.image.shape[1:], prepared.target.shape):
                return self._workers.submit(self._segment, item)
            self._workers.wait()
        future: Future[_Item] = Future()
        future.set_result(self._segment(item))
        return future

    def _read(self) -> None:
        for source in self._sources:
            self._held.wait()
            if self._stopped.is_set():
                return
            self._loaded.put(self._load(source))

    def _load(self, source: Source) -> _Item:
        item = _guarded(source, lambda: load_case(self._predictor, source.paths))
        if not isinstance(item.content, LoadedCase):
            return item
        image, target = item.content.prepared.image, item.content.prepared.target
        # The label map has the scan's own grid, which may be many times that of a coarse network.
        held = image.nbytes + label_bytes(len(self._predictor.class_names)) * math.prod(target.shape)
        if self._predictor.probabilities:
            held += PROBABILITY_BYTES * len(self._predictor.class_names) * math.prod(target.shape)
        self._held.add(held)
        return _Item(source, item.content, held)

    def _segment(self, item: _Item) -> _Item:
        if not isinstance(item.content, LoadedCase):
            return item
        loaded = item.content
        predicted = _guarded(item.source, lambda: segment_case(self._predictor, loaded))
        return _Item(item.source, predicted.content, item.held)

    def _write(self) -> None:
        while self._write_next():
            pass

    def _write_next(self) -> bool:
        """Writes the next case; says whether there was one."""
        future = self._predicted.get()
        if future is None:
            return False
        try:
            item = future.result()
        except CancelledError:  # an interrupt came before its turn
            return True
        del future
        if isinstance(item.content, PredictedCase):
            item = self._written(item, item.content)
        self._held.add(-item.held)
        assert isinstance(item.content, Record)  # a case is written or has failed
        try:
            self._report(item.source, item.content)
        except Exception as error:  # this thread goes on: the others wait for it
            self._fault = error
        return True

    def _written(self, item: _Item, predicted: PredictedCase) -> _Item:
        def write() -> Record:
            done = finish_case(self._predictor, predicted)
            start = time.perf_counter()
            if done.probabilities is not None:
                write_maps(item.source.probabilities, done.probabilities, done.geometry)
            # Last: a case whose label map is there is complete.
            write_labels(item.source.output, done.labels, done.geometry)
            volumes = done.volumes_ml(self._predictor.class_names)
            return Record(
                output=item.source.output.name,
                status=DONE,
                volumes_ml=volumes,
                seconds={**done.seconds, "write": time.perf_counter() - start},
                warnings=done.warnings,
            )

        return _Item(item.source, _guarded(item.source, write).content, item.held)


def _guarded(source: Source, step: Callable[[], LoadedCase | PredictedCase | Record]) -> _Item:
    """Takes a step of a case; whatever goes wrong costs this case only."""
    try:
        return _Item(source, step())
    except SegError as error:
        problems = error.sentences
    except Exception as error:
        LOG.debug("case %s", source.name, exc_info=True)
        reason = f"{type(error).__name__}: {error}".strip(": ").splitlines()[0]
        problems = (f"{source.paths[0]}: must be an image that can be segmented, got '{reason}'; see the image.",)
    return _Item(source, Record(output=source.output.name, status=FAILED, problems=problems))


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
