"""Trials on this machine: in this process, or in several processes, each with its share of threads or GPUs.

Each process is the only one of an executor of its own: when it dies, of memory or by a signal, only its trial is lost.
Nothing here imports torch: a process learns its share before it does.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import Connection

from seg.ablation.launch.tasks import Calls, CatchingCall, Event, ended
from seg.config.study import BackendConfig
from seg.errors import ConfigError, Problem

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
DIED = "the worker process is gone: it was killed, or memory did not suffice; see the trial's log."


@dataclass(frozen=True, kw_only=True)
class ProcessLimits:
    """What one process may use.

    Attributes:
        threads: Threads of numerical libraries, >= 1.
        gpus: GPUs that it sees, as CUDA names them; empty hides all.
    """

    threads: int
    gpus: tuple[str, ...] = ()


class InProcess:
    """Runs tasks here; see :class:`seg.ablation.launch.tasks.Backend`."""

    def __init__(self) -> None:
        self.parallel = 1
        self._waiting: deque[tuple[str, CatchingCall]] = deque()

    def submit(self, calls: Calls) -> None:
        """Queues tasks."""
        self._waiting.extend((name, CatchingCall(call)) for name, call in calls.items())

    def events(self) -> Iterator[Event]:
        """Runs the tasks in their order; an interrupt passes through."""
        while self._waiting:
            name, call = self._waiting.popleft()
            yield Event(id=name, state="running")
            yield ended(name, call())

    def stop(self) -> None:
        """Drops the tasks that have not begun."""
        self._waiting.clear()


class Workers:
    """Runs tasks in processes; see :class:`seg.ablation.launch.tasks.Backend`.

    All processes end when this one does, however it does.

    Args:
        shares: One for each process.
    """

    def __init__(self, shares: Sequence[ProcessLimits]) -> None:
        self.parallel = len(shares)
        self._idle = deque(_Worker(share) for share in shares)
        self._busy: dict[Future[str | None], tuple[str, _Worker]] = {}
        self._waiting: deque[tuple[str, CatchingCall]] = deque()

    def submit(self, calls: Calls) -> None:
        """Queues tasks."""
        self._waiting.extend((name, CatchingCall(call)) for name, call in calls.items())

    def events(self) -> Iterator[Event]:
        """Keeps all processes at work until no task is left."""
        while self._waiting or self._busy:
            while self._waiting and self._idle:
                (name, call), worker = self._waiting.popleft(), self._idle.popleft()
                self._busy[worker.submit(call)] = (name, worker)
                yield Event(id=name, state="running")
            done, _ = wait(self._busy, return_when=FIRST_COMPLETED)
            for future in done:
                name, worker = self._busy.pop(future)
                self._idle.append(worker)
                yield ended(name, DIED if isinstance(future.exception(), BrokenProcessPool) else future.result())

    def stop(self) -> None:
        """Ends all processes, those at work too."""
        self._waiting.clear()
        for worker in self._idle:
            worker.stop()
        for _, worker in self._busy.values():
            worker.kill()


class _Worker:
    """A process that is started with its first task and again after its death."""

    def __init__(self, share: ProcessLimits) -> None:
        self.share = share
        self.renew()

    def renew(self) -> None:
        context = multiprocessing.get_context("spawn")
        # Nothing is ever sent: the process ends when this end is closed, by `stop` or by the death of this process.
        receiver, self._life = context.Pipe(duplex=False)
        self._executor = ProcessPoolExecutor(1, context, _begin, (receiver, self.share))

    def submit(self, call: CatchingCall) -> Future[str | None]:
        try:
            return self._executor.submit(call)
        except BrokenProcessPool:  # died with its last task, or since
            self.renew()
            return self._executor.submit(call)

    def stop(self) -> None:
        """Ends the process when it is idle, which lets it clean up behind itself."""
        self._executor.shutdown()
        self._life.close()

    def kill(self) -> None:
        """Ends the process at once, whatever it does."""
        self._life.close()
        self._executor.shutdown(cancel_futures=True)


def _begin(life: Connection, share: ProcessLimits) -> None:
    """Prepares a new process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # An interrupt at the terminal is for the process that leads.
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(share.threads)))
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(share.gpus)
    threading.Thread(target=_end_with, args=(life,), daemon=True).start()


def _end_with(life: Connection) -> None:
    """Ends this process as soon as nobody holds the other end."""
    try:
        life.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)


def visible_gpus() -> tuple[str, ...]:
    """Returns the GPUs of this machine that this process sees, as CUDA names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return tuple(name.strip() for name in named.split(",") if name.strip())
    import torch

    return tuple(str(index) for index in range(torch.cuda.device_count()))


def share_gpus(config: BackendConfig, gpus: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Deals GPUs out to workers, whole ones or several workers to one.

    Args:
        config: Number of workers, and GPUs of each.
        gpus: Names of those there are.

    Returns:
        Names for each worker.

    Raises:
        ConfigError: There are too few, or a share is neither a whole number nor below 1.
    """
    share = config.gpus_per_trial
    if not share:
        return [()] * config.workers
    if share > 1 and share != int(share):
        rule = "must be a whole number or below 1"
        raise ConfigError(Problem("launch.gpus_per_trial", "integers", rule, f"{share:g}", "round it"))
    to_one = max(1, int(1 / share + 1e-9))  # workers on one GPU
    each = max(1, int(share))
    needed = math.ceil(config.workers / to_one) * each
    if needed > len(gpus):
        rule, value = f"must need at most the {len(gpus)} GPUs there are", f"{config.workers} that need {needed}"
        raise ConfigError(Problem("launch.workers", "range", rule, value, "lower it, or launch.gpus_per_trial"))
    return [gpus[index // to_one * each : index // to_one * each + each] for index in range(config.workers)]
