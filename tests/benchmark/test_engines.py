"""Speed in other engines than torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seg.benchmark import engines
from seg.benchmark.engines import measure_engine
from seg.benchmark.measure import Settings
from seg.benchmark.subjects import Subject
from seg.benchmark.table import device_tables
from seg.errors import ConfigError
from seg.inference.engines import ExportedNetwork, has_bf16

pytest.importorskip("openvino", reason="an engine that is measured")
pytest.importorskip("onnxruntime", reason="an engine that is measured")
pytestmark = pytest.mark.usefixtures("exports_kept")


@pytest.mark.parametrize(("engine", "precision"), [("openvino", "fp32"), ("openvino", "bf16"), ("onnxruntime", "fp32")])
def test_networks_are_measured_in_an_engine_with_the_threads_of_torch(
    subject: Subject, narrow: Subject, monkeypatch: pytest.MonkeyPatch, engine: Any, precision: Any
) -> None:
    made = []

    def noted(file: Path, name: str, *, precision: Any, threads: int) -> Callable[[np.ndarray], np.ndarray]:
        made.append((name, precision, threads))
        return ExportedNetwork(file, name, precision=precision, threads=threads)

    monkeypatch.setattr("seg.inference.export.ExportedNetwork", noted)
    if precision == "bf16" and not has_bf16(engine):
        pytest.skip("this processor has no bf16")
    entry = measure_engine([subject, narrow], engine, Settings(rounds=3, warmup=1), precision)
    assert made == [(engine, precision, torch.get_num_threads())] * 2
    assert (entry["engine"], entry["precision"], entry["baseline"]) == (engine, precision, "full")
    full, small = entry["variants"]
    assert full["latency_ratio"] == full["throughput_ratio"] == {"median": 1.0, "q1": 1.0, "q3": 1.0}
    for row in (full, small):
        assert row["precision"] == precision
        assert 0 < row["latency_ms"]["q1"] <= row["latency_ms"]["median"] <= row["latency_ms"]["q3"]
        assert row["throughput_voxels_per_s"]["median"] > 0
    assert small["configuration"] == narrow.fingerprint()
    said = device_tables(entry)
    assert f"{engine} {entry['engine_version']}" in said
    assert "training" not in said  # which it does not do


def test_an_engine_of_another_distribution_is_measured_too(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    version = metadata.version

    def absent(name: str) -> str:
        if name == "onnxruntime":  # where onnxruntime-gpu brought it
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr("importlib.metadata.version", absent)
    entry = measure_engine([subject], "onnxruntime", Settings(rounds=3, warmup=1))
    assert entry["engine_version"] is None
    assert "None" not in device_tables(entry)


def test_throughput_is_by_voxel(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = replace(subject.config, patches=replace(subject.config.patches, size=(16, 8, 8)))
    times = {"full": (1.0, 1.0, 1.0), "wide": (1.0, 1.0, 1.0)}
    monkeypatch.setattr(engines, "interleave", lambda calls, timer, **_: times)
    entry = measure_engine([subject, replace(subject, name="wide", config=wide)], "onnxruntime", Settings(rounds=3))
    full, other = entry["variants"]
    assert full["throughput_voxels_per_s"]["median"] == subject.config.patches.batch * 8**3
    assert other["throughput_ratio"]["median"] == 2


def test_an_engine_that_is_not_installed_is_named(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seg.inference.engines.is_installed", lambda engine: False)
    with pytest.raises(ConfigError) as error:
        measure_engine([subject], "openvino", Settings(rounds=3))
    assert (error.value.problems[0].kind, error.value.problems[0].path) == ("missing", "--engine")


def test_an_engine_that_is_not_installed_is_not_asked_for_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seg.inference.engines.is_installed", lambda engine: False)
    monkeypatch.setattr("seg.inference.engines.openvino_core", lambda: pytest.fail("imported"))
    assert not has_bf16("openvino")
