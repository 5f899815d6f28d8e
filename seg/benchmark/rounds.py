"""Calls timed round by round, and what is said of their times."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

LEAST_SECONDS = 0.02
"""A call that is shorter is repeated, so that neither the clock nor a cold cache makes up its time."""

Call = Callable[[], object]


def _nothing() -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class Timer:
    """Takes the time of calls.

    Attributes:
        wait: Returns once the device has nothing left to do.
        clock: Gives seconds.
        least_seconds: A call is repeated until so much has passed, and its time is the mean.
    """

    wait: Call = _nothing
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


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """How often calls are timed.

    Attributes:
        timed: Rounds that count, >= 1.
        warmup: Rounds before, which do not, >= 0.
        seed: Seed of the order within each round, >= 0.
    """

    timed: int
    warmup: int
    seed: int = 0


def interleave(
    calls: Mapping[str, Call], rounds: Rounds, timer: Timer, done: Call = _nothing
) -> dict[str, tuple[float, ...]]:
    """Times several calls side by side: in every round each of them once, in an order drawn for the round.

    What changes with time, such as the clock of a processor that grows warm, so meets all of them alike, and times of
    one round can be compared with one another.

    Args:
        calls: The calls by name.
        rounds: How often.
        timer: Takes the time.
        done: Called after each call of each round.

    Returns:
        Seconds of each call by name, round by round.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for index in range(rounds.warmup + rounds.timed):
        order = list(calls)
        random.Random(f"{rounds.seed} {index}").shuffle(order)
        for name in order:
            seconds = timer.seconds(calls[name])
            if index >= rounds.warmup:
                times[name].append(seconds)
            done()
    return {name: tuple(values) for name, values in times.items()}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Returns ``median`` and the quartiles ``q1`` and ``q3`` of values, interpolated linearly between two of them."""
    q1, median, q3 = np.percentile(np.asarray(values, dtype=np.float64), [25, 50, 75])
    return {"median": float(median), "q1": float(q1), "q3": float(q3)}


def ratios(baseline: Sequence[float], own: Sequence[float]) -> dict[str, float]:
    """Returns the spread of the baseline's time over another's in the same round: above 1 the other is faster."""
    return spread([one / other for one, other in zip(baseline, own, strict=True)])
