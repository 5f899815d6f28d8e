"""The speed of a study: measured once, read by the report, kept for devices that are elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from seg.ablation import speed
from seg.ablation.report.frame import device_label
from seg.ablation.speed import measure_study
from seg.ablation.store import read_devices
from seg.ablation.study import Study, choose_variants, trials_of
from seg.benchmark import measure
from seg.benchmark.measure import Settings
from seg.benchmark.memory import Peaks
from seg.benchmark.roofline import Ceilings
from seg.benchmark.subjects import Subject
from seg.benchmark.timing import Timer
from seg.config import ExperimentConfig
from seg.config.study import BackendConfig, SpeedConfig
from seg.errors import RunError
from seg.runs import save_weights

MEASURES = ("latency_ms", "throughput_voxels_per_s", "training_step_ms", "prediction_s")
RATIOS = ("latency_ratio", "training_step_ratio", "prediction_ratio")
NUMBERS = ("peak_memory_inference_mib", "peak_memory_training_mib", "parameters", "macs", "checkpoint_mib")


@pytest.fixture
def study(make_study: Callable[..., Study]) -> Study:
    return make_study(folds=(1,), speed=SpeedConfig(rounds=4, warmup=1))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Sequence[Subject], Settings]]:
    """Notes what is measured, and measures it on one case, without memory, ceilings and repetition."""
    found: list[tuple[Sequence[Subject], Settings]] = []
    monkeypatch.setattr(measure, "measure_peaks", lambda own, place: Peaks(inference_mib=7.0, training_mib=None))
    monkeypatch.setattr(measure, "measure_ceilings", lambda place: Ceilings(flops=1e11, bytes=1e10))

    def noted(subjects: Sequence[Subject], device: torch.device, *, settings: Settings) -> Mapping[str, Any]:
        found.append((subjects, settings))
        quick = replace(settings, timer=lambda place: Timer(least_seconds=0), images=settings.images[:1])
        return measure.measure_device(subjects, device, quick)

    monkeypatch.setattr(speed, "measure_device", noted)
    return found


def write_weights(experiment: ExperimentConfig, run_dir: Path) -> None:
    names: dict[str, Any] = {"channel_names": ("MRI",), "class_names": ("background", "box", "corner")}
    save_weights(Subject(name="x", config=experiment, **names).network(), run_dir, **names)


def content(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "speed.json").read_text())
    return found


def variants_of(folder: Path) -> dict[str, Mapping[str, Any]]:
    (device,) = read_devices(folder)
    return {variant["name"]: variant for variant in device["variants"]}


def test_the_report_reads_what_was_measured(
    study: Study, asked: list[Any], tmp_path: Path, experiment: ExperimentConfig
) -> None:
    run_dir = tmp_path / "runs" / "baseline" / "fold_1_seed_0"
    write_weights(experiment, run_dir)
    measure_study(study, tmp_path, tmp_path / "runs")
    (about,), variants = read_devices(tmp_path), variants_of(tmp_path)
    assert list(variants) == ["baseline", "skip_1-2"]
    for measured in variants.values():
        assert all(set(measured[key]) == {"median", "q1", "q3"} for key in (*MEASURES, *RATIOS))
        assert all(measured[key] is not None for key in NUMBERS if key != "peak_memory_training_mib")
        assert measured["peak_memory_training_mib"] is None
    assert variants["baseline"]["latency_ratio"] == {"median": 1, "q1": 1, "q3": 1}
    assert (about["kind"], about["precision"], about["memory_format"]) == ("cpu", "fp32", "channels_last_3d")
    assert (about["rounds"], about["warmup"], about["patch_size"], about["threads"]) == (4, 1, [8, 8, 8], 1)
    assert about["load_1min"] >= 0
    assert about["environment"]["packages"]["torch"]
    assert str(tmp_path) not in (tmp_path / "speed.json").read_text()
    ((subjects, settings),) = asked
    assert [subject.run_dir for subject in subjects] == [run_dir, None]
    assert [measured["weights"] for measured in variants_of(tmp_path).values()] == ["trained", "initial"]
    assert len(settings.images) == 3  # half of the cases: fold 1 of 2
    assert list(tmp_path.glob(".speed*")) == []


def test_what_is_measured_is_taken_over_until_there_are_trained_weights(
    study: Study, asked: list[Any], tmp_path: Path, experiment: ExperimentConfig
) -> None:
    measure_study(study, tmp_path, tmp_path / "runs")
    before = (tmp_path / "speed.json").read_bytes()
    measure_study(study, tmp_path, tmp_path / "runs")
    assert len(asked) == 1
    assert (tmp_path / "speed.json").read_bytes() == before
    write_weights(experiment, tmp_path / "runs" / "baseline" / "fold_1_seed_0")
    measure_study(study, tmp_path, tmp_path / "runs")
    measure_study(study, tmp_path, tmp_path / "nowhere")  # trained ones stay where the run is gone
    assert len(asked) == 2
    assert [measured["weights"] for measured in variants_of(tmp_path).values()] == ["trained", "initial"]


def changed(study: Study, kind: str) -> Study:
    first, second = study.variants
    wider = replace(second.config.network, channels=(4, 16))
    other = {
        "a new variant": (first, second, replace(second, name="wide", config=replace(second.config, network=wider))),
        "a variant changed": (first, replace(second, config=replace(second.config, network=wider))),
    }
    if kind == "more rounds":
        return replace(study, config=replace(study.config, speed=SpeedConfig(rounds=5, warmup=1)))
    return replace(study, variants=other[kind], trials=trials_of(study.config, other[kind]))


@pytest.mark.parametrize("kind", ["a new variant", "a variant changed", "more rounds"])
def test_what_changed_is_measured_anew_with_all_others(
    study: Study, asked: list[Any], tmp_path: Path, kind: str
) -> None:
    measure_study(study, tmp_path, tmp_path / "runs")
    other = changed(study, kind)
    measure_study(other, tmp_path, tmp_path / "runs")
    assert len(asked) == 2
    assert [subject.name for subject in asked[1][0]] == [variant.name for variant in other.variants]
    assert list(variants_of(tmp_path)) == [variant.name for variant in other.variants]


def test_chosen_variants_are_measured_with_the_baseline_and_what_was_measured_stays(
    study: Study, asked: list[Any], tmp_path: Path
) -> None:
    more = changed(study, "a new variant")
    for names, expected in (
        (["skip_1-2"], ["baseline", "skip_1-2"]),
        (["wide"], ["baseline", "skip_1-2", "wide"]),
        (["baseline"], None),
    ):
        measure_study(choose_variants(more, names), tmp_path, tmp_path / "runs")
        if expected is not None:
            assert [subject.name for subject in asked[-1][0]] == list(variants_of(tmp_path)) == expected
    assert len(asked) == 2


def test_devices_that_are_elsewhere_are_kept_as_far_as_they_still_hold(
    study: Study, asked: list[Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    measure_study(study, tmp_path, tmp_path / "runs")
    record = content(tmp_path)
    gpu = record["devices"][0] | {"device": "A GPU", "kind": "cuda"}
    record["devices"].append(gpu)
    (tmp_path / "speed.json").write_text(json.dumps(record))
    measure_study(study, tmp_path, tmp_path / "runs")
    assert len(asked) == 1  # all devices present are there
    measure_study(changed(study, "more rounds"), tmp_path, tmp_path / "runs")
    assert content(tmp_path)["devices"][1] == gpu
    measure_study(changed(study, "a variant changed"), tmp_path, tmp_path / "runs")
    assert ("A GPU", "skip_1-2") in [record.args for record in caplog.records]
    assert [row["name"] for row in content(tmp_path)["devices"][1]["variants"]] == ["baseline"]
    first = replace(study.variants[0], config=study.variants[1].config)
    measure_study(replace(study, variants=(first,)), tmp_path, tmp_path / "runs")
    assert [entry["kind"] for entry in content(tmp_path)["devices"]] == ["cpu"]


def test_speed_of_another_version_of_the_code_is_measured_anew(
    study: Study, asked: list[Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    measure_study(study, tmp_path, tmp_path / "runs")
    record = content(tmp_path)
    (measured,) = record["devices"]
    for version in ({"code_version": measured["code_version"] - 1}, {}):
        older = {key: value for key, value in measured.items() if key != "code_version"} | version
        gpu = older | {"device": "A GPU", "kind": "cuda"}
        (tmp_path / "speed.json").write_text(json.dumps(record | {"devices": [older, gpu]}))
        asked.clear()
        caplog.clear()
        measure_study(study, tmp_path, tmp_path / "runs")
        assert len(asked) == 1
        own, kept = content(tmp_path)["devices"]
        assert (own["code_version"], kept) == (measured["code_version"], gpu)
        assert [record.args[0] for record in caplog.records if record.levelname == "WARNING"] == ["A GPU"]
    measure_study(study, tmp_path, tmp_path / "runs")
    assert len(asked) == 1


def test_another_number_of_threads_is_another_device(
    study: Study, asked: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure_study(study, tmp_path, tmp_path / "runs")
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[-1] if threads else 1)
    more = replace(study, config=replace(study.config, launch=BackendConfig(cpus_per_trial=2)))
    found: list[int] = []
    monkeypatch.setattr(
        speed, "measure_device", lambda *_, **__: found.append(threads[-1]) or {"kind": "cpu", "variants": []}
    )
    monkeypatch.setattr(speed, "device_tables", lambda entry: "")
    measure_study(more, tmp_path, tmp_path / "runs")
    assert found == [2]
    assert [entry.get("threads") for entry in content(tmp_path)["devices"]] == [None, 1]


def test_a_processor_of_the_same_name_with_other_instruction_sets_is_another_device(
    study: Study, asked: list[Any], tmp_path: Path
) -> None:
    measure_study(study, tmp_path, tmp_path / "runs")
    record = content(tmp_path)
    (own,) = record["devices"]
    other = own | {"environment": own["environment"] | {"instruction_sets": ["sets of another"]}}
    (tmp_path / "speed.json").write_text(json.dumps(record | {"devices": [other]}))
    measure_study(study, tmp_path, tmp_path / "runs")
    assert len(asked) == 2  # what another processor measured is not taken over
    measured, kept = content(tmp_path)["devices"]
    assert measured["environment"] == own["environment"]
    assert kept == other


@pytest.mark.parametrize(
    ("sets", "name"),
    [
        (["avx2"], "A (AVX2)"),
        (["avx2", "avx512_f", "amx_bf16", "amx_int8"], "A (AVX-512 AMX)"),
        (["avx2", "unheard_of"], "A (AVX2 unheard_of)"),
        (None, "A"),
    ],
)
def test_a_processor_is_named_with_its_instruction_sets(sets: list[str] | None, name: str) -> None:
    environment = {} if sets is None else {"instruction_sets": sets}
    assert device_label({"device": "A", "kind": "cpu", "environment": environment}) == name
    assert device_label({"device": "A", "kind": "cuda", "environment": environment}) == "A"


def test_a_damaged_file_is_named(study: Study, asked: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "speed.json"
    path.write_text('{"schema_version": 1, "devices": [{"kind": "cpu"}]}')
    with pytest.raises(RunError) as caught:
        measure_study(study, tmp_path, tmp_path / "runs")
    (problem,) = caught.value.problems
    assert (problem.path, problem.kind) == (f"{path}: devices[0].variants", "missing")
    assert asked == []


def test_an_engine_is_a_device_of_its_own_and_measured_once(
    make_study: Callable[..., Study], tmp_path: Path, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(folds=(1,), speed=SpeedConfig(rounds=4, warmup=1, engines=("onnxruntime",)))
    pytest.importorskip("onnxruntime", reason="an engine that is measured")
    measure_study(study, tmp_path, tmp_path / "runs")
    devices = content(tmp_path)["devices"]
    assert [device.get("engine", "torch") for device in devices] == ["torch", "onnxruntime"]
    assert [row["name"] for row in devices[1]["variants"]] == [row["name"] for row in devices[0]["variants"]]
    labels = [device_label(device) for device in read_devices(tmp_path)]
    assert len(set(labels)) == 2
    assert labels[1].endswith("onnxruntime")
    asked.clear()
    monkeypatch.setattr(speed, "measure_engine", lambda *_, **__: pytest.fail("measured again"))
    measure_study(study, tmp_path, tmp_path / "runs")
    assert asked == []
