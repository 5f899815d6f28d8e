"""Times are those of a clock that is wound by hand; no test looks at a real one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg.benchmark.timing import Timer, interleave, ratios, spread

POSITIVE = st.floats(1e-3, 1e3)


class Clock:
    """A clock that goes on only where a call takes its time."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def taking(self, seconds: float) -> Callable[[], None]:
        def call() -> None:
            self.now += seconds

        return call


@pytest.mark.parametrize(("seconds", "least", "passed"), [(0.25, 0, 0.25), (0.375, 1, 3 * 0.375)])
def test_a_short_call_is_repeated_and_its_time_is_the_mean(seconds: float, least: float, passed: float) -> None:
    clock = Clock()
    assert Timer(clock=clock, least_seconds=least).seconds(clock.taking(seconds)) == seconds
    assert clock.now == passed


def test_the_device_has_finished_before_and_after_each_call() -> None:
    clock = Clock()
    said: list[str] = []

    def call() -> None:
        assert len(said) < 10, "time never passes"
        said.append("call")  # what it started is still under way: only waiting passes time

    def wait() -> None:
        clock.now += 0.5 * (said[-1:] == ["call"])
        said.append("wait")

    assert Timer(wait=wait, clock=clock, least_seconds=0.75).seconds(call) == 0.5
    assert said == ["wait", "call", "wait", "call", "wait"]


def test_rounds_hold_each_call_once_in_an_order_of_their_own() -> None:
    called: list[str] = []
    calls = {name: (lambda name=name: called.append(name)) for name in "abcd"}  # type: ignore[misc]
    times = interleave(calls, Timer(least_seconds=0), rounds=20, warmup=2)
    orders = ["".join(called[first : first + 4]) for first in range(0, len(called), 4)]
    assert len(orders) == 22
    assert all(sorted(order) == list("abcd") for order in orders)
    assert len(set(orders)) > 10
    assert max(Counter(order[0] for order in orders).values()) < 14
    assert {name: len(values) for name, values in times.items()} == dict.fromkeys("abcd", 20)
    again = len(called)
    interleave(calls, Timer(least_seconds=0), rounds=20, warmup=2)
    assert called[again:] == called[:again]


def test_times_belong_to_their_call_and_round_and_warm_up_does_not_count() -> None:
    clock = Clock()
    visits = Counter[str]()

    def make(name: str, seconds: float) -> Callable[[], None]:
        def call() -> None:
            visits[name] += 1
            clock.now += seconds * 2 ** visits[name]

        return call

    calls = {"one": make("one", 1), "other": make("other", 3)}
    times = interleave(calls, Timer(clock=clock, least_seconds=0), rounds=3, warmup=2)
    assert times == {"one": (8, 16, 32), "other": (24, 48, 96)}
    assert ratios(times["other"], times["one"]) == {"median": 3, "q1": 3, "q3": 3}


@given(st.lists(st.tuples(POSITIVE, POSITIVE), min_size=1, max_size=20))
def test_ratios_are_paired_by_round(pairs: list[tuple[float, float]]) -> None:
    baseline, own = np.array(pairs).T
    found = ratios(list(baseline), list(own))
    assert found == spread(list(baseline / own))
    assert found["median"] == pytest.approx(np.median(baseline / own))
    assert [found["q1"], found["q3"]] == pytest.approx(list(np.quantile(baseline / own, [0.25, 0.75])))


def test_drift_that_both_share_leaves_the_ratio_alone() -> None:
    drift = np.linspace(1, 4, 15)
    assert ratios(list(2 * drift), list(drift)) == {"median": 2, "q1": 2, "q3": 2}


def test_without_a_terminal_each_round_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "seg.benchmark"):
        interleave({"a": lambda: None, "b": lambda: None}, Timer(least_seconds=0), rounds=2, warmup=1, words="latency")
    assert caplog.messages == [f"speed: latency, round {number} of 3" for number in (1, 2, 3)]


def test_rounds_without_words_are_silent(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "seg.benchmark"):
        interleave({"a": lambda: None}, Timer(least_seconds=0), rounds=2, warmup=1)
    assert caplog.messages == []
