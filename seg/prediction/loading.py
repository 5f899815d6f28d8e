"""From run directories to networks that can be applied together."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from seg.config import ExperimentConfig, load_config
from seg.errors import ConfigError, RunError
from seg.files import file_digest, read_versioned, reading
from seg.layout import CONFIG_FILE, MODEL_FILE, MODEL_VERSION, WEIGHTS_FILE, fold_directories

if TYPE_CHECKING:
    import torch
    from torch import nn

    from seg.inference import Model
    from seg.prediction.case import Predictor

LOG = logging.getLogger(__name__)
SHARED = ("spacing_mm", "normalization", "ct")


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """What a finished run directory says of its network.

    Attributes:
        path: The run directory.
        config: The experiment.
        channel_names: Channels of its images.
        class_names: Classes, the background first.
    """

    path: Path
    config: ExperimentConfig
    channel_names: tuple[str, ...]
    class_names: tuple[str, ...]

    def description(self) -> dict[str, Any]:
        """Describes the network in a manifest: names, and the digest of its weights."""
        digest = file_digest(self.path / WEIGHTS_FILE).hex()
        return {"name": self.config.name, "run": self.path.resolve().name, "weights_sha256": digest}


def read_runs(run_dirs: Sequence[Path]) -> tuple[TrainedRun, ...]:
    """Reads run directories whose networks are to be averaged; no weights yet, and no torch.

    Args:
        run_dirs: Run directories; one that holds ``fold_0``, ``fold_1``, ... stands for all of these.

    Raises:
        RunError: One is no finished run, or they cannot be averaged; all problems together.
        ConfigError: A configuration cannot be read, or a run is named twice.
    """
    paths = [fold for path in run_dirs for fold in fold_directories(path).values() or [path]]
    if twice := [path for index, path in enumerate(paths) if path.resolve() in map(Path.resolve, paths[:index])]:
        raise ConfigError(
            f"--run_dir must name each run once, got {twice[0]} twice; it would count double, leave it out."
        )
    runs = tuple(_read_run(path) for path in paths)
    problems = [problem for run in runs[1:] for problem in _disagreements(runs[0], run)]
    if problems:
        raise RunError(problems)
    return runs


def _read_run(path: Path) -> TrainedRun:
    for name in (CONFIG_FILE, WEIGHTS_FILE, MODEL_FILE):
        if not (path / name).is_file():
            raise RunError(f"{path}: must be the directory of a finished run, got no {name}; check --run_dir.")
    file = path / MODEL_FILE
    with reading(file, what="the description of a network", remedy="restore the file"):
        content = read_versioned(file, MODEL_VERSION)
        channels, classes = _names(content, "channel_names", 1), _names(content, "class_names", 2)
    return TrainedRun(
        path=path,
        config=load_config([path / CONFIG_FILE]),
        channel_names=channels,
        class_names=classes,
    )


def _names(content: Mapping[str, Any], key: str, least: int) -> tuple[str, ...]:
    names = content[key]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"{key} must be a list of names")
    if len(names) < least or len(set(names)) != len(names):
        raise ValueError(f"{key} must be {least} different names at least")
    return tuple(names)


def _disagreements(first: TrainedRun, other: TrainedRun) -> list[str]:
    pairs = [
        ("channels", first.channel_names, other.channel_names),
        ("classes", first.class_names, other.class_names),
        *((f"data.{name}", getattr(first.config.data, name), getattr(other.config.data, name)) for name in SHARED),
        *(
            (f"postprocessing.{name}", ours, getattr(other.config.postprocessing, name))
            for name, ours in vars(first.config.postprocessing).items()
        ),
    ]
    return [
        f"{other.path}: {name} must be those of {first.path} to average both, got {_said(theirs)} where that has "
        f"{_said(ours)}; predict with each alone, or leave one out."
        for name, ours, theirs in pairs
        if ours != theirs
    ]


def _said(value: Any) -> str:
    """Writes a value of a configuration for a sentence: as YAML has it, and none for what is empty."""
    if value is None or value == ():
        return "none"
    if isinstance(value, tuple):
        return ", ".join(map(_said, value))
    if is_dataclass(value):
        return "; ".join(f"{name} {_said(part)}" for name, part in vars(value).items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def _copies(runs: Sequence[TrainedRun]) -> Iterator[str]:
    """Names runs whose weights are those of another one."""
    first: dict[str, TrainedRun] = {}
    for run in runs if len(runs) > 1 else ():
        other = first.setdefault(run.description()["weights_sha256"], run)
        if other is not run:
            yield (
                f"{run.path}: runs must differ to be averaged, got the weights of {other.path}; they would count "
                "double, leave one of them out."
            )


def load_model(run: TrainedRun, device: torch.device, precision: str, *, tta: bool | None = None) -> Model:
    """Loads the network of a run.

    Args:
        run: The run.
        device: Where to compute.
        precision: ``fp32`` or ``bf16``.
        tta: Whether logits are averaged over mirrored copies; None is as the experiment says.

    Returns:
        The network in evaluation mode on the device, with its windows.

    Raises:
        RunError: There are no weights, they cannot be read, they are those of another network or task, or memory of
            the device does not suffice.
    """
    from seg.inference import model_from_config
    from seg.prediction.placing import place

    network = _load_network(run)
    place([network], device, fall_back=False)
    return model_from_config(network, run.config, device=device, precision=precision, tta=tta)


def _load_network(run: TrainedRun) -> nn.Module:
    """Loads the network of a run in evaluation mode, on the processor."""
    from seg.weights import check_task, trained_network

    network = trained_network(run.config.network, len(run.channel_names), len(run.class_names), run.path)
    check_task(run.path, channel_names=run.channel_names, class_names=run.class_names)
    return network


def load_predictor(
    runs: Sequence[TrainedRun],
    *,
    device: Literal["auto", "cpu", "cuda"],
    tta: bool,
    probabilities: bool,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
) -> Predictor:
    """Loads the weights of runs.

    Args:
        runs: Runs that agree with one another.
        device: Where to compute.
        tta: Whether logits are averaged over mirrored copies; else each run does as its configuration says.
        probabilities: Whether probabilities are kept.
        precision: Arithmetic of all networks; ``auto`` is that of each run's configuration.

    Returns:
        The networks, in evaluation mode on the device, and what goes with them.

    Raises:
        RunError: Weights cannot be used, are those of two runs, or do not fit in memory.
        ConfigError: The device is not there, or has no such arithmetic.
    """
    if copies := list(_copies(runs)):
        raise RunError(copies)
    # Takes seconds; what is wrong with arguments and run directories is said before.
    import torch

    from seg.hardware import choose_device, choose_precision, computes_bf16
    from seg.inference import model_from_config
    from seg.prediction.case import Predictor
    from seg.prediction.cleaning import cleaning_rules
    from seg.prediction.placing import place

    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device must be available, got 'cuda' without a GPU; use auto or cpu.")
    warnings = tuple(_idle_mirroring(runs, tta=tta))
    for warning in warnings:
        LOG.warning("%s", warning)
    chosen = choose_device(device)
    if precision == "bf16" and not computes_bf16(chosen):
        kind = "GPU" if chosen.type == "cuda" else "processor"
        raise ConfigError(f"--precision must be one that the {kind} computes, got 'bf16', which it lacks; use fp32.")
    networks = []
    for run in runs:
        networks.append(_load_network(run))
    # On a full GPU a choice that was left to us is made anew, unless the processor lacks what is asked for.
    bearable = precision != "bf16" or computes_bf16(torch.device("cpu"))
    chosen, note = place(networks, chosen, fall_back=device == "auto" and bearable)
    warnings += (note,) if note else ()
    models = []
    for run, network in zip(runs, networks, strict=True):
        own = choose_precision(run.config.training.precision if precision == "auto" else precision, chosen)
        models.append(model_from_config(network, run.config, device=chosen, precision=own, tta=True if tta else None))
    return Predictor(
        models=models,
        data=runs[0].config.data,
        channel_names=runs[0].channel_names,
        class_names=runs[0].class_names,
        rules=cleaning_rules(runs[0].config.postprocessing, runs[0].class_names),
        probabilities=probabilities,
        warnings=warnings,
    )


def _idle_mirroring(runs: Sequence[TrainedRun], *, tta: bool) -> Iterator[str]:
    """Says which networks are to be averaged over mirrored copies and have no axis to mirror along."""
    asked = [run for run in runs if tta or run.config.inference.tta]
    idle = [run for run in asked if not run.config.augmentation.spatial.mirror_axes]
    if idle:
        name = "--tta" if tta else "inference.tta"
        whom = "" if len(idle) == len(runs) else f" for {', '.join(str(run.path) for run in idle)}"
        yield f"{name} changes nothing{whom}: training mirrored along no axis (augmentation.spatial.mirror_axes)."
