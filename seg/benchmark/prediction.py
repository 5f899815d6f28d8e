"""Prediction from file to file: the time over several cases, and time and memory of one large volume."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from seg.benchmark.subjects import Runtime, Subject
from seg.config import DataConfig, ExperimentConfig
from seg.data.cases import Case
from seg.data.datasets import read_folds
from seg.data.geometry import geometry_of_affine
from seg.data.memory import check_memory
from seg.data.prepare import read_image
from seg.data.splits import spread_over
from seg.data.volumes import write_maps
from seg.errors import Problem, RunError, SegError
from seg.hardware import MIB, PeakMemory, environment, held_mib, trim_heap
from seg.inference.cases import FAILED, OUTPUT_ENDING, Record, Source
from seg.inference.model import model_from_config
from seg.inference.pipeline import Pipeline
from seg.inference.predictor import predictor_of
from seg.inference.segmentation import label_bytes

LOG = logging.getLogger(__name__)
FLOAT_BYTES = 4
GREY_VALUES = 1000


class FilePrediction:
    """Segments cases as ``seg predict`` does, from their files to label maps on disk, each time it is called.

    Loading the network is not part of a call.

    Args:
        subject: The network's experiment.
        network: Its network, in evaluation mode where it computes.
        runtime: Where to compute.
        images: Files of each case.
        folder: Where label maps go; those of the call before are replaced.
    """

    def __init__(
        self, subject: Subject, network: nn.Module, runtime: Runtime, images: Sequence[tuple[Path, ...]], folder: Path
    ) -> None:
        model = model_from_config(network, subject.config, device=runtime.device, precision=runtime.precision)
        self._predictor = predictor_of(subject.run, [model])
        self._sources = [
            Source(name=str(index), paths=paths, output=folder / f"{index}{OUTPUT_ENDING}")
            for index, paths in enumerate(images)
        ]

    def __call__(self) -> None:
        """Segments all cases once.

        Raises:
            RunError: A case failed.
        """
        Pipeline(self._predictor, self._sources, _check).run()


def _check(source: Source, record: Record) -> None:
    if record.status == FAILED:
        raise RunError(record.problems)


def held_out_images(config: ExperimentConfig, count: int, *, fold: int | None = None) -> list[tuple[Path, ...]]:
    """Finds images to measure prediction on: held-out cases at even distances in the order of their names.

    Args:
        config: The experiment, for its data set and folds.
        count: Largest number of cases.
        fold: The fold; None is that of the experiment, the first for a final model.

    Returns:
        Files of each case. Cases whose image cannot be read are left out and named.

    Raises:
        SegError: The data set or its folds cannot be read, or there is no such fold.
    """
    dataset, splits = read_folds(config.data)
    number = (config.fold or 0) if fold is None else fold
    if number >= len(splits):
        rule = f"must be below {len(splits)}, the number of folds of {config.data.root}"
        raise RunError(Problem("fold", "range", rule, str(number), "choose another"))
    by_id = {case.id: case for case in dataset.cases}
    chosen = [by_id[case_id] for case_id in spread_over(sorted(splits[number].validation), count)]
    return [case.images for case in chosen if _is_readable(case, dataset.channel_names, config.data)]


def _is_readable(case: Case, channel_names: Sequence[str], data: DataConfig) -> bool:
    try:
        read_image(case.images, channel_names, fill=data.nan == "background")
    except SegError as error:
        for problem in error.sentences:
            LOG.warning("left out of the measurement: %s", problem)
        return False
    return True


def measure_volume(
    subject: Subject,
    shape: tuple[int, int, int],
    device: torch.device,
    *,
    spacing_mm: tuple[float, float, float] | None = None,
) -> dict[str, Any]:
    """Segments a synthetic volume and returns the time and the memory that the prediction took.

    Args:
        subject: The network.
        shape: Voxels of the volume (X, Y, Z).
        device: Where to compute.
        spacing_mm: Voxel size of the volume; None is that of the network, which then resamples nothing.

    Returns:
        Seconds; resident memory at the start, with the network loaded, and the most beyond it; the image in 32-bit
        floats and the label map, in MiB; and what the peak leaves beyond these two. Memory of a GPU comes beside it.

    Raises:
        RunError: The volume cannot be predicted.
    """
    runtime = subject.runtime(device)
    own = subject.config.data.spacing_mm
    spacing = spacing_mm or own or (1.0, 1.0, 1.0)
    gpu = device.type == "cuda"
    needed = prod(shape) * (subject.ends[0] * FLOAT_BYTES + 1)
    check_memory("--volume_shape", needed, remedy="give fewer voxels")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.nii.gz"
        write_volume(path, shape, subject.ends[0], spacing_mm=spacing)
        predict = FilePrediction(subject, runtime.put(subject.network()), runtime, [(path,)], Path(folder) / "labels")
        trim_heap()
        start, peak = held_mib(), PeakMemory(gpu=False)
        on_gpu = PeakMemory(gpu=True) if gpu else None
        begun = time.perf_counter()
        predict()
        seconds = time.perf_counter() - begun
        most = peak.mib()
    about = environment(device, runtime.precision)
    image = prod(shape) * subject.ends[0] * FLOAT_BYTES / MIB
    labels = prod(shape) * label_bytes(subject.ends[1]) / MIB
    beyond = None if most is None or start is None else most - start
    return {
        "network": subject.name,
        "device": about["device"],
        "kind": device.type,
        "threads": torch.get_num_threads(),
        "precision": runtime.precision,
        "environment": about,
        "volume_shape": list(shape),
        "volume_spacing_mm": list(spacing),
        "network_spacing_mm": list(own or spacing),
        "num_channels": subject.ends[0],
        "num_classes": subject.ends[1],
        "seconds": seconds,
        "start_mib": start,
        "peak_beyond_start_mib": beyond,
        "image_mib": image,
        "labels_mib": labels,
        "beyond_image_and_labels_mib": None if beyond is None else beyond - image - labels,
        "peak_memory_gpu_mib": on_gpu.mib() if on_gpu is not None else None,
    }


def write_volume(
    path: Path, shape: tuple[int, int, int], channels: int, *, spacing_mm: tuple[float, float, float]
) -> None:
    """Writes an image of noise, the same in every plane along Z, so that writing needs the memory of one plane."""
    plane = np.random.default_rng(0).integers(0, GREY_VALUES, (channels, *shape[:2], 1)).astype(np.float32)
    affine = np.diag([*spacing_mm, 1.0])
    maps = np.broadcast_to(plane, (channels, *shape))
    write_maps(path, maps, geometry_of_affine(shape, affine))
