"""Trials as jobs of a Slurm cluster, by way of submitit; study and data lie on a file system that all nodes share."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seg.ablation.launch.tasks import Calls, CatchingCall, Event, ended
from seg.config.study import BackendConfig
from seg.errors import ConfigError, Problem

POLL_S = 10.0


class Requeued(CatchingCall):
    """A call that goes back to the queue where Slurm ends its job for time or for another's sake; trials resume."""

    def checkpoint(self) -> Any:
        """Says what to submit again; submitit asks for it."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class Slurm:
    """Runs tasks as jobs; see :class:`seg.ablation.launch.tasks.Backend`.

    Jobs outlive this process where it is killed; the next start waits for those that still work on a trial.

    Args:
        folder: Folder of what submitit writes: scripts, logs, results.
        parameters: Request of each job, by the names of submitit's Slurm executor.
        cluster: ``slurm``; ``local`` runs jobs as processes of this machine.
        poll_s: Seconds between two looks at the queue.

    Raises:
        ConfigError: submitit is not installed, or there is no Slurm.
    """

    def __init__(
        self, folder: Path, parameters: dict[str, Any], *, cluster: str = "slurm", poll_s: float = POLL_S
    ) -> None:
        try:
            import submitit
        except ImportError as error:
            remedy = "install it with pip install 'segnarrow[cluster]'"
            raise ConfigError(Problem("launch.backend", "package", "must find submitit", "none", remedy)) from error
        try:
            self._executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        except RuntimeError as error:
            rule, remedy = "must run where Slurm's commands are", "log in to the cluster or choose another backend"
            raise ConfigError(Problem("launch.backend", "cluster", rule, str(error), remedy)) from error
        self._executor.update_parameters(**parameters)
        self.parallel = int(parameters.get("slurm_array_parallelism", 1))
        self._poll_s = poll_s
        self._jobs: dict[str, Any] = {}
        self._seen: set[str] = set()

    def submit(self, calls: Calls) -> None:
        """Submits tasks as one array of jobs."""
        with self._executor.batch():
            self._jobs |= {name: self._executor.submit(Requeued(call)) for name, call in calls.items()}
        self._seen -= calls.keys()

    def events(self) -> Iterator[Event]:
        """Looks at the queue until it holds no job of these tasks."""
        while self._jobs:
            for task_id, job in list(self._jobs.items()):
                done = job.done()
                if (done or job.state == "RUNNING") and task_id not in self._seen:
                    self._seen.add(task_id)
                    yield Event(id=task_id, state="running")
                if done:
                    del self._jobs[task_id]
                    yield _outcome(task_id, job)
            if self._jobs:
                time.sleep(self._poll_s)

    def stop(self) -> None:
        """Cancels all jobs that are left."""
        for job in self._jobs.values():
            job.cancel(check=False)
        self._jobs.clear()


def slurm_parameters(config: BackendConfig, cpus: int) -> dict[str, Any]:
    """Returns the resources that each job asks Slurm for, by submitit's names of parameters.

    Args:
        config: Where trials run.
        cpus: Processor threads of a trial, >= 1.

    Raises:
        ConfigError: A share of a GPU is asked for, which Slurm does not give out.
    """
    gpus = config.gpus_per_trial
    if gpus != int(gpus):
        rule, remedy = "must be a whole number on Slurm", "name 1, or 0 for the processor"
        raise ConfigError(Problem("launch.gpus_per_trial", "integers", rule, f"{gpus:g}", remedy))
    slurm = config.slurm
    parameters: dict[str, Any] = {
        "name": "ablation",
        "timeout_min": slurm.time_minutes,
        "mem_gb": slurm.memory_gib,
        "cpus_per_task": cpus,
        "slurm_array_parallelism": slurm.max_parallel,
    }
    if gpus:
        parameters["gpus_per_node"] = int(gpus)
    for name in ("partition", "account", "qos", "constraint"):
        if (value := getattr(slurm, name)) is not None:
            parameters[f"slurm_{name}"] = value
    if slurm.options:
        parameters["slurm_additional_parameters"] = {name: text or True for name, text in slurm.options.items()}
    return parameters


def _outcome(task_id: str, job: Any) -> Event:
    from submitit.core.utils import FailedJobError, UncompletedJobError

    try:
        return ended(task_id, job.result())
    except (UncompletedJobError, FailedJobError) as error:
        return Event(id=task_id, state="failed", error=f"the job ended without a result ({job.state}):\n{error}")
