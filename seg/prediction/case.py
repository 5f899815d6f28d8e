"""One case from its files to a label map on the image's own grid, in three steps that may run in different threads."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from seg.config import DataConfig
from seg.data.geometry import Geometry
from seg.data.images import read_image
from seg.data.memory import check_memory
from seg.inference import Learnt, Model, Options, Prepared, segment
from seg.prediction.cleaning import CleaningRule, clean_labels
from seg.prediction.preparing import prepare
from seg.prediction.volumes import class_volumes

STAGES = ("read", "prepare", "network", "resample", "write")
"""Stages of a case. ``resample`` is all that makes labels of logits: blending, resampling, choice, clean-up."""
PROBABILITY_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """Trained networks and all that is needed to apply them to files.

    Attributes:
        models: Networks whose probabilities are averaged.
        data: How images are prepared.
        channel_names: Channels that an image must have.
        class_names: Classes, the background first.
        rules: Clean-up by class index.
        probabilities: Whether probabilities are kept.
        warnings: Sentences on what is other than asked for, in all cases.
        learnt: What cases taught about memory.
    """

    models: Sequence[Model]
    data: DataConfig
    channel_names: tuple[str, ...]
    class_names: tuple[str, ...]
    rules: dict[int, CleaningRule] = field(default_factory=dict)
    probabilities: bool = False
    warnings: tuple[str, ...] = ()
    learnt: Learnt = field(default_factory=Learnt)


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedCase:
    """A case that is ready for the network.

    Attributes:
        prepared: The network's input.
        geometry: The grid of the image's file.
        seconds: Time of the stages so far.
        warnings: Sentences on what is doubtful about the image.
    """

    prepared: Prepared
    geometry: Geometry
    seconds: dict[str, float]
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class PredictedCase:
    """A label map and what was noted on the way to it.

    Attributes:
        labels: Class indices (X, Y, Z) on the image's own grid.
        probabilities: Probabilities f32 (K, X, Y, Z), or None.
        geometry: That grid.
        seconds: Time per stage.
        warnings: Sentences on what went other than planned.
    """

    labels: npt.NDArray[Any]
    probabilities: npt.NDArray[Any] | None
    geometry: Geometry
    seconds: dict[str, float]
    warnings: tuple[str, ...]

    def volumes_ml(self, class_names: Sequence[str]) -> dict[str, float]:
        """Returns the volume of each foreground class, in ml."""
        return class_volumes(self.labels, self.geometry.voxel_ml, class_names)


def predict_case(predictor: Predictor, paths: Sequence[Path]) -> PredictedCase:
    """Segments one case.

    Args:
        predictor: What to segment with.
        paths: One file per channel, one 4-D file, or the folder of a DICOM series.

    Returns:
        The label map.

    Raises:
        DataError: A file cannot be read, or is no image that the networks take, or its probabilities would not fit in
            memory.
        RunError: Memory does not suffice for the networks.
    """
    return finish_case(predictor, segment_case(predictor, load_case(predictor, paths)))


def load_case(predictor: Predictor, paths: Sequence[Path]) -> LoadedCase:
    """Reads and prepares a case; see :func:`predict_case`."""
    start = time.perf_counter()
    image = read_image(paths, predictor.channel_names)
    middle = time.perf_counter()
    warnings = list(image.geometry.warnings)
    for name, values in zip(predictor.channel_names, image.array, strict=True):
        if values.min() == values.max():
            warnings.append(f"channel {name} must vary, got {values.flat[0]:g} in every voxel; check the file.")
    prepared = prepare(image, predictor.data)
    seconds = {"read": middle - start, "prepare": time.perf_counter() - middle}
    return LoadedCase(prepared=prepared, geometry=image.geometry, seconds=seconds, warnings=tuple(warnings))


def segment_case(predictor: Predictor, loaded: LoadedCase) -> PredictedCase:
    """Applies the networks to a case; see :func:`predict_case`."""
    if predictor.probabilities:
        classes, shape = len(predictor.class_names), loaded.prepared.target.shape
        check_memory(
            f"probabilities of {classes} classes on the scan's grid of {' x '.join(map(str, shape))} voxels",
            PROBABILITY_BYTES * classes * math.prod(shape),
            remedy="leave --probabilities out, crop the scan or take a machine with more",
        )
    start = time.perf_counter()
    done = segment(predictor.models, loaded.prepared, Options(probabilities=predictor.probabilities), predictor.learnt)
    network = done.seconds["network"]
    seconds = {**loaded.seconds, "network": network, "resample": time.perf_counter() - start - network}
    return PredictedCase(
        labels=done.labels,
        probabilities=done.probabilities,
        geometry=loaded.geometry,
        seconds=seconds,
        warnings=(*loaded.warnings, *done.warnings),
    )


def finish_case(predictor: Predictor, predicted: PredictedCase) -> PredictedCase:
    """Cleans a label map up, in place; see :func:`predict_case`."""
    start = time.perf_counter()
    removed = clean_labels(predicted.labels, predictor.rules, predicted.geometry.voxel_ml)
    predicted.seconds["resample"] += time.perf_counter() - start
    notes = tuple(
        f"clean-up removed {volume:.3g} ml of class {predictor.class_names[index]}."
        for index, volume in removed.items()
        if volume > 0
    )
    return replace(predicted, warnings=predicted.warnings + notes)
