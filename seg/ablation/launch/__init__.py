"""Where trials run: on this machine, on Slurm, or on Ray. Nothing here imports torch."""

from __future__ import annotations

import logging
from pathlib import Path

from seg.ablation.launch.tasks import Backend, Event, run_tasks
from seg.ablation.launch.workers import InProcess, ProcessLimits, Workers, share_gpus, visible_gpus
from seg.config.study import BackendConfig
from seg.processes import usable_cores

__all__ = [
    "Backend",
    "Event",
    "build_backend",
    "is_in_process",
    "run_tasks",
    "threads_per_trial",
    "trial_threads",
]

LOG = logging.getLogger(__name__)


def build_backend(config: BackendConfig, folder: Path) -> Backend:
    """Makes the backend that a study asks for.

    Args:
        config: Where trials run.
        folder: Folder of files that belong to the backend.

    Raises:
        ConfigError: It is not installed or not there, or this machine has not the GPUs asked for.
    """
    threads = threads_per_trial(config)
    if config.backend == "workers":
        if is_in_process(config):
            return InProcess()
        gpus = visible_gpus()
        if gpus and not config.gpus_per_trial:
            LOG.warning("launch.gpus_per_trial is 0: trials see none of the %d GPUs", len(gpus))
        return Workers([ProcessLimits(threads=threads, gpus=share) for share in share_gpus(config, gpus)])
    if config.backend == "slurm":
        from seg.ablation.launch.slurm import Slurm, slurm_parameters

        return Slurm(folder / "slurm", slurm_parameters(config, threads))
    from seg.ablation.launch.ray import OnRay

    return OnRay(config.ray_address, cpus=threads, gpus=config.gpus_per_trial)


def threads_per_trial(config: BackendConfig) -> int:
    """Returns the processor threads of a trial; where the study leaves it open, those of this machine are shared."""
    if config.cpus_per_trial:
        return config.cpus_per_trial
    workers = config.workers if config.backend == "workers" else 1
    return max(1, usable_cores() // workers)


def trial_threads(config: BackendConfig) -> int:
    """Returns the threads that a trial sets for itself; 0 leaves them to the numerical library."""
    return config.cpus_per_trial if is_in_process(config) else threads_per_trial(config)


def is_in_process(config: BackendConfig) -> bool:
    """Tells whether trials run in this process: there is a single worker, which sees what this process sees."""
    return config.backend == "workers" and config.workers == 1 and not config.gpus_per_trial
