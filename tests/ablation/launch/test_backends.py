"""Every backend runs tasks, tells failures, and survives the death of a process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

from seg.ablation.launch import Backend, Event, run_tasks
from seg.ablation.launch.slurm import Slurm
from seg.ablation.launch.tasks import CatchingCall
from seg.ablation.launch.workers import InProcess, ProcessLimits, Workers

Make = Callable[[], Backend]


@pytest.fixture(params=["process", "workers", "submitit"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    def build() -> Backend:
        if request.param == "process":
            return InProcess()
        if request.param == "workers":
            return Workers([ProcessLimits(threads=1), ProcessLimits(threads=1)])
        return Slurm(tmp_path / "jobs", {"timeout_min": 1}, cluster="local", poll_s=0.05)

    return build


def run(backend: Backend, calls: dict[str, Callable[[], object]], retries: int = 0) -> list[Event]:
    return list(run_tasks(backend, list(calls), lambda name, _: calls[name], retries=retries))


def states(events: list[Event], name: str) -> list[str]:
    return [event.state for event in events if event.id == name]


def test_tasks_are_run_and_failures_told_with_their_traceback(make: Make, jobs: ModuleType, tmp_path: Path) -> None:
    calls = {
        "one": partial(jobs.write, tmp_path / "one"),
        "bad": partial(jobs.fail, "no such width"),
        "two": partial(jobs.write, tmp_path / "two"),
    }
    events = run(make(), calls)
    assert (tmp_path / "one").read_text() == (tmp_path / "two").read_text() == "done"
    assert states(events, "one") == states(events, "two") == ["running", "finished"]
    assert states(events, "bad") == ["running", "failed"]
    (error,) = [event.error for event in events if event.error is not None]
    assert error.strip().splitlines()[-1] == "ValueError: no such width"
    assert "in fail" in error


def test_a_failed_task_is_tried_again_as_often_as_asked(make: Make, jobs: ModuleType, tmp_path: Path) -> None:
    calls = {"once": partial(jobs.fail_first, tmp_path / "seen"), "always": partial(jobs.fail, "again")}
    events = run(make(), calls, retries=1)
    assert states(events, "once") == ["running", "retried", "running", "finished"]
    assert states(events, "always") == ["running", "retried", "running", "failed"]
    assert [event.attempt for event in events if event.id == "always"] == [1, 1, 2, 2]


def test_a_dead_worker_costs_its_trial_alone(jobs: ModuleType, tmp_path: Path) -> None:
    calls = {
        "dies": jobs.die,
        "long": partial(jobs.sleep, tmp_path / "pid", 1.5),
        "recovers": partial(jobs.die_first, tmp_path / "seen"),
        "after": partial(jobs.write, tmp_path / "after"),
    }
    events = run(Workers([ProcessLimits(threads=1), ProcessLimits(threads=1)]), calls, retries=1)
    assert states(events, "dies") == ["running", "retried", "running", "failed"]
    assert states(events, "long") == states(events, "after") == ["running", "finished"]
    assert states(events, "recovers") == ["running", "retried", "running", "finished"]
    assert {event.state for event in events if event.error} == {"retried", "failed"}


def test_a_worker_has_its_share_before_anything_is_imported(jobs: ModuleType, tmp_path: Path) -> None:
    run(Workers([ProcessLimits(threads=3, gpus=("4", "5"))]), {"a": partial(jobs.describe, tmp_path / "share")})
    assert (tmp_path / "share").read_text() == "3|4,5|False"


def test_stopping_ends_what_runs(jobs: ModuleType, tmp_path: Path) -> None:
    backend = Workers([ProcessLimits(threads=1)])
    backend.submit({"long": partial(jobs.sleep, tmp_path / "pid")})
    events = backend.events()
    assert next(events).state == "running"
    pid = wait_for_pid(tmp_path / "pid")
    backend.stop()
    assert ended(pid)


LEADER = """
import sys
from functools import partial
from pathlib import Path
import ablation_jobs
from seg.ablation.launch.workers import ProcessLimits, Workers
if __name__ == "__main__":
    backend = Workers([ProcessLimits(threads=1)])
    backend.submit({"long": partial(ablation_jobs.sleep, sys.argv[1])})
    list(backend.events())
"""


@pytest.mark.usefixtures("jobs")
def test_workers_end_with_a_leader_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "leader.py"
    script.write_text(LEADER)
    paths = os.pathsep.join([os.environ["PYTHONPATH"], str(Path(__file__).parents[3])])
    leader = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "pid")], env=os.environ | {"PYTHONPATH": paths}
    )
    pid = wait_for_pid(tmp_path / "pid")
    leader.kill()
    leader.wait()
    assert ended(pid)


LOCKER = """
from ablation_jobs import lock
from seg.ablation.launch import run_tasks
from seg.ablation.launch.workers import ProcessLimits, Workers
if __name__ == "__main__":
    events = list(run_tasks(Workers([ProcessLimits(threads=1)]), ["a"], lambda *_: lock, retries=0))
    print(events[-1].state)
"""


@pytest.mark.usefixtures("jobs")
def test_idle_workers_end_without_leaving_locks_behind(tmp_path: Path) -> None:
    script = tmp_path / "locker.py"
    script.write_text(LOCKER)
    paths = os.pathsep.join([os.environ["PYTHONPATH"], str(Path(__file__).parents[3])])
    found = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run([sys.executable, str(script)], env=found, capture_output=True, text=True, check=True)
    assert done.stdout == "finished\n"
    assert done.stderr == ""  # else Python says which semaphores leaked


def wait_for_pid(path: Path) -> int:
    deadline = time.monotonic() + 60
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return int(path.read_text())


def ended(pid: int) -> bool:
    """Whether a process ends within ten seconds; one that only waits to be reaped has ended."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def test_relative_paths_start_where_the_task_was_made(
    jobs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    task = CatchingCall(partial(jobs.write, Path("one")))
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert task() is None
    assert (tmp_path / "one").read_text() == "done"
