"""The whole command: from paths to networks, a table, a file, and the reasons where something is not measured."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from seg.benchmark import measure, run
from seg.benchmark.memory import Peaks
from seg.benchmark.run import benchmark, benchmark_plan, read_subjects, short_names
from seg.benchmark.subjects import Subject
from seg.benchmark.table import device_tables
from seg.config import ExperimentConfig, PostprocessingConfig, dump_config
from seg.errors import ConfigError, RunError

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmark.py"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the time of calls once each, and no memory."""
    timer = measure.Timer
    monkeypatch.setattr(measure, "measure_peaks", lambda own, runtime: Peaks(inference_mib=None, training_mib=2048.0))
    monkeypatch.setattr(measure, "Timer", lambda wait: timer(wait=wait, least_seconds=0))


def go(*targets: Path, **given: Any) -> dict[str, Any]:
    path = benchmark(targets, rounds=3, warmup=1, **{"device": "cpu", **given})
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_two_runs_are_compared(
    subject: Subject,
    narrow: Subject,
    write_run: Callable[[Subject, str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    one, other = write_run(subject, "one"), write_run(narrow, "other")
    found = go(one, other)
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
    found = go(file, peers=True, cases=1)
    assert found == json.loads(Path("benchmark.json").read_text())
    rows = found["devices"][0]["variants"]
    assert [row["name"] for row in rows] == ["one", "dynunet", "dynunet fp32", "dynunet as shipped"]
    assert [row["prediction_s"] is None for row in rows] == [False, True, True, True]
    assert [row["memory_format"] for row in rows] == ["channels_last_3d", *["contiguous"] * 3]
    assert [row["kernels"] for row in rows] == [*["seg"] * 3, "torch"]
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
    found = go(run_dir, output=tmp_path / "out.json")
    assert found["devices"][0]["variants"][0]["prediction_s"] is None
    assert "end to end: not measured: gone" in caplog.messages[0]
    caplog.clear()
    found = go(run_dir / "config.yaml", num_classes=3, output=tmp_path / "out.json")
    assert found["devices"][0]["variants"][0]["weights"] == "initial"
    assert "--num_classes" in caplog.messages[0]


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


OTHER = {
    "config.yaml": "name: mine\n",
    "my.json": '{"a": 1}',
    "more.json": '{"schema_version": 1, "devices": [], "mine": 1}',
    "newer.json": '{"schema_version": 2, "devices": []}',
}


@pytest.mark.parametrize("name", [*OTHER, "/proc/w.json", "config.yaml/w.json"])
@pytest.mark.parametrize("volume_shape", [None, (8, 8, 8)])
def test_a_file_that_is_no_result_or_cannot_be_written_ends_before_anything_is_measured(
    name: str, volume_shape: Any, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file, content in OTHER.items():
        (tmp_path / file).write_text(content)
    for measuring in ("measure_device", "measure_volume"):
        monkeypatch.setattr(run, measuring, lambda *_, **__: pytest.fail("measured"))
    experiment = written(subject.config, tmp_path / "one.yaml")
    for ask in (
        partial(go, experiment, volume_shape=volume_shape),
        partial(benchmark_plan, "tiny", None, device="cpu"),
    ):
        with pytest.raises(RunError) as caught:
            ask(output=tmp_path / name)
        assert all(problem.path.startswith(str(tmp_path / name)) for problem in caught.value.problems)
    assert {file: (tmp_path / file).read_text() for file in OTHER} == OTHER


def test_results_are_replaced(subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("measure_device", "measure_volume"):
        monkeypatch.setattr(run, name, lambda *_, **__: {"made": 1})
    for name in ("device_tables", "volume_text"):
        monkeypatch.setattr(run, name, str)
    experiment, output = written(subject.config, tmp_path / "one.yaml"), tmp_path / "found.json"
    for shape in (None, (8, 8, 8), (8, 8, 8), None):
        found = go(experiment, cases=0, volume_shape=shape, output=output)
        assert found.keys() == {"schema_version", "devices" if shape is None else "volume"}


def test_a_gpu_that_is_not_there_is_missed(subject: Subject, write_run: Callable[[Subject, str], Path]) -> None:
    with pytest.raises(ConfigError) as caught:
        go(write_run(subject, "one"), device="cuda")
    assert [(problem.path, problem.kind) for problem in caught.value.problems] == [("--device", "unavailable")]


def test_a_plan_says_the_same_of_it() -> None:
    remedies = set()
    for asked in (partial(benchmark_plan, "tiny", None), partial(benchmark, [])):
        with pytest.raises(ConfigError) as caught:
            asked(device="cuda")
        remedies.add(caught.value.sentences)
    assert len(remedies) == 1


@pytest.mark.parametrize(
    ("precision", "measured"),
    [
        ("fp32", [("openvino", "fp32"), ("onnxruntime", "fp32")]),
        ("bf16", [("openvino", "fp32"), ("openvino", "bf16"), ("onnxruntime", "fp32")]),
    ],
)
def test_engines_are_measured_before_any_training_and_in_bf16_where_torch_computes_so(
    precision: Any, measured: Any, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[Any] = []
    monkeypatch.setattr(run, "has_bf16", lambda engine: engine == "openvino")
    monkeypatch.setattr(run, "measure_engine", lambda *given: order.append((given[1], given[3])) or {})
    monkeypatch.setattr(run, "measure_device", lambda *given: order.append(given[1].type) or {})
    monkeypatch.setattr(run, "device_tables", str)
    config = replace(subject.config, training=replace(subject.config.training, precision=precision))
    engines = ["openvino", "onnxruntime"]
    go(written(config, tmp_path / "one.yaml"), engines=engines, output=tmp_path / "found.json")
    assert order == [*measured, "cpu"]


def test_the_package_itself_imports_nothing() -> None:
    code = "import sys, seg.benchmark; print([name for name in sys.modules if name.startswith('seg.benchmark.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


Write = Callable[[Subject, str], Path]


def written(config: ExperimentConfig, path: Path) -> Path:
    path.write_text(dump_config(config))
    return path


def problems_of(*targets: Path) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as caught:
        read_subjects(targets)
    return [(problem.path, problem.value) for problem in caught.value.problems]


def test_names_are_as_short_as_they_can_be(tmp_path: Path) -> None:
    file = tmp_path / "small.v2.yaml"
    file.touch()
    assert short_names([file]) == ["small.v2"]
    assert short_names([Path("a/x/run"), Path("b/x/run")]) == ["a/x/run", "b/x/run"]
    assert short_names([Path("x/one.v1"), Path("x/two")]) == ["one.v1", "two"]


def test_a_run_has_its_weights_and_an_experiment_has_not(
    subject: Subject, narrow: Subject, write_run: Write, scans: Path, tmp_path: Path
) -> None:
    run_dir, file = write_run(narrow, "one"), written(subject.config, tmp_path / "two.yaml")
    assert read_subjects([run_dir, file]) == (
        replace(narrow, name="one", run_dir=run_dir),
        replace(subject, name="two"),
    )
    lost = written(replace(subject.config, data=replace(subject.config.data, root="gone")), tmp_path / "one.yaml")
    with pytest.raises(ConfigError, match="gone"):
        read_subjects([lost])
    assert read_subjects([lost], data_root=scans) == (replace(subject, name="one"),)


def test_without_a_data_set_classes_are_counted_and_not_cleaned_up(
    subject: Subject, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lost = replace(
        subject.config,
        data=replace(subject.config.data, root="gone"),
        postprocessing=PostprocessingConfig(largest_component=("box",)),
    )
    (found,) = read_subjects([written(lost, tmp_path / "one.yaml")], num_classes=4, num_channels=2)
    assert found.ends == (2, 4)
    assert found.config.postprocessing == PostprocessingConfig()
    assert "clean-up" in caplog.text


def test_what_cannot_be_compared_is_named_together(subject: Subject, write_run: Write, tmp_path: Path) -> None:
    config = subject.config
    first = written(config, tmp_path / "one.yaml")
    other = written(replace(config, patches=replace(config.patches, size=(8, 8, 16), batch=1)), tmp_path / "two.yaml")
    more = write_run(replace(subject, class_names=("background", "a", "b")), "run")
    for fold in range(2):
        write_run(subject, f"all/fold_{fold}")
    found = problems_of(first, other, more, tmp_path / "all")
    assert found == [
        (str(tmp_path / "all"), "2 folds"),
        ("two: patches.size", "(8, 8, 16)"),
        ("two: patches.batch", "1"),
        ("run: classes", "3"),
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="empty"):
        read_subjects([tmp_path / "empty"])
