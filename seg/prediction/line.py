"""Reading, networks and writing of different cases at the same time."""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import torch

from seg.data.writing import write_labels, write_maps
from seg.errors import SegError
from seg.prediction.case import LoadedCase, PredictedCase, Predictor, finish_case, load_case, segment_case
from seg.prediction.manifest import DONE, FAILED, Record
from seg.prediction.sources import Source

LOG = logging.getLogger(__name__)
AHEAD = 2
"""Cases that wait between two threads, at most."""
HELD_BYTES = 1 << 29
"""A further case is read while those under way hold less; so large volumes go through one at a time."""
SMALL_VOXELS = 1 << 21
"""Cases of up to so many voxels (128^3) are segmented side by side, on a processor thread each: their tensors are too
small to be shared by threads that wait for one another after each operation. Larger ones have all threads in turn."""
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
    seconds: dict[str, float] = field(default_factory=dict)


class Line:
    """One thread reads ahead, the calling thread or a thread per processor runs the networks, one thread writes.

    Args:
        predictor: What to segment with.
        sources: The cases.
        report: Called by the writing thread for each case, in order.
    """

    def __init__(self, predictor: Predictor, sources: Sequence[Source], report: Report) -> None:
        self._predictor = predictor
        self._sources = sources
        self._report = report
        self._threads = torch.get_num_threads()
        on_cpu = all(model.device.type == "cpu" for model in predictor.models)
        self._side_by_side = self._threads if on_cpu else 1
        self._loaded: queue.Queue[_Item] = queue.Queue(AHEAD)
        self._predicted: queue.Queue[Future[_Item] | None] = queue.Queue(AHEAD + self._side_by_side)
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
        # The number of threads is that of the thread which sets it.
        pool = ThreadPoolExecutor(self._side_by_side, "network", initializer=torch.set_num_threads, initargs=(1,))
        reader.start()
        writer.start()
        try:
            self._segment_all(pool)
            pool.shutdown()
        finally:
            self._stopped.set()
            pool.shutdown(cancel_futures=True)
            self._predicted.put(None)
            writer.join()
            torch.set_num_threads(self._threads)
        if self._fault is not None:
            raise self._fault

    def _segment_all(self, pool: ThreadPoolExecutor) -> None:
        """Hands cases to the writer in their order, small ones before they are segmented."""
        pending: set[Future[_Item]] = set()
        for _ in self._sources:
            item = self._loaded.get()
            if self._side_by_side > 1 and _is_small(item):
                future = pool.submit(self._segment, item)
                pending = {other for other in pending if not other.done()} | {future}
            else:
                wait(pending)
                torch.set_num_threads(self._threads)
                future = Future()
                future.set_result(self._segment(item))
            self._predicted.put(future)

    def _read(self) -> None:
        for source in self._sources:
            self._held.wait()
            if self._stopped.is_set():
                return
            item = _guarded(source, lambda source=source: load_case(self._predictor, source.paths))  # type: ignore[misc]
            if isinstance(item.content, LoadedCase):
                image = item.content.prepared.image
                item = _Item(source, item.content, image.nbytes + image.nbytes // (4 * len(image)))
                self._held.add(item.held)
            self._loaded.put(item)

    def _segment(self, item: _Item) -> _Item:
        if not isinstance(item.content, LoadedCase):
            return item
        loaded = item.content
        predicted = _guarded(item.source, lambda: segment_case(self._predictor, loaded))
        return _Item(item.source, predicted.content, item.held)

    def _write(self) -> None:
        while (future := self._predicted.get()) is not None:
            try:
                item = future.result()
            except CancelledError:  # an interrupt came before its turn
                continue
            if isinstance(item.content, PredictedCase):
                item = self._written(item, item.content)
            self._held.add(-item.held)
            assert isinstance(item.content, Record)  # a case is written or has failed
            try:
                self._report(item.source, item.content)
            except Exception as error:  # this thread goes on: the others wait for it
                self._fault = error

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


def _is_small(item: _Item) -> bool:
    return not isinstance(item.content, LoadedCase) or math.prod(item.content.prepared.image.shape[1:]) <= SMALL_VOXELS


def _guarded(source: Source, step: Callable[[], LoadedCase | PredictedCase | Record]) -> _Item:
    """Takes a step of a case; whatever goes wrong costs this case only."""
    try:
        return _Item(source, step())
    except SegError as error:
        problems = error.problems
    except Exception as error:
        LOG.debug("case %s", source.name, exc_info=True)
        reason = f"{type(error).__name__}: {error}".strip(": ").splitlines()[0]
        problems = (f"{source.paths[0]}: must be an image that can be segmented, got '{reason}'; see the image.",)
    return _Item(source, Record(output=source.output.name, status=FAILED, problems=problems))
