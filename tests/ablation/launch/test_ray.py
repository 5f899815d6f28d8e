"""Trials on a Ray that is started on this machine."""

from __future__ import annotations

import importlib.util
from functools import partial
from itertools import accumulate
from pathlib import Path
from types import ModuleType

import pytest

from seg.ablation.launch import Event, run_tasks
from seg.ablation.launch.ray import OnRay, check_fit
from seg.errors import ConfigError


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray: pip install 'segnarrow[cluster]'")
def test_ray_runs_tasks_and_tells_failures(jobs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    calls = {
        "good": partial(jobs.write, tmp_path / "good"),
        "bad": partial(jobs.fail, "no such width"),
        "dies": partial(jobs.die_first, tmp_path / "seen"),
    }
    calls |= {f"more {number}": partial(jobs.write, tmp_path / f"more {number}") for number in range(3)}
    backend = OnRay(None, cpus=1)
    events: list[Event] = list(run_tasks(backend, list(calls), lambda name, _: calls[name], retries=1))
    running = list(accumulate(1 if event.state == "running" else -1 for event in events))
    assert max(running) == min(backend.parallel, len(calls))  # the others are queued
    assert running[-1] == 0
    last = {event.id: event for event in events}
    assert (tmp_path / "good").read_text() == "done"
    assert {name: event.state for name, event in last.items()} == {
        "good": "finished",
        "bad": "failed",
        "dies": "finished",
        **{f"more {number}": "finished" for number in range(3)},
    }
    assert (last["bad"].error or "").strip().splitlines()[-1] == "ValueError: no such width"
    assert last["dies"].attempt == 2


@pytest.mark.parametrize(("cpus", "gpus"), [(9, 0.0), (4, 2.0), (8, 1.0)])
def test_what_no_node_has_is_refused(cpus: int, gpus: float) -> None:
    nodes = [
        {"Alive": True, "Resources": {"CPU": 8.0}},
        {"Alive": True, "Resources": {"CPU": 4.0, "GPU": 1.0}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
    ]
    check_fit(nodes, 8, 0.0)
    check_fit(nodes, 4, 1.0)
    with pytest.raises(ConfigError) as error:
        check_fit(nodes, cpus, gpus)
    assert [(one.kind, one.value) for one in error.value.problems] == [("range", f"{cpus} and {gpus:g}")]
