"""The whole way from a command to tables and ``benchmark.json``."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from seg.benchmark.measure import Settings, measure_device, present_devices
from seg.benchmark.prediction import held_out_images, measure_volume, volume_text
from seg.benchmark.subjects import Subject, with_peers
from seg.benchmark.table import device_tables
from seg.benchmark.targets import BenchmarkArguments, read_subjects
from seg.errors import ConfigError, SegError
from seg.files import write_json

LOG = logging.getLogger(__name__)
BENCHMARK_VERSION = 1
SPEED_FILE, VOLUME_FILE = "benchmark.json", "benchmark_volume.json"


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
        raise ConfigError("--device must be available, got 'cuda' without a GPU; use all or cpu.")
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
