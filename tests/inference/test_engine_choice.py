"""Which engine runs networks: what each can do; the fastest is measured once for a network and a machine, and said."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from seg.errors import ConfigError
from seg.inference import engine_choice
from seg.inference.arrays import HOST
from seg.inference.engine_choice import check_engine, fastest_engine, measure, possible_engines
from seg.inference.exported import ExportedRun
from seg.inference.model import Model
from seg.runs import TrainedRun, read_runs


@pytest.fixture
def runs(make_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[TrainedRun, ...]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return read_runs([make_run()])


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """Takes the place of the measurement, and notes what was measured."""
    seen: list[set[str]] = []

    def pretend(models: dict[str, Any], channels: int) -> dict[str, float]:
        seen.append(set(models))
        return {engine: 0.1 if engine == "openvino" else 0.2 for engine in models}

    monkeypatch.setattr(engine_choice, "measure", pretend)
    return seen


ENGINES: Any = ("torch", "openvino")


def choose(runs: tuple[TrainedRun, ...], engines: Any = ENGINES, **settings: str) -> str:
    return fastest_engine(engines, runs, lambda engine: [], **settings)


def test_an_engine_is_measured_once_and_said(
    runs: tuple[TrainedRun, ...], measured: list[set[str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "seg")
    assert [choose(runs), choose(runs)] == ["openvino", "openvino"]
    assert measured == [{"torch", "openvino"}]
    (file,) = (tmp_path / "cache" / "seg" / "engines").iterdir()
    assert [str(file) in message for message in caplog.messages] == [False, True, True]
    content = json.loads(file.read_text())
    assert content["seconds"] == {"torch": 0.2, "openvino": 0.1}
    assert runs[0].description()["weights_sha256"] in content["key"]["models"][0]


def test_of_a_single_engine_nothing_is_measured(
    runs: tuple[TrainedRun, ...], measured: list[set[str]], tmp_path: Path
) -> None:
    assert choose(runs, ("torch",)) == "torch"
    assert measured == []
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "change",
    ["version", "threads", "torch", "instruction sets", "settings", "weights", "window", "gpu", "damage", "content"],
)
def test_another_machine_version_or_network_is_measured_anew(
    change: str,
    runs: tuple[TrainedRun, ...],
    measured: list[set[str]],
    tmp_path: Path,
    make_run: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    choose(runs)
    (file,) = (tmp_path / "cache" / "seg" / "engines").iterdir()
    settings = {}
    if change == "version":
        monkeypatch.setattr(engine_choice, "package_version", lambda name: "9")
    elif change == "threads":
        monkeypatch.setattr(engine_choice, "usable_cores", lambda: 99)
    elif change == "torch":
        monkeypatch.setattr("torch.get_num_threads", lambda: 99)
    elif change == "instruction sets":
        monkeypatch.setattr(engine_choice, "instruction_sets", lambda: ["amx_int8"])
    elif change == "settings":
        settings = {"precision": "fp32"}
    elif change == "weights":
        runs = read_runs([make_run("other", seed=3)])
    elif change == "window":
        (run,) = runs
        config = replace(run.config, inference=replace(run.config.inference, window=(16, 16, 32)))
        runs = (replace(run, config=config),)
    elif change == "gpu":
        monkeypatch.setattr("torch.cuda.is_available", lambda: True)
        monkeypatch.setattr("torch.cuda.get_device_name", lambda: "a GPU")
    elif change == "damage":
        file.write_text("{")
    else:  # of another key under this name
        file.write_text(file.read_text().replace('"threads": ', '"threads": 1'))
    assert choose(runs, **settings) == "openvino"
    assert len(measured) == 2


def test_a_cache_that_cannot_be_written_costs_nothing_else(
    runs: tuple[TrainedRun, ...], measured: list[set[str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file")
    assert [choose(runs), choose(runs)] == ["openvino", "openvino"]
    assert len(measured) == 2
    assert any("not kept" in record.getMessage() for record in caplog.records if record.levelname == "WARNING")


def test_engines_are_timed_in_turns_on_windows_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[tuple[str, tuple[int, ...]]] = []
    clock = {"now": 0.0}
    monkeypatch.setattr(engine_choice, "time", SimpleNamespace(perf_counter=lambda: clock["now"]))

    def network(name: str, seconds: list[float]) -> Model:
        left = iter(seconds)

        def run(windows: Any) -> Any:
            order.append((name, windows.shape))
            clock["now"] += next(left)
            return np.zeros((*windows.shape[:1], 3, *windows.shape[2:]), np.float32)

        return Model(network=run, window=(4, 6, 8), batch=2, device=HOST)

    slow = [90.0, 3.0, 3.0, 30.0, 3.0, 3.0]  # the first is a warm-up, and one is disturbed
    found = measure({"torch": [network("torch", slow)], "openvino": [network("openvino", [1.0] * 6)] * 1}, 5)
    assert found == {"torch": 3.0, "openvino": 1.0}
    assert order == [("torch", (2, 5, 4, 6, 8)), ("openvino", (2, 5, 4, 6, 8))] * 6


def exported(run: TrainedRun, form: str) -> Any:
    given = {name: getattr(run, name) for name in ("path", "config", "channel_names", "class_names")}
    return ExportedRun(**given, record=SimpleNamespace(format=form))  # type: ignore[arg-type]


def test_engines_are_those_that_are_installed_and_read_every_network(
    runs: tuple[TrainedRun, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {"torch", "openvino", "onnxruntime", "onnx", "onnxscript"}
    monkeypatch.setattr("seg.inference.engines.find_spec", lambda name: name if name in there else None)
    monkeypatch.setattr(engine_choice, "package_version", lambda name: "1" if name in there else None)
    onnx, openvino = exported(runs[0], "onnx"), exported(runs[0], "openvino")
    assert possible_engines(runs) == ("torch", "openvino", "onnxruntime")
    assert possible_engines([onnx]) == ("openvino", "onnxruntime")
    assert possible_engines([onnx, openvino]) == possible_engines([runs[0], openvino]) == ("openvino",)
    there.discard("onnxscript")
    assert possible_engines(runs) == ("torch",)
    there.discard("openvino")
    assert possible_engines([onnx]) == ("onnxruntime",)
    with pytest.raises(ConfigError) as caught:
        possible_engines([openvino])
    assert [(problem.path, problem.kind) for problem in caught.value.problems] == [("--engine", "missing")]
    check_engine("onnxruntime", [onnx])
    for engine, run in (("torch", onnx), ("onnxruntime", openvino)):
        with pytest.raises(ConfigError) as caught:
            check_engine(engine, [run])  # type: ignore[arg-type]
        assert [(problem.path, problem.kind) for problem in caught.value.problems] == [("--engine", "format")]
