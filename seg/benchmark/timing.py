"""Times of calls, taken side by side."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

LOG = logging.getLogger(__name__)

LEAST_SECONDS = 0.02
"""A shorter call is repeated, so that neither the clock nor a cold cache makes up its time."""

Call = Callable[[], object]
Times = dict[str, tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class Timer:
    """Measures how long a call takes.

    Attributes:
        wait: Returns once the device has nothing left to do.
        clock: Gives seconds.
        least_seconds: A call is repeated until so much has passed, and its time is the mean.
    """

    wait: Call = lambda: None
    clock: Callable[[], float] = time.perf_counter
    least_seconds: float = LEAST_SECONDS

    def seconds(self, call: Call) -> float:
        """Returns the seconds that a call takes, until the device is done."""
        self.wait()
        start = self.clock()
        count = 0
        while True:
            call()
            self.wait()
            count += 1
            passed = self.clock() - start
            if passed >= self.least_seconds:
                return passed / count


def interleave(calls: Mapping[str, Call], timer: Timer, *, rounds: int, warmup: int, words: str = "") -> Times:
    """Times several calls in rounds; each round makes every call once, in a random order.

    What changes with time, such as the clock of a processor that grows warm, meets all of them alike, and times of one
    round can be compared with one another. On a terminal a bar shows how far that is, elsewhere a line a round says so.

    Args:
        calls: The calls by name.
        timer: Takes the time.
        rounds: Rounds that count, >= 1.
        warmup: Rounds before, which do not count, >= 0.
        words: What the bar and the lines say is timed; without words there are no lines.

    Returns:
        Seconds of each call by name, round by round.
    """
    from tqdm import tqdm

    times: dict[str, list[float]] = {name: [] for name in calls}
    visits = (rounds + warmup) * len(calls)
    with tqdm(total=visits, desc=words, unit="call", disable=None, leave=False) as bar:
        for index in range(warmup + rounds):
            order = list(calls)
            random.Random(f"0 {index}").shuffle(order)
            for name in order:
                seconds = timer.seconds(calls[name])
                if index >= warmup:
                    times[name].append(seconds)
                bar.update()
            if bar.disable and words:
                LOG.info("speed: %s, round %d of %d", words, index + 1, warmup + rounds)
    return {name: tuple(values) for name, values in times.items()}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Returns ``median`` and the quartiles ``q1`` and ``q3`` of values, interpolated linearly between two of them."""
    q1, median, q3 = np.percentile(np.asarray(values, dtype=np.float64), [25, 50, 75])
    return {"median": float(median), "q1": float(q1), "q3": float(q3)}


def ratios(baseline: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    """Returns the spread of the baseline's time over the other's in the same round: above 1 the other is faster."""
    return spread([first / second for first, second in zip(baseline, other, strict=True)])
