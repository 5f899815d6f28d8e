"""Time per stage, taken without making the processor wait for the GPU after each stage."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch


class Clock:
    """Adds up the time of stages.

    On a GPU, work is handed over and done later: marks in its own queue say when. Between the marks of a stage lies
    what the GPU did for it and what it waited for, so stages that follow one another add up to the whole.

    Args:
        device: Where the networks compute.
        stages: Names of the stages.
    """

    def __init__(self, device: torch.device, stages: Sequence[str]) -> None:
        self._device = device
        self._seconds = dict.fromkeys(stages, 0.0)
        self._marks: list[tuple[str, Any, Any]] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times a block as part of a stage."""
        if self._device.type != "cuda":
            start = time.perf_counter()
            yield
            self._seconds[name] += time.perf_counter() - start
            return
        begin = self._mark()
        yield
        self._marks.append((name, begin, self._mark()))

    def _mark(self) -> Any:
        mark: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        mark.record(torch.cuda.current_stream(self._device))
        return mark

    def seconds(self) -> dict[str, float]:
        """Returns the time of each stage, once the GPU has done all that was asked of it."""
        if self._marks:
            torch.cuda.synchronize(self._device)
        for name, begin, end in self._marks:
            self._seconds[name] += begin.elapsed_time(end) / 1000
        self._marks.clear()
        return dict(self._seconds)
