"""The live table: a line per event where nobody watches, redrawn on a terminal."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from seg.ablation.launch import Event
from seg.ablation.launch import progress as module
from seg.ablation.launch.progress import ProgressTable
from seg.ablation.store import StoredTrial, TrialRecord

TRIALS = {f"{variant}.fold_0.seed_{seed}": variant for seed in (0, 1) for variant in ("baseline", "narrow")}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module.time, "strftime", lambda _: "12:00:00")
    return now


def result(variant: str, dice: float | None, seconds: float) -> StoredTrial:
    record = TrialRecord(variant=variant, fold=0, seed=0, status="finished", seconds=seconds)
    cases = [] if dice is None else [{"class_index": 1, "dice": dice}]
    return StoredTrial(record=record, path=Path(), cases=cases)


def test_a_line_per_event_says_how_the_study_stands(clock: list[float]) -> None:
    stream = io.StringIO()
    table = ProgressTable(TRIALS, 1, stream)
    table.done_before({"baseline.fold_0.seed_0": result("baseline", 0.8, 100)})
    table.update(Event(id="narrow.fold_0.seed_0", state="running"))
    clock[0] = 30
    table.update(Event(id="narrow.fold_0.seed_0", state="finished"), result("narrow", 0.85, 50))
    table.update(Event(id="baseline.fold_0.seed_1", state="running"))
    table.update(Event(id="baseline.fold_0.seed_1", state="retried", error="Traceback\nValueError: no\n"))
    table.update(Event(id="baseline.fold_0.seed_1", state="running", attempt=2))
    table.update(Event(id="baseline.fold_0.seed_1", state="failed", error="Traceback\nValueError: no\n"))
    assert stream.getvalue().splitlines() == [
        "12:00:00  1 of 4 trials are done already  |  1/4 done  0 running  0 failed  best baseline 0.8000  left 5 min",
        "12:00:00  narrow.fold_0.seed_0  running  |  1/4 done  1 running  0 failed  best baseline 0.8000  left 5 min",
        "12:00:00  narrow.fold_0.seed_0  finished  Dice 0.8500  50 s  |  2/4 done  0 running  0 failed  "
        "best narrow 0.8500  left 2 min",
        "12:00:00  baseline.fold_0.seed_1  running  |  2/4 done  1 running  0 failed  best narrow 0.8500  left 2 min",
        "12:00:00  baseline.fold_0.seed_1  retried  ValueError: no  |  2/4 done  0 running  0 failed  "
        "best narrow 0.8500  left 2 min",
        "12:00:00  baseline.fold_0.seed_1  running  attempt 2  |  2/4 done  1 running  0 failed  "
        "best narrow 0.8500  left 2 min",
        "12:00:00  baseline.fold_0.seed_1  failed  ValueError: no  |  2/4 done  0 running  1 failed  "
        "best narrow 0.8500  left 50 s",
    ]


def test_the_best_variant_is_that_of_the_best_mean() -> None:
    stream = io.StringIO()
    results = {
        "baseline.fold_0.seed_0": result("baseline", 0.80, 1),
        "baseline.fold_0.seed_1": result("baseline", 0.84, 1),
        "narrow.fold_0.seed_0": result("narrow", 0.83, 1),
        "narrow.fold_0.seed_1": result("narrow", None, 1),
    }
    ProgressTable(TRIALS, 1, stream).done_before(results)
    assert "best narrow 0.8300  left 0 s" in stream.getvalue()


@pytest.mark.parametrize(("parallel", "left"), [(1, "5 min"), (2, "2 min"), (8, "100 s")])
def test_time_left_is_shared_and_no_less_than_the_longest_trial(parallel: int, left: str) -> None:
    stream = io.StringIO()
    ProgressTable(TRIALS, parallel, stream).done_before({"baseline.fold_0.seed_0": result("baseline", 0.8, 99.6)})
    assert stream.getvalue().rstrip().endswith(f"left {left}")


def test_a_terminal_is_redrawn_line_for_line(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    stream = Terminal()
    table = ProgressTable(TRIALS, 2, stream)
    table.update(Event(id="narrow.fold_0.seed_0", state="running"))
    clock[0] = 12
    table.update(Event(id="baseline.fold_0.seed_0", state="failed", error="ValueError: " + "long " * 30))
    first, second = re.split(r"\x1b\[3F\x1b\[J", stream.getvalue())
    assert len(first.splitlines()) == 3
    lines = second.splitlines()
    assert lines[1:3] == ["0/4 done  1 running  1 failed", "  running  narrow.fold_0.seed_0  12 s"]
    assert lines[3].startswith("  failed   baseline.fold_0.seed_0  ValueError: long")
    assert all(len(line) < 60 for line in lines)


def test_many_trials_fold_into_one_line() -> None:
    stream = Terminal()
    table = ProgressTable({str(index): "a" for index in range(20)}, 20, stream)
    for index in range(20):
        table.update(Event(id=str(index), state="running"))
    assert stream.getvalue().splitlines()[-1] == "  and 13 more"
