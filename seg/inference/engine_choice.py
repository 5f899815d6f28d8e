"""Which engine runs networks: what each can do, and which is the fastest here, measured once and kept."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from seg.config import DeviceName, PrecisionName
from seg.config.loading import content_digest
from seg.errors import ConfigError, Problem, SegError
from seg.files import read_json, user_cache, write_json
from seg.hardware import instruction_sets, package_version, processor_name
from seg.inference.engines import (
    INSTALL_ENGINE,
    INSTALL_TORCH,
    READERS,
    Engine,
    check_installed,
    has_bf16,
    installed,
)
from seg.inference.exported import ExportedRun
from seg.inference.model import Model
from seg.processes import usable_cores
from seg.runs import TrainedRun

LOG = logging.getLogger(__name__)
TIMES_VERSION = 1
ROUNDS = 5
Load = Callable[[Engine], Sequence[Model]]


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """A measurement.

    Attributes:
        key: What it is about: networks, machine, versions.
        seconds: Median seconds of a pass of one window, by engine.
    """

    key: dict[str, Any]
    seconds: dict[Engine, Annotated[float, Field(gt=0)]]

    @property
    def fastest(self) -> Engine:
        """The engine that took least."""
        return min(self.seconds, key=lambda engine: self.seconds[engine])

    def __str__(self) -> str:
        each = ", ".join(f"{engine} {1000 * took:.3g} ms" for engine, took in sorted(self.seconds.items()))
        return f"{self.fastest}, the fastest here for a window: {each}"


def choose_engine(
    wanted: Literal["auto"] | Engine | None,
    runs: Sequence[TrainedRun],
    load: Load,
    *,
    device: DeviceName,
    precision: PrecisionName,
) -> Engine:
    """Returns the engine to predict with, and says which is the fastest where several were measured.

    Args:
        wanted: What was asked for; ``auto`` is the fastest. None is torch, and ``auto`` where a network is exported.
        runs: The runs.
        load: Loads their networks into an engine.
        device: Where to compute.
        precision: Arithmetic of the networks.

    Raises:
        ConfigError: The engine is not installed or does not read the networks, or none does what is asked for.
    """
    if wanted is None:
        wanted = "auto" if any(isinstance(run, ExportedRun) for run in runs) else "torch"
    if wanted != "auto":
        check_installed(wanted)
        check_engine(wanted, runs)
        return wanted
    engines = possible_engines(runs)
    if precision == "bf16":  # torch looks at its device itself
        engines = tuple(engine for engine in engines if engine == "torch" or has_bf16(engine)) or engines
    if "torch" not in engines:  # before minutes of measurement
        check_settings(runs, engine=engines[0], device=device, precision=precision)
    elif device in ("cuda", "mps"):
        engines = ("torch",)  # no other has a GPU
    try:
        return fastest_engine(engines, runs, load, device=device, precision=precision)
    except SegError as error:
        if "torch" not in engines:
            raise
        LOG.warning("engine: torch, as the others cannot be measured: %s", error)
        return "torch"


def possible_engines(runs: Sequence[TrainedRun]) -> tuple[Engine, ...]:
    """Returns the installed engines that can run all networks, in the order of preference.

    Raises:
        ConfigError: There is none.
    """
    wanted = _readers(runs)
    if not any(isinstance(run, ExportedRun) for run in runs) and not all(map(package_version, ("onnx", "onnxscript"))):
        wanted = ("torch",)  # nothing exports the runs
    found = installed(wanted)
    if not found:
        rule, value = f"must be installed: {' or '.join(wanted)}", "none of them"
        remedy = INSTALL_TORCH if wanted == ("torch",) else INSTALL_ENGINE
        raise ConfigError(Problem("--engine", "missing", rule, value, remedy))
    return found


def _readers(runs: Sequence[TrainedRun]) -> tuple[Engine, ...]:
    """Returns the engines that can run all networks, installed or not."""
    readers: tuple[Engine, ...] = ("torch", "openvino", "onnxruntime")
    for run in runs:
        if isinstance(run, ExportedRun):
            readers = tuple(engine for engine in readers if engine in READERS[run.record.format])
    return readers


def check_engine(engine: Engine, runs: Sequence[TrainedRun]) -> None:
    """Checks that an engine reads all exported networks.

    Raises:
        ConfigError: It does not.
    """
    for run in runs:
        if isinstance(run, ExportedRun) and engine not in (readers := READERS[run.record.format]):
            rule = f"must be auto or {' or '.join(readers)} for {run.path.name}"
            raise ConfigError(Problem("--engine", "format", rule, engine, "choose another, or give the run directory"))


def check_settings(runs: Sequence[TrainedRun], *, engine: Engine, device: DeviceName, precision: PrecisionName) -> None:
    """Checks that the device and the precision are ones that an engine other than torch has.

    Raises:
        ConfigError: They are not.
    """
    problems = []
    readers = _readers(runs)
    if device not in ("auto", "cpu"):
        rule = f"must be cpu or auto with --engine {engine}"
        other = "take --engine torch" if "torch" in readers else "give the run directory"
        problems.append(Problem("--device", "conflict", rule, f"'{device}'", f"leave it out, or {other}"))
    quantised = [run for run in runs if isinstance(run, ExportedRun) and run.record.arithmetic == "int8"]
    if quantised and precision != "auto":
        rule, remedy = "must be auto with a network in int8", "leave it out, or give the run directory"
        problems += [
            Problem("--precision", "conflict", rule, f"'{precision}' for {run.path.name}", remedy) for run in quantised
        ]
    elif precision == "bf16" and not has_bf16(engine):
        others = [one for one in installed(readers) if one == "torch" or has_bf16(one)]
        rule = f"must be one that {engine} computes on this processor"
        remedy = f"leave it out, or take --engine {' or '.join(others)}" if others else "leave it out"
        problems.append(Problem("--precision", "conflict", rule, "'bf16'", remedy))
    if problems:
        raise ConfigError(problems)


def fastest_engine(engines: Sequence[Engine], runs: Sequence[TrainedRun], load: Load, **settings: str) -> Engine:
    """Returns the engine that is the fastest here; measures where no earlier measurement counts, and says so.

    Args:
        engines: Engines to choose from; of a single one nothing is measured.
        runs: The runs.
        load: Loads their networks into an engine.
        settings: What else decides the speed.
    """
    if len(engines) == 1:
        return engines[0]
    key = _key(engines, runs, settings)
    folder = user_cache()
    path = None if folder is None else folder / "engines" / f"{content_digest(key)[:32]}.json"
    speeds = None if path is None else _stored(path, key)
    if speeds is None:
        LOG.info("engine: measuring %s, once for this network and machine", ", ".join(engines))
        speeds = Speeds(
            key=key, seconds=measure({engine: load(engine) for engine in engines}, len(runs[0].channel_names))
        )
        path = _keep(path, speeds)
    LOG.info("engine: %s%s", speeds, "" if path is None else f" ({path}; remove it to measure again)")
    return speeds.fastest


def _key(engines: Sequence[Engine], runs: Sequence[TrainedRun], settings: Mapping[str, str]) -> dict[str, Any]:
    return {
        "models": sorted(json.dumps(run.description(), sort_keys=True) for run in runs),
        "windows": [[*run.config.window, run.config.inference.batch] for run in runs],
        "precisions": [run.config.training.precision for run in runs],
        "torch": _torch() if "torch" in engines else None,
        "processor": processor_name(),
        "instruction_sets": instruction_sets(),
        "threads": usable_cores(),
        "versions": {engine: package_version(engine) for engine in engines},
        "segnarrow": package_version("segnarrow"),
        **settings,
    }


def _torch() -> dict[str, Any]:
    """Returns what the speed of torch depends on here: the GPU that it would take, and its threads."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"gpu": gpu, "threads": torch.get_num_threads()}


def _stored(path: Path, key: Mapping[str, Any]) -> Speeds | None:
    """Reads an earlier measurement; None where there is none, or it is damaged or of something else."""
    if not path.is_file():
        return None
    try:
        speeds = read_json(path, Speeds, newest=TIMES_VERSION, remedy="remove it")
    except SegError as error:
        LOG.warning("%s", error)
        return None
    return speeds if speeds.key == key and speeds.seconds else None


def _keep(path: Path | None, speeds: Speeds) -> Path | None:
    """Writes a measurement; where that fails, the next command measures again, which is announced."""
    if path is None:
        return None
    try:
        write_json(path, {"schema_version": TIMES_VERSION, "key": speeds.key, "seconds": speeds.seconds})
    except SegError as error:
        LOG.warning("the measurement of engines is not kept: %s", error)
        return None
    return path


def measure(models: Mapping[Engine, Sequence[Model]], channels: int) -> dict[Engine, float]:
    """Measures passes of a window through networks, in turns, so that all have the same noise; the first is not timed.

    Args:
        models: Networks by engine.
        channels: Channels of a window.

    Returns:
        Median seconds of a pass through all networks, by engine.
    """
    random = np.random.default_rng(0)
    seconds: dict[Engine, list[float]] = {engine: [] for engine in models}
    for _ in range(1 + ROUNDS):
        for engine, networks in models.items():
            took = 0.0
            for model in networks:
                windows = random.normal(size=(model.batch, channels, *model.window)).astype(np.float32)
                begun = time.perf_counter()
                float(model.logits(windows).sum())  # a GPU is waited for
                took += time.perf_counter() - begun
            seconds[engine].append(took)
    return {engine: median(each[1:]) for engine, each in seconds.items()}
