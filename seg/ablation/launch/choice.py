"""From the configuration to the place where trials run."""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path

from seg.ablation.launch.process import InProcess
from seg.ablation.launch.protocol import Backend
from seg.ablation.launch.workers import Share, Workers
from seg.config.study import BackendConfig
from seg.errors import ConfigError

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
    if config.backend == "process":
        return InProcess()
    if config.backend == "workers":
        gpus = visible_gpus()
        if gpus and not config.gpus_per_trial:
            LOG.warning("launch.gpus_per_trial is 0: trials see none of the %d GPUs", len(gpus))
        return Workers([Share(threads=threads, gpus=share) for share in share_gpus(config, gpus)])
    if config.backend == "slurm":
        from seg.ablation.launch.slurm import Slurm, slurm_parameters

        return Slurm(folder / "slurm", slurm_parameters(config, threads))
    from seg.ablation.launch.on_ray import OnRay

    return OnRay(config.ray_address, cpus=threads, gpus=config.gpus_per_trial)


def threads_per_trial(config: BackendConfig) -> int:
    """Returns the processor threads of a trial; where the study leaves it open, those of this machine are shared."""
    if config.cpus_per_trial:
        return config.cpus_per_trial
    workers = config.workers if config.backend == "workers" else 1
    # A container or a job may be held to some of the machine's processors; macOS does not tell.
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, available // workers)


def trial_threads(config: BackendConfig) -> int:
    """Returns the threads that a trial sets for itself; 0 leaves them to the numerical library."""
    return config.cpus_per_trial if config.backend == "process" else threads_per_trial(config)


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
        raise ConfigError(f"launch.gpus_per_trial must be a whole number or below 1, got {share:g}; round it.")
    to_one = max(1, int(1 / share + 1e-9))  # workers on one GPU
    each = max(1, int(share))
    needed = math.ceil(config.workers / to_one) * each
    if needed > len(gpus):
        raise ConfigError(
            f"launch.workers times launch.gpus_per_trial must be at most the GPUs there are, got {config.workers} "
            f"workers that need {needed} of {len(gpus)}; lower launch.workers."
        )
    return [gpus[index // to_one * each : index // to_one * each + each] for index in range(config.workers)]
