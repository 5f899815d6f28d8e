"""The whole way from paths of runs and experiments to tables and ``benchmark.json``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from seg.benchmark.measure import Settings, measure_device, present_devices
from seg.benchmark.prediction import held_out_images, measure_volume
from seg.benchmark.subjects import Subject, with_peers
from seg.benchmark.table import device_tables, volume_text
from seg.config import PostprocessingConfig, load_config
from seg.data.datasets import read_configured
from seg.errors import ConfigError, Problem, RunError, SegError
from seg.files import write_json
from seg.runs import read_runs

LOG = logging.getLogger(__name__)
BENCHMARK_VERSION = 1
SPEED_FILE, VOLUME_FILE = "benchmark.json", "benchmark_volume.json"


@dataclass(frozen=True, kw_only=True)
class Target:
    """A network to measure.

    Attributes:
        kind: Whether the path is a run directory or the YAML file of an experiment.
        path: The path.
    """

    kind: Literal["run_dir", "config"]
    path: Path


@dataclass(frozen=True, kw_only=True)
class BenchmarkArguments:
    """The networks to measure, and how.

    Attributes:
        targets: What is measured, the baseline first.
        peers: Whether networks of MONAI are measured beside it.
        rounds: Timed rounds, in each of which each network is measured once, >= 3.
        warmup: Untimed rounds before, >= 1.
        cases: Cases of the end-to-end measurement, >= 0.
        device: Where to measure.
        data_root: Folder of the data set; None is that of the experiment.
        num_channels: Channels of an image, where no data set is read.
        num_classes: Classes, background included, where no data set is read; None reads it.
        volume_shape: Shape of a volume whose prediction is measured in place of speed; None measures speed.
        volume_spacing: Its voxel size in mm, each > 0; None is that of the network.
        output: JSON file of the results; None is the default one.
    """

    targets: tuple[Target, ...]
    peers: bool = False
    rounds: int = 15
    warmup: int = 3
    cases: int = 8
    device: Literal["all", "cpu", "cuda"] = "all"
    data_root: Path | None = None
    num_channels: int = 1
    num_classes: int | None = None
    volume_shape: tuple[int, int, int] | None = None
    volume_spacing: tuple[float, float, float] | None = None
    output: Path | None = None


def read_subjects(arguments: BenchmarkArguments) -> tuple[Subject, ...]:
    """Reads the networks to measure, without their weights.

    Raises:
        ConfigError: A path cannot be used, or networks cannot be compared; all problems together.
    """
    names = short_names([target.path for target in arguments.targets])
    subjects: list[Subject] = []
    problems: list[Problem] = []
    for target, name in zip(arguments.targets, names, strict=True):
        try:
            subjects.append(_read(target, name, arguments))
        except SegError as error:
            problems += error.problems
    problems += [problem for subject in subjects[1:] for problem in _disagreements(subjects[0], subject)]
    if problems:
        raise ConfigError(problems)
    return tuple(subjects)


def short_names(paths: Sequence[Path]) -> list[str]:
    """Names each path by as many of its last parts as tell all of them apart; files without their ending."""
    parts = [path.resolve().with_suffix("").parts if path.is_file() else path.resolve().parts for path in paths]
    for count in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(one[-count:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    return [path.as_posix() for path in paths]


def _read(target: Target, name: str, arguments: BenchmarkArguments) -> Subject:
    if target.kind == "run_dir":
        runs = read_runs([target.path])
        if len(runs) > 1:
            raise RunError(
                Problem(
                    str(target.path),
                    "several",
                    "must be a single run",
                    f"{len(runs)} folds",
                    f"give one of them, such as {runs[0].path}",
                )
            )
        config, channels, classes = runs[0].config, runs[0].channel_names, runs[0].class_names
    else:
        config = load_config([target.path])
    if arguments.data_root is not None:
        config = replace(config, data=replace(config.data, root=str(arguments.data_root)))
    if target.kind == "config":
        if arguments.num_classes is None:
            dataset = read_configured(config.data)
            channels, classes = tuple(dataset.channel_names), tuple(dataset.class_names)
        else:
            channels = tuple(f"channel_{index}" for index in range(arguments.num_channels))
            classes = ("background", *(f"class_{index}" for index in range(1, arguments.num_classes)))
            if config.postprocessing != PostprocessingConfig():
                LOG.warning("%s: clean-up is left out, as --num_classes does not name the classes", name)
                config = replace(config, postprocessing=PostprocessingConfig())
    run_dir = target.path if target.kind == "run_dir" else None
    return Subject(name=name, config=config, channel_names=channels, class_names=classes, run_dir=run_dir)


def _disagreements(first: Subject, other: Subject) -> list[Problem]:
    """Lists why speeds of two networks cannot be compared."""
    pairs = (
        ("channels", first.ends[0], other.ends[0]),
        ("classes", first.ends[1], other.ends[1]),
        ("patches.size", first.config.patches.size, other.config.patches.size),
        ("patches.batch", first.config.patches.batch, other.config.patches.batch),
        ("training.accumulate", first.config.training.accumulate, other.config.training.accumulate),
    )
    return [
        Problem(
            f"{other.name}: {name}",
            "different",
            f"must be that of {first.name}, {ours}, to compare both",
            str(theirs),
            "measure each alone",
        )
        for name, ours, theirs in pairs
        if ours != theirs
    ]


def benchmark(arguments: BenchmarkArguments) -> Path:
    """Measures networks, prints the results, and writes them.

    Args:
        arguments: What to measure, and how.

    Returns:
        The JSON file.

    Raises:
        SegError: Nothing can be begun with these arguments, weights cannot be used, or a case cannot be predicted.
    """
    subjects = read_subjects(arguments)
    devices = _devices(arguments)
    name = SPEED_FILE if arguments.volume_shape is None else VOLUME_FILE
    output = arguments.output or (subjects[0].run_dir or Path()) / name
    if arguments.volume_shape is not None:
        volume = measure_volume(subjects[0], arguments.volume_shape, devices[0], spacing_mm=arguments.volume_spacing)
        print(volume_text(volume))
        write_json(output, {"schema_version": BENCHMARK_VERSION, "volume": volume})
    else:
        measured = []
        settings = Settings(rounds=arguments.rounds, warmup=arguments.warmup, images=_images(subjects[0], arguments))
        compared = [*subjects, *(_peers(subjects[0]) if arguments.peers else ())]
        for device in devices:
            measured.append(measure_device(compared, device, settings))
            print(device_tables(measured[-1]), end="\n\n")
        write_json(output, {"schema_version": BENCHMARK_VERSION, "devices": measured})
    print(f"results: {output}")
    return output


def _devices(arguments: BenchmarkArguments) -> list[torch.device]:
    devices = [device for device in present_devices() if arguments.device in ("all", device.type)]
    if not devices:
        raise ConfigError(
            Problem("--device", "unavailable", "must be available", "'cuda' without a GPU", "use all or cpu")
        )
    return devices


def _images(subject: Subject, arguments: BenchmarkArguments) -> list[tuple[Path, ...]]:
    if arguments.cases == 0:
        return []
    if arguments.num_classes is not None:
        LOG.warning("end to end: not measured, as --num_classes stands for a data set")
        return []
    try:
        return held_out_images(subject.config, arguments.cases)
    except SegError as error:
        for problem in error.sentences:
            LOG.warning("end to end: not measured: %s", problem)
        return []


def _peers(subject: Subject) -> list[Subject]:
    found, left_out = with_peers(subject)
    for problem in left_out:
        LOG.warning("%s", problem)
    return found
