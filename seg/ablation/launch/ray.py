"""Trials on Ray: on this machine, or on a cluster whose nodes share the file system of study and data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from seg.ablation.launch.tasks import Calls, CatchingCall, Event, ended
from seg.errors import ConfigError, Problem, shown


class OnRay:
    """Runs tasks on Ray; see :class:`seg.ablation.launch.tasks.Backend`.

    Ray does not say which of the tasks it holds have begun. It takes them in their order, so as many of the first ones
    as it has room for count as running.

    Args:
        address: Address of a running cluster; None starts Ray on this machine and ends it with :meth:`stop`.
        cpus: Processor threads of a task, >= 1.
        gpus: GPUs of a task, >= 0; below 1 several tasks share one.

    Raises:
        ConfigError: Ray is not installed, there is no cluster at the address, or it can never give a task its share.
    """

    def __init__(self, address: str | None, *, cpus: int, gpus: float = 0.0) -> None:
        try:
            import ray
        except ImportError as error:
            remedy = "install it with pip install 'segnarrow[cluster]'"
            raise ConfigError(Problem("launch.backend", "package", "must find ray", "none", remedy)) from error
        self._ray: Any = ray
        local: dict[str, Any] = {"include_dashboard": False} if address is None else {}
        try:
            self._ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", **local)
        except (ConnectionError, ValueError, RuntimeError) as error:
            rule, value = "must be that of a running cluster, or null", f"{shown(address)} ({error})"
            raise ConfigError(Problem("launch.ray_address", "cluster", rule, value)) from error
        try:
            check_fit(self._ray.nodes(), cpus, gpus)
        except ConfigError:
            ray.shutdown()
            raise
        resources = self._ray.cluster_resources()
        shares = [resources.get("CPU", 0) / cpus] + ([resources.get("GPU", 0) / gpus] if gpus else [])
        self.parallel = max(1, int(min(shares)))
        self._call = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(_call)
        self._tasks: dict[Any, str] = {}
        self._queued: list[str] = []

    def submit(self, calls: Calls) -> None:
        """Hands tasks to Ray."""
        for name, call in calls.items():
            self._tasks[self._call.remote(CatchingCall(call))] = name
            self._queued.append(name)

    def events(self) -> Iterator[Event]:
        """Waits for one task after the other."""
        while self._tasks:
            while self._queued and len(self._tasks) - len(self._queued) < self.parallel:
                yield Event(id=self._queued.pop(0), state="running")
            (done, *_), _ = self._ray.wait(list(self._tasks), num_returns=1)
            task_id = self._tasks.pop(done)
            if task_id in self._queued:  # a cluster that grew had more room
                self._queued.remove(task_id)
                yield Event(id=task_id, state="running")
            try:
                event = ended(task_id, self._ray.get(done))
            except self._ray.exceptions.RayError as error:
                event = Event(id=task_id, state="failed", error=f"the process of Ray ended: {error}")
            yield event

    def stop(self) -> None:
        """Cancels all tasks that are left, and leaves Ray."""
        for task in self._tasks:
            self._ray.cancel(task, force=True)
        self._tasks.clear()
        self._ray.shutdown()


def check_fit(nodes: Sequence[Mapping[str, Any]], cpus: int, gpus: float) -> None:
    """Refuses what no node has, for which Ray would wait for ever.

    Raises:
        ConfigError: No node that is alive has so many processors and GPUs.
    """
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in alive):
        path, rule = "launch.cpus_per_trial and launch.gpus_per_trial", "must fit on one node of Ray"
        raise ConfigError(Problem(path, "range", rule, f"{cpus} and {gpus:g}", "lower them"))


def _call(call: CatchingCall) -> str | None:
    return call()
