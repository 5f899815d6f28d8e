"""Trials one after the other in this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from seg.ablation.launch.protocol import Event, Guarded, Task, ended


class InProcess:
    """Runs tasks here; see :class:`seg.ablation.launch.protocol.Backend`."""

    def __init__(self) -> None:
        self.parallel = 1
        self._waiting: deque[Task] = deque()

    def submit(self, tasks: Sequence[Task]) -> None:
        """Queues tasks."""
        self._waiting.extend(tasks)

    def events(self) -> Iterator[Event]:
        """Runs the tasks in their order; an interrupt passes through."""
        while self._waiting:
            task = self._waiting.popleft()
            yield Event(id=task.id, state="running")
            yield ended(task.id, Guarded(task.call)())

    def stop(self) -> None:
        """Forgets what has not begun."""
        self._waiting.clear()
