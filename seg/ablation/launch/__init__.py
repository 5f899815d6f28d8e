"""Places that run trials: this process, processes of this machine, Slurm, Ray. Nothing here imports torch."""

from seg.ablation.launch.choice import build_backend, threads_per_trial, trial_threads
from seg.ablation.launch.protocol import Backend, Event, Task, run_tasks

__all__ = ["Backend", "Event", "Task", "build_backend", "run_tasks", "threads_per_trial", "trial_threads"]
