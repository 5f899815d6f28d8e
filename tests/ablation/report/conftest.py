"""Studies with their reports, written once."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from seg.ablation.report import write_report
from seg.evaluation.scores import read_cases
from tests.ablation.report.studies import Made, make_study

GAPS = Made(
    absent=("flat_16.fold_0.seed_2", *(f"skip_1-16.fold_0.seed_{seed}" for seed in range(3))),
    failed=("decoder_1-4.fold_0.seed_1",),
    unmeasured=("flat_16",),
)
"""Three trials of one variant and one of another were not run, one failed, one variant has no speed on the GPU."""


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with every record but file-to-file times on the GPU, and its report; to be read."""
    folder = make_study(tmp_path_factory.mktemp("whole"))
    write_report(folder)
    return folder


@pytest.fixture(scope="session")
def partial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with gaps, and its report; to be read."""
    folder = make_study(tmp_path_factory.mktemp("partial"), GAPS)
    write_report(folder)
    return folder


def value(folder: Path, variant: str, metric: str, **where: str) -> dict[str, str]:
    """Returns the one row of an estimate; columns that are not named are empty."""
    wanted = {"class_index": "", "place": "", "device": "", **where}
    with (folder / "results.csv").open(newline="") as file:
        (row,) = [
            row
            for row in csv.DictReader(file)
            if (row["variant"], row["metric"]) == (variant, metric) and all(row[k] == v for k, v in wanted.items())
        ]
    return row


def dice(folder: Path, variant: str, seeds: tuple[int, ...] = (0, 1, 2)) -> np.ndarray:
    """Reads Dice from the records, of shape (seeds, cases, classes), without the report's code."""
    values = []
    for seed in seeds:
        scores = read_cases(folder / "trials" / f"{variant}.fold_0.seed_{seed}")
        values.append([[s.scores.dice for s in scores if s.class_index == index] for index in (1, 2)])
    return np.array(values).transpose(0, 2, 1)
