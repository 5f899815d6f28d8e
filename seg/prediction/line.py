"""Reading, networks and writing of different cases at the same time."""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass

from seg.data.writing import write_labels, write_maps
from seg.errors import SegError
from seg.inference.target import label_bytes
from seg.prediction.case import (
    PROBABILITY_BYTES,
    LoadedCase,
    PredictedCase,
    Predictor,
    finish_case,
    load_case,
    segment_case,
)
from seg.prediction.manifest import DONE, FAILED, Record
from seg.prediction.sources import Source
from seg.prediction.workers import Workers

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
