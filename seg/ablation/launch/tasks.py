"""Tasks, what becomes of them, and how failed tasks are tried again, for every backend. Nothing here imports torch."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

Calls = Mapping[str, Callable[[], object]]
"""What to call by the id of a trial. Where another process calls it, a function of an importable module."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """A change of a task's state.

    Attributes:
        id: The task.
        state: ``retried`` is failed, with an attempt left.
        error: What it failed with: a traceback, or a sentence where its process is gone; None where it did not fail.
        attempt: Number of the attempt, from 1.
    """

    id: str
    state: Literal["running", "finished", "retried", "failed"]
    error: str | None = None
    attempt: int = 1


class Backend(Protocol):
    """A place that runs tasks.

    Attributes:
        parallel: Largest number of tasks that run at once, as far as it is known.
    """

    parallel: int

    def submit(self, calls: Calls) -> None:
        """Hands over tasks; returns before they end."""

    def events(self) -> Iterator[Event]:
        """Yields what becomes of tasks until none is left; more may be submitted in between."""

    def stop(self) -> None:
        """Ends what still runs; nothing can be submitted any more."""


def run_tasks(
    backend: Backend, ids: Sequence[str], make: Callable[[str, int], Callable[[], object]], *, retries: int
) -> Iterator[Event]:
    """Runs tasks, those that fail once more and again, and ends all that runs however this ends.

    Args:
        backend: Where.
        ids: The tasks, in their order.
        make: Gives what to call for an id and the number of an attempt.
        retries: Attempts after the first, >= 0.

    Yields:
        What becomes of the tasks; each has one ``finished`` or ``failed``.
    """
    attempts = dict.fromkeys(ids, 1)
    try:
        backend.submit({name: make(name, 1) for name in ids})
        for event in backend.events():
            attempt = attempts[event.id]
            if event.state == "failed" and attempt <= retries:
                attempts[event.id] += 1
                backend.submit({event.id: make(event.id, attempts[event.id])})
                yield replace(event, state="retried", attempt=attempt)
            else:
                yield replace(event, attempt=attempt)
    finally:
        backend.stop()


@dataclass(frozen=True)
class CatchingCall:
    """A call that hands back what it fails with, so that a failure is told from the death of its process.

    Attributes:
        call: What to call.
        folder: Folder that its relative paths start from: a cluster may begin its processes elsewhere.
    """

    call: Callable[[], object]
    folder: Path = field(default_factory=Path.cwd)

    def __call__(self) -> str | None:
        """Calls it; returns the traceback of a failure, else None."""
        try:
            os.chdir(self.folder)
            self.call()
        except Exception:
            return traceback.format_exc()
        return None


def ended(task_id: str, failure: str | None) -> Event:
    """Returns the event of a task that came to its end, from what its guarded call gave."""
    return Event(id=task_id, state="finished" if failure is None else "failed", error=failure)


def last_line(text: str | None) -> str:
    """Returns the line of a traceback that names the error."""
    return ((text or "").strip().splitlines() or ["unknown error"])[-1]
