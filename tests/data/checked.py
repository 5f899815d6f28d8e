"""Errors of a single case."""

from __future__ import annotations

from pathlib import Path

from seg.data.cases import Dataset
from seg.data.checks import check_dataset


def errors_of(case, *, channels=1, classes=3, ignore_label=None):
    dataset = Dataset(
        name="tiny",
        root=Path(),
        layout="msd",
        cases=(case,),
        class_names=tuple(f"class_{index}" for index in range(classes)),
        channel_names=tuple(f"channel_{index}" for index in range(channels)),
        ignore_label=ignore_label,
        licence="CC0",
    )
    return [problem for report in check_dataset(dataset, progress=False) for problem in report.errors]
