"""Cases that cannot be prepared are named."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from seg.config import DataConfig
from seg.data import prepared
from seg.data.prepared import PreparedDataset
from seg.data.readers import read_dataset
from seg.errors import RunError


@pytest.mark.parametrize("kind", ["memory", "disk", "none"])
def test_cases_that_would_not_fit_are_named_before_any_is_prepared(
    msd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    dataset = read_dataset(msd)
    monkeypatch.setattr(prepared, "available_bytes", lambda: 1 << 30)
    monkeypatch.setattr(prepared, "preparation", None)
    config = DataConfig(cache=kind, spacing_mm=(0.001, 0.001, 0.001))  # type: ignore[arg-type]
    with pytest.raises(RunError) as caught:
        PreparedDataset(dataset, dataset.cases, config, tmp_path)
    expected = []
    for case in dataset.cases:
        header = prepared.read_header(case.images[0])
        voxels = math.prod(header.shape[:3]) * math.prod(header.spacing_mm) * 1e9
        expected.append(
            f"case {case.id}: prepared at data.spacing_mm [0.001, 0.001, 0.001] it must fit in memory, got "
            f"{5 * voxels / 2**30:.3g} GiB with 1 GiB available; choose larger voxels, crop it or take a machine with "
            "more."
        )
    assert list(caught.value.sentences) == expected


def test_a_voxel_size_next_to_nothing_is_refused(msd: Path, tmp_path: Path) -> None:
    dataset = read_dataset(msd)
    with pytest.raises(RunError, match=r"^case a: prepared at data\.spacing_mm .* it must fit in memory, got inf GiB"):
        PreparedDataset(dataset, dataset.cases, DataConfig(spacing_mm=(1e-200, 1e-200, 1e-200)), tmp_path)


@pytest.mark.parametrize("kind", ["memory", "disk", "none"])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "no memory left"),
        (np.exceptions.AxisError(3), None),  # a fault of the program keeps its traceback
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory\nframes"),
            "DefaultCPUAllocator: can't allocate memory",
        ),
    ],
)
def test_a_case_that_cannot_be_prepared_is_named(
    msd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, error: Exception, reason: str | None
) -> None:
    def fails(self: object, data: object) -> dict[str, torch.Tensor]:
        raise error

    monkeypatch.setattr(prepared.Plain, "__call__", fails)
    dataset = read_dataset(msd)
    with pytest.raises(RuntimeError if reason is None else RunError) as caught:
        PreparedDataset(dataset, dataset.cases[:1], DataConfig(cache=kind), tmp_path)[0]  # type: ignore[arg-type]
    if reason is not None:
        assert str(caught.value) == (
            "case a: must be prepared with data.spacing_mm and data.normalization as given, got "
            f"'{reason}'; correct these or the files of the case."
        )
