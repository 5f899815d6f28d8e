"""Peak memory of a pass in an engine: of a block of known size, and of networks whose maps have known sizes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from seg.benchmark.subjects import Runtime
from seg.benchmark.timing import Call
from seg.compression import memory
from seg.compression.memory import measure_memory, peak_of_passes
from seg.config import ExperimentConfig, NetworkConfig, PatchConfig, TrainingConfig
from seg.inference.export import write_network
from seg.runs import TrainedRun, read_run
from tests.inference.conftest import write_run
from tests.memory import block

CONFIG = ExperimentConfig(
    patches=PatchConfig(size=(48, 48, 48), batch=1),
    network=NetworkConfig(channels=(4, 4), strides=((1, 1, 1), (2, 2, 2)), kernel_sizes=((3, 3, 3), (3, 3, 3))),
    training=TrainingConfig(device="cpu", precision="fp32"),
)


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, Path]:
    """Runs of networks with 4 and with 20 channels at full resolution, by these numbers."""
    return {
        str(channels): write_run(
            tmp_path / str(channels), config=replace(CONFIG, network=replace(CONFIG.network, channels=(channels, 4)))
        )
        for channels in (4, 20)
    }


def test_the_most_over_the_passes_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def passes(*_: object, **__: object) -> Iterator[tuple[dict[str, Call], Runtime]]:
        mapped = iter([60, 20])
        yield {"": lambda: block(next(mapped)).close()}, Runtime(device=torch.device("cpu"), precision="fp32")

    monkeypatch.setattr(memory, "passes", passes)
    found = peak_of_passes(
        Path(),
        TrainedRun(path=Path(), config=CONFIG, channel_names=("MRI",), class_names=("background", "box")),
        "openvino",
        False,
    )
    assert found is not None
    assert 55 < found < 90


def test_a_map_takes_memory_by_its_size_and_the_code_of_libraries_takes_none(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    for run in runs.values():
        write_network(read_run(run).network(), CONFIG.patches.size, run / "network.onnx", "onnx")
    script = tmp_path / "script.py"
    # A script without a guard runs once.
    script.write_text(
        "import json, sys\n"
        "from pathlib import Path\n"
        "from seg.compression.memory import measure_memory\n"
        "runs = {name: Path(path) for name, path in json.loads(sys.argv[1]).items()}\n"
        "files = {name: path / 'network.onnx' for name, path in runs.items()}\n"
        "for engine, networks in (('torch', runs), ('openvino', files)):\n"
        "    print(json.dumps(measure_memory(networks, runs['4'], engine=engine, patch=(48, 48, 48))))\n"
    )
    command = [sys.executable, str(script), json.dumps({name: str(path) for name, path in runs.items()})]
    lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    assert len(lines) == 2
    of_a_channel = 48**3 * 4 / 2**20
    for found in map(json.loads, lines):
        # A convolution at full resolution reads one map and writes another.
        assert found["20"] - found["4"] > 2 * 16 * of_a_channel
        assert found["4"] < 16 * 4 * of_a_channel  # code alone would be 24 to 60 MiB


def test_a_process_that_fails_leaves_the_figure_open(
    runs: dict[str, Path], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    networks = {"there": runs["4"], "absent": tmp_path / "absent"}
    found = measure_memory(networks, runs["4"], engine="torch", patch=CONFIG.patches.size)
    assert found["absent"] is None
    assert found["there"] is not None
    assert [record.message.split(":")[0] for record in caplog.records] == ["absent"]


@pytest.mark.parametrize("name", ["held_mib", "PeakMemory"])
def test_a_system_that_does_not_tell_leaves_all_figures_open(
    runs: dict[str, Path], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(memory, name, lambda **_: SimpleNamespace(mib=lambda: None) if name == "PeakMemory" else None)
    monkeypatch.setattr(memory.subprocess, "run", None)  # no process is started
    assert measure_memory(runs, runs["4"], engine="torch", patch=CONFIG.patches.size) == {"4": None, "20": None}
    assert len(caplog.records) == 1


@pytest.mark.parametrize("start", ["raise OSError", "print('no JSON')", "pass", "import os; os._exit(9)"])
def test_a_process_without_an_answer_leaves_all_figures_open(
    runs: dict[str, Path], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, start: str
) -> None:
    monkeypatch.setattr(memory, "START", start)
    assert measure_memory(runs, runs["4"], engine="torch", patch=CONFIG.patches.size) == {"4": None, "20": None}
    assert len(caplog.records) == 1
