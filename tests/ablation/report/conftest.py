"""Studies with their reports, written once."""

from __future__ import annotations

from pathlib import Path

import pytest

from seg.ablation.report import write_report
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
    return write_report(make_study(tmp_path_factory.mktemp("whole"))).parent


@pytest.fixture(scope="session")
def partial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with gaps, and its report; to be read."""
    return write_report(make_study(tmp_path_factory.mktemp("partial"), GAPS)).parent
