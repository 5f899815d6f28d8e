"""Shares of processors and GPUs, and the request to Slurm."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from seg.ablation.launch import build_backend, threads_per_trial, trial_threads
from seg.ablation.launch.slurm import Slurm, slurm_parameters
from seg.ablation.launch.workers import InProcess, Workers, share_gpus, visible_gpus
from seg.config.study import BackendConfig, SlurmConfig
from seg.errors import ConfigError

CORES = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("config", "threads"),
    [
        (BackendConfig(), CORES),
        (BackendConfig(backend="workers", workers=CORES), 1),
        (BackendConfig(backend="workers", workers=10 * CORES), 1),
        (BackendConfig(backend="workers", workers=2, cpus_per_trial=7), 7),
    ],
)
def test_threads_are_shared_among_workers(config: BackendConfig, threads: int) -> None:
    assert threads_per_trial(config) == threads


@pytest.mark.parametrize(
    ("workers", "share", "expected"),
    [
        (2, 0.0, [(), ()]),
        (3, 1.0, [("a",), ("b",), ("c",)]),
        (2, 2.0, [("a", "b"), ("c", "d")]),
        (4, 0.5, [("a",), ("a",), ("b",), ("b",)]),
        (4, 1 / 3, [("a",), ("a",), ("a",), ("b",)]),
        (2, 0.6, [("a",), ("b",)]),
    ],
)
def test_gpus_are_dealt_out(workers: int, share: float, expected: list[tuple[str, ...]]) -> None:
    config = BackendConfig(backend="workers", workers=workers, gpus_per_trial=share)
    assert share_gpus(config, ("a", "b", "c", "d")) == expected


@pytest.mark.parametrize(
    ("workers", "share", "place"),
    [(3, 2.0, ("launch.workers", "range", "3 that need 6")), (1, 1.5, ("launch.gpus_per_trial", "integers", "1.5"))],
)
def test_gpus_that_are_not_there_are_refused(workers: int, share: float, place: tuple[str, str, str]) -> None:
    config = BackendConfig(backend="workers", workers=workers, gpus_per_trial=share)
    with pytest.raises(ConfigError) as error:
        share_gpus(config, ("a", "b", "c", "d"))
    assert [(one.path, one.kind, one.value) for one in error.value.problems] == [place]


def test_gpus_are_those_that_this_process_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 5")
    assert visible_gpus() == ("2", "5")


def test_slurm_is_asked_for_what_the_study_names() -> None:
    slurm = SlurmConfig(partition="gpu", account="lab", time_minutes=90, memory_gib=24, max_parallel=8)
    config = BackendConfig(backend="slurm", gpus_per_trial=1, slurm=slurm)
    assert slurm_parameters(config, 6) == {
        "name": "ablation",
        "timeout_min": 90,
        "mem_gb": 24,
        "cpus_per_task": 6,
        "slurm_array_parallelism": 8,
        "gpus_per_node": 1,
        "slurm_partition": "gpu",
        "slurm_account": "lab",
    }
    bare = slurm_parameters(BackendConfig(backend="slurm"), 1)
    assert not {"gpus_per_node", "slurm_partition", "slurm_account"} & set(bare)


def test_submitit_takes_the_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The names are those that its Slurm executor knows: the script that it writes asks for the same."""
    submitit = pytest.importorskip("submitit")
    monkeypatch.setattr(submitit.slurm.slurm.SlurmExecutor, "affinity", classmethod(lambda cls: 2))
    asked = {"qos": "long", "constraint": "a100|h100", "options": {"exclusive": "", "nodelist": "node[1-3]"}}
    slurm = SlurmConfig(partition="gpu", time_minutes=90, memory_gib=24, max_parallel=8, **asked)  # type: ignore[arg-type]
    parameters = slurm_parameters(BackendConfig(backend="slurm", gpus_per_trial=2, slurm=slurm), 6)
    executor = submitit.AutoExecutor(folder=tmp_path, cluster="slurm")
    executor.update_parameters(**parameters)
    script = executor._executor._make_submission_file_text("true", "uid")
    for line in ("--time=90", "--mem=24GB", "--cpus-per-task=6", "--gpus-per-node=2", "--partition=gpu"):
        assert f"#SBATCH {line}\n" in script
    for line in ("--qos=long", "--constraint='a100|h100'", "--exclusive", "--nodelist='node[1-3]'"):
        assert f"#SBATCH {line}\n" in script


def test_slurm_gives_out_whole_gpus() -> None:
    with pytest.raises(ConfigError) as error:
        slurm_parameters(BackendConfig(backend="slurm", gpus_per_trial=0.5), 1)
    (problem,) = error.value.problems
    assert (problem.path, problem.kind, problem.value) == ("launch.gpus_per_trial", "integers", "0.5")


def test_a_machine_without_slurm_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        Slurm(tmp_path, {})
    assert [(one.path, one.kind) for one in error.value.problems] == [("launch.backend", "cluster")]


def test_each_name_gives_its_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert isinstance(build_backend(BackendConfig(), tmp_path), InProcess)
    workers = build_backend(BackendConfig(backend="workers", workers=2), tmp_path)
    assert isinstance(workers, Workers)
    workers.stop()


def test_a_single_worker_leaves_threads_to_the_library_unless_told() -> None:
    assert trial_threads(BackendConfig()) == 0
    assert trial_threads(BackendConfig(cpus_per_trial=3)) == 3
    assert trial_threads(BackendConfig(workers=CORES)) == 1
