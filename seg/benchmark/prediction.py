"""Prediction from file to file, and the cases that it is measured on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from seg.benchmark.step import Place
from seg.benchmark.subjects import Subject
from seg.config import ExperimentConfig
from seg.data.cases import Case
from seg.data.prepare import read_image
from seg.data.readers import read_folds
from seg.data.splits import spread_over
from seg.errors import RunError, SegError
from seg.inference.cases import FAILED, OUTPUT_ENDING, Record, Source
from seg.inference.cleaning import cleaning_rules
from seg.inference.model import model_from_config
from seg.inference.pipeline import Line
from seg.inference.predictor import Predictor

LOG = logging.getLogger(__name__)


class FilePrediction:
    """A call segments cases as ``predict.py`` does, from their files to label maps on disk; start-up is not part of it.

    Args:
        subject: What to segment with.
        network: Its network, in evaluation mode on the place.
        place: Where to compute.
        images: Files of each case.
        folder: Where label maps go; those of the call before are replaced.
    """

    def __init__(
        self, subject: Subject, network: nn.Module, place: Place, images: Sequence[tuple[Path, ...]], folder: Path
    ) -> None:
        config = subject.config
        self._predictor = Predictor(
            models=[model_from_config(network, config, device=place.device, precision=place.precision)],
            data=config.data,
            channel_names=subject.channel_names,
            class_names=subject.class_names,
            rules=cleaning_rules(config.postprocessing, subject.class_names),
        )
        self._sources = [
            Source(name=str(index), paths=paths, output=folder / f"{index}{OUTPUT_ENDING}")
            for index, paths in enumerate(images)
        ]

    def __call__(self) -> None:
        """Segments the cases.

        Raises:
            RunError: One of them failed.
        """
        Line(self._predictor, self._sources, _check).run()


def _check(source: Source, record: Record) -> None:
    if record.status == FAILED:
        raise RunError(record.problems)


def held_out_images(config: ExperimentConfig, count: int, *, fold: int | None = None) -> list[tuple[Path, ...]]:
    """Finds images to measure prediction on: held-out cases at even distances in the order of their names.

    Args:
        config: The experiment, for its data set and folds.
        count: Largest number of cases.
        fold: The fold; None is that of the experiment.

    Returns:
        Files of each case. Cases whose image cannot be read are left out and named.

    Raises:
        DataError: The data set or its folds cannot be read.
        RunError: There is no such fold.
    """
    dataset, splits = read_folds(config.data)
    number = config.fold if fold is None else fold
    if number >= len(splits):
        raise RunError(
            f"fold must be below {len(splits)}, the number of folds of {config.data.root}, got {number}; choose "
            "another."
        )
    by_id = {case.id: case for case in dataset.cases}
    chosen = [by_id[case_id] for case_id in spread_over(sorted(splits[number].validation), count)]
    return [case.images for case in chosen if _is_readable(case, dataset.channel_names)]


def _is_readable(case: Case, channel_names: Sequence[str]) -> bool:
    try:
        read_image(case.images, channel_names)
    except SegError as error:
        for problem in error.sentences:
            LOG.warning("left out of the measurement: %s", problem)
        return False
    return True
