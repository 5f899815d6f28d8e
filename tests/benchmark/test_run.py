"""The whole command: a table, a file, and what is said where something is not measured."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from seg.benchmark import measure
from seg.benchmark.memory import Peaks
from seg.benchmark.run import benchmark
from seg.benchmark.subjects import Subject
from seg.benchmark.table import device_tables
from seg.cli import read_command
from seg.config import dump_config
from seg.errors import ConfigError

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmark.py"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the time of calls once each, and no memory."""
    timer = measure.Timer
    monkeypatch.setattr(measure, "measure_peaks", lambda own, place: Peaks(inference_mib=None, training_mib=2048.0))
    monkeypatch.setattr(measure, "Timer", lambda wait: timer(wait=wait, least_seconds=0))


def go(*argv: object) -> dict[str, Any]:
    words = ["--device", "cpu", "--rounds", "3", "--warmup", "1", *map(str, argv)]
    path = benchmark(read_command("benchmark", words).arguments())
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_two_runs_are_compared(
    subject: Subject,
    narrow: Subject,
    write_run: Callable[[Subject, str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    one, other = write_run(subject, "one"), write_run(narrow, "other")
    found = go("--run_dir", one, "--run_dir", other)
    assert found["schema_version"] == 1
    (entry,) = found["devices"]
    assert [row["name"] for row in entry["variants"]] == ["one", "other"]
    assert [row["weights"] for row in entry["variants"]] == ["trained", "trained"]
    assert entry["prediction_cases"] == 2
    assert all(row["prediction_s"]["median"] > 0 for row in entry["variants"])
    said = capsys.readouterr().out
    assert said.startswith(device_tables(entry))
    assert said.endswith(f"results: {one / 'benchmark.json'}\n")
    assert str(one.parent) not in json.dumps(found)


def test_peers_stand_beside_the_first(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    network = replace(
        subject.config.network,
        channels=(4, 6, 8),
        strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)),
        kernel_sizes=((3, 3, 3),) * 3,
    )
    file = tmp_path / "one.yaml"
    file.write_text(dump_config(replace(subject.config, network=network)))
    monkeypatch.chdir(tmp_path)
    found = go("--config", file, "--peers", "--cases", 1)
    assert found == json.loads(Path("benchmark.json").read_text())
    rows = found["devices"][0]["variants"]
    assert [row["name"] for row in rows] == ["one", "dynunet", "dynunet fp32"]
    assert [row["prediction_s"] is None for row in rows] == [False, True, True]
    assert [row["memory_format"] for row in rows] == ["channels_last_3d", "contiguous", "contiguous"]
    assert all(row["macs"] > 0 and row["training_step_ratio"]["median"] > 0 for row in rows)
    assert "basicunet: the patch must have 16 voxels per axis" in caplog.text


def test_without_data_the_end_to_end_time_is_not_measured(
    subject: Subject,
    write_run: Callable[[Subject, str], Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    lost = replace(subject.config, data=replace(subject.config.data, root="gone"))
    run_dir = write_run(replace(subject, config=lost), "lost")
    found = go("--run_dir", run_dir, "--output", tmp_path / "out.json")
    assert found["devices"][0]["variants"][0]["prediction_s"] is None
    assert caplog.messages[0] == (
        "end to end: not measured: gone: data.root must be the folder of a data set, got no such folder; check the "
        "path."
    )
    caplog.clear()
    found = go("--config", run_dir / "config.yaml", "--num_classes", 3, "--output", tmp_path / "out.json")
    assert found["devices"][0]["variants"][0]["weights"] == "initial"
    assert caplog.messages[0] == "end to end: not measured, as --num_classes stands for a data set"


def test_a_volume_is_measured_in_place_of_speed(
    subject: Subject, write_run: Callable[[Subject, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = write_run(subject, "one")
    argv = ["benchmark.py", "--run_dir", str(run_dir), "--volume_shape", "12", "10", "8", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert ended.value.code == 0
    found = json.loads((run_dir / "benchmark_volume.json").read_text())
    assert (found["schema_version"], found["volume"]["volume_shape"]) == (1, [12, 10, 8])
    assert not (run_dir / "benchmark.json").exists()


def test_a_gpu_that_is_not_there_is_missed(subject: Subject, write_run: Callable[[Subject, str], Path]) -> None:
    with pytest.raises(ConfigError) as caught:
        go("--run_dir", write_run(subject, "one"), "--device", "cuda")
    assert caught.value.sentences == ("--device must be available, got 'cuda' without a GPU; use all or cpu.",)


def test_the_table_says_what_was_measured_and_what_was_not() -> None:
    times = {"median": 0.123456, "q1": 0.1, "q3": 1234.5}
    row = {
        "name": "full",
        "precision": "bf16",
        "memory_format": "channels_last_3d",
        "latency_ms": times,
        "throughput_voxels_per_s": {"median": 1.5e6, "q1": 1e6, "q3": 2e6},
        "training_step_ms": times,
        "prediction_s": None,
        "peak_memory_inference_mib": None,
        "peak_memory_training_mib": 512.4,
        "parameters": 5_600_000,
        "macs": 19_100_000_000,
        "checkpoint_mib": 21.37,
    }
    ratios = {f"{name}_ratio": times for name in ("latency", "throughput", "training_step")} | {
        "prediction_ratio": None
    }
    entry = {
        "device": "A processor",
        "threads": 2,
        "precision": "bf16",
        "memory_format": "channels_last_3d",
        "patch_size": [40, 56, 40],
        "batch": 2,
        "rounds": 15,
        "prediction_rounds": 3,
        "prediction_cases": 8,
        "load_1min": 0.5,
        "baseline": "full",
        "variants": [row | ratios, row | ratios | {"name": "narrow"}],
    }
    head, first, sizes, compared = device_tables(entry).split("\n\n")
    assert head == (
        "A processor, 2 thread(s), bf16, channels_last_3d; patch 40 x 56 x 40, batch 2; median [quartiles] of 15 "
        "rounds, end to end of 3 over 8 case(s); load 0.50 before"
    )
    assert [cell for cell in first.splitlines()[1].split("  ") if cell] == [
        "full (bf16, channels_last_3d)",
        "0.123 [0.1, 1234]",
        "1.5 [1, 2]",
        "0.123 [0.1, 1234]",
        "not measured",
    ]
    assert sizes.splitlines()[1].split()[3:] == ["not", "measured", "512", "5.6", "19.1", "21.4"]
    assert compared.splitlines()[0].startswith("times as fast as full")
    assert len(compared.splitlines()) == 2
    alone = device_tables(entry | {"variants": [row | ratios]})
    assert len(alone.split("\n\n")) == 3
