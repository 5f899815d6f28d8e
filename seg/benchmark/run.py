"""The whole way from paths of runs and experiments to tables and ``benchmark.json``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import AliasChoices, BaseModel, Field

from seg.benchmark.engines import measure_engine
from seg.benchmark.measure import Settings, measure_device, present_devices
from seg.benchmark.plan import PlanName, make_plan, run_plan
from seg.benchmark.prediction import held_out_images, measure_volume
from seg.benchmark.subjects import Subject, with_peers
from seg.benchmark.table import device_tables, volume_text
from seg.config import PostprocessingConfig, Precision, load_config
from seg.data.datasets import read_configured
from seg.errors import ConfigError, Problem, SegError
from seg.files import check_writable, read_json, real_path, write_json
from seg.inference.engines import Engine, has_bf16
from seg.runs import read_run

LOG = logging.getLogger(__name__)
BENCHMARK_VERSION = 1
DeviceChoice = Literal["all", "cpu", "cuda"]
SPEED_FILE, VOLUME_FILE = "benchmark.json", "benchmark_volume.json"


class _Result(BaseModel, extra="forbid"):
    """The content of a file that :func:`benchmark` writes."""

    measured: list[dict[str, Any]] | dict[str, Any] = Field(validation_alias=AliasChoices("devices", "volume"))


def read_subjects(
    targets: Sequence[Path], *, data_root: Path | None = None, num_channels: int = 1, num_classes: int | None = None
) -> tuple[Subject, ...]:
    """Reads the networks to measure, without their weights; see :func:`benchmark`.

    Raises:
        ConfigError: A path cannot be used, or networks cannot be compared; all problems together.
    """
    subjects: list[Subject] = []
    problems: list[Problem] = []
    for target, name in zip(targets, short_names(targets), strict=True):
        try:
            if target.is_dir():
                subjects.append(_of_run(target, name, data_root))
            else:
                subjects.append(_of_config(target, name, data_root, num_channels, num_classes))
        except SegError as error:
            problems += error.problems
    problems += [problem for subject in subjects[1:] for problem in _disagreements(subjects[0], subject)]
    if problems:
        raise ConfigError(problems)
    return tuple(subjects)


def short_names(paths: Sequence[Path]) -> list[str]:
    """Names each path by as many of its last parts as tell all of them apart; files without their ending."""
    parts = [(real_path(path).with_suffix("") if path.is_file() else real_path(path)).parts for path in paths]
    for count in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(one[-count:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    return [path.as_posix() for path in paths]


def _of_run(path: Path, name: str, data_root: Path | None) -> Subject:
    run = read_run(path)
    config = run.config
    if data_root is not None:
        config = replace(config, data=replace(config.data, root=str(data_root)))
    return Subject(name=name, config=config, channel_names=run.channel_names, class_names=run.class_names, run_dir=path)


def _of_config(path: Path, name: str, data_root: Path | None, num_channels: int, num_classes: int | None) -> Subject:
    config = load_config([path], {} if data_root is None else {"data.root": str(data_root)})
    if num_classes is None:
        dataset = read_configured(config.data)
        channels, classes = tuple(dataset.channel_names), tuple(dataset.class_names)
    else:
        channels = tuple(f"channel_{index}" for index in range(num_channels))
        classes = ("background", *(f"class_{index}" for index in range(1, num_classes)))
        if config.postprocessing != PostprocessingConfig():
            LOG.warning("%s: clean-up is left out, as --num_classes does not name the classes", name)
            config = replace(config, postprocessing=PostprocessingConfig())
    return Subject(name=name, config=config, channel_names=channels, class_names=classes)


def _disagreements(first: Subject, other: Subject) -> list[Problem]:
    """Lists why speeds of two networks cannot be compared."""
    pairs = (
        ("channels", first.ends[0], other.ends[0]),
        ("classes", first.ends[1], other.ends[1]),
        ("patches.size", first.config.patches.size, other.config.patches.size),
        ("patches.batch", first.config.patches.batch, other.config.patches.batch),
        ("training.accumulate", first.config.training.accumulate, other.config.training.accumulate),
    )
    rule, remedy = "must be that of {first}, {ours}, to compare both", "measure each alone"
    return [
        Problem(f"{other.name}: {name}", "different", rule.format(first=first.name, ours=ours), str(theirs), remedy)
        for name, ours, theirs in pairs
        if ours != theirs
    ]


def benchmark(
    targets: Sequence[Path],
    *,
    peers: bool = False,
    engines: Sequence[Engine] = (),
    rounds: int = Settings.rounds,
    warmup: int = Settings.warmup,
    cases: int = 8,
    device: DeviceChoice = "all",
    data_root: Path | None = None,
    num_channels: int = 1,
    num_classes: int | None = None,
    volume_shape: tuple[int, int, int] | None = None,
    volume_spacing: tuple[float, float, float] | None = None,
    output: Path | None = None,
) -> Path:
    """Measures networks, prints the results, and writes them.

    Args:
        targets: Run directories and YAML files of experiments, the baseline first.
        peers: Whether networks of MONAI are measured beside the first.
        engines: Engines beside torch in which a forward pass is measured on the processor.
        rounds: Timed rounds, in each of which each network is measured once, >= 3.
        warmup: Untimed rounds before, >= 1.
        cases: Largest number of held-out cases whose prediction is timed, >= 0.
        device: Where to measure.
        data_root: Folder of the data set; None is that of the experiment.
        num_channels: Channels of an image, where no data set is read.
        num_classes: Classes of the networks of YAML files, background included; None reads the data set.
        volume_shape: Voxels (X, Y, Z) of a volume whose prediction is measured in place of speed.
        volume_spacing: Its voxel size in mm; None is that of the network.
        output: JSON file of the results, replaced where it holds such; None is the default one.

    Returns:
        The JSON file.

    Raises:
        SegError: Nothing can be begun with these arguments, weights cannot be used, or a case cannot be predicted. A
            file that cannot be written or is no result of this function is named before anything is measured.
    """
    subjects = read_subjects(targets, data_root=data_root, num_channels=num_channels, num_classes=num_classes)
    devices = _devices(device)
    output = output or (subjects[0].run_dir or Path()) / (SPEED_FILE if volume_shape is None else VOLUME_FILE)
    check_writable(output.parent, given=output)
    if output.exists():
        read_json(output, _Result, newest=BENCHMARK_VERSION, remedy="name another file by --output")
    if volume_shape is not None:
        volume = measure_volume(subjects[0], volume_shape, devices[0], spacing_mm=volume_spacing)
        print(volume_text(volume))
        write_json(output, {"schema_version": BENCHMARK_VERSION, "volume": volume})
    else:
        measured: list[dict[str, Any]] = []
        images = _images(subjects[0], cases, known=num_classes is None)
        settings = Settings(rounds=rounds, warmup=warmup, images=images)
        compared = [*subjects, *(with_peers(subjects[0]) if peers else ())]
        # Engines first: training on a processor changes how this process keeps memory from then on.
        for measure in (
            *(
                partial(measure_engine, subjects, engine, settings, precision)
                for engine in engines
                for precision in _precisions(engine, subjects[0])
            ),
            *(partial(measure_device, compared, one, settings) for one in devices),
        ):
            measured.append(measure())
            print(device_tables(measured[-1]), end="\n\n")
        write_json(output, {"schema_version": BENCHMARK_VERSION, "devices": measured})
    print(f"results: {output}")
    return output


def _precisions(engine: Engine, baseline: Subject) -> tuple[Precision, ...]:
    """Returns the precisions to measure an engine in: fp32, and bf16 where torch computes in bf16 here."""
    in_bf16 = baseline.runtime(torch.device("cpu")).precision == "bf16"
    return ("fp32", "bf16") if in_bf16 and has_bf16(engine) else ("fp32",)


def benchmark_plan(
    name: PlanName,
    experiment: Path | None,
    *,
    device: DeviceChoice = "all",
    data_root: Path | None = None,
    output: Path | None = None,
) -> Path:
    """Runs a plan of measurements on the first GPU, or on the processor where there is none.

    Args:
        name: Which plan.
        experiment: YAML file of what is trained at the end; None trains nothing.
        device: Where to measure.
        data_root: Folder of its data set; None is that of the experiment.
        output: JSON file, written after each section; None is ``benchmark_NAME.json`` in the current folder.

    Returns:
        The JSON file.

    Raises:
        SegError: The device, the experiment or the file cannot be used.
    """
    first, training = _devices(device)[0], None
    if experiment is not None:
        training = load_config([experiment], {} if data_root is None else {"data.root": str(data_root)})
    output = output or Path(f"benchmark_{name}.json")
    found = run_plan(make_plan(name, training), first, output)
    for section, reason in found["not_measured"].items():
        print(f"{section}: not measured: {reason}")
    print(f"results: {output}")
    return output


def _devices(wanted: DeviceChoice) -> list[torch.device]:
    """Returns the devices of this machine that are of the wanted kind, GPUs first.

    Raises:
        ConfigError: A GPU is asked for and there is none.
    """
    devices = [one for one in present_devices() if wanted in ("all", one.type)]
    if not devices:
        rule = "must be available"
        raise ConfigError(Problem("--device", "unavailable", rule, "'cuda' without a GPU", "use all or cpu"))
    return devices


def _images(subject: Subject, cases: int, *, known: bool) -> list[tuple[Path, ...]]:
    if cases == 0:
        return []
    if not known:
        LOG.warning("end to end: not measured, as --num_classes stands for a data set")
        return []
    try:
        return held_out_images(subject.config, cases)
    except SegError as error:
        for problem in error.sentences:
            LOG.warning("end to end: not measured: %s", problem)
        return []
