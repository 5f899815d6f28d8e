"""A device is measured with networks that wind the clock themselves, so every time is known."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from seg.benchmark import measure, subjects
from seg.benchmark.measure import Settings, measure_device, present_devices
from seg.benchmark.memory import Peaks
from seg.benchmark.prediction import held_out_images
from seg.benchmark.roofline import Ceilings
from seg.benchmark.subjects import Runtime, Subject, TrainingStep
from seg.benchmark.timing import Timer

CPU = torch.device("cpu")
SECONDS = {"full": 0.5, "narrow": 0.125, "peer": 1.0}


class Winding:
    """Networks whose forward pass takes known seconds on a clock of their own."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.passes: Counter[str] = Counter()
        build = Subject.network

        def network(own: Subject, *, trained: bool = True) -> nn.Module:
            built = build(own, trained=trained)
            built.register_forward_hook(partial(self._wind, own.name))
            return built

        patch.setattr(Subject, "network", network)

    def _wind(self, name: str, *_: Any) -> None:
        self.now += SECONDS[name]
        self.passes[name] += 1

    def timer(self, runtime: Runtime) -> Timer:
        return Timer(clock=lambda: self.now, least_seconds=0)


@pytest.fixture
def winding(monkeypatch: pytest.MonkeyPatch) -> Winding:
    monkeypatch.setattr(measure, "measure_peaks", lambda own, runtime: Peaks(inference_mib=10, training_mib=None))
    return Winding(monkeypatch)


def always(seconds: float) -> dict[str, float]:
    return {"median": pytest.approx(seconds), "q1": pytest.approx(seconds), "q3": pytest.approx(seconds)}


def test_throughput_is_by_voxel_where_patches_differ(subject: Subject, narrow: Subject, winding: Winding) -> None:
    patches = subject.config.patches
    double = replace(patches, batch=2 * patches.batch)
    wider = replace(narrow, config=replace(narrow.config, patches=double))
    device = measure_device([subject, wider], CPU, Settings(rounds=3, warmup=1, timer=winding.timer))
    first, second = device["variants"]
    voxels = patches.batch * patches.size[0] * patches.size[1] * patches.size[2]
    assert first["throughput_voxels_per_s"] == always(voxels / SECONDS["full"])
    assert second["throughput_voxels_per_s"] == always(2 * voxels / SECONDS["narrow"])
    assert second["throughput_ratio"] == always(2 * SECONDS["full"] / SECONDS["narrow"])


def test_every_measure_is_that_of_its_network(
    subject: Subject, narrow: Subject, winding: Winding, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = subject.config
    twice = replace(config.training, accumulate=2)
    pair = [replace(one, config=replace(one.config, training=twice)) for one in (subject, narrow)]
    images = held_out_images(config, 8)
    monkeypatch.setattr(measure, "measure_ceilings", lambda _: Ceilings(flops=1e9, bytes=1e9))
    entry = measure_device(pair, CPU, Settings(rounds=6, warmup=2, images=images, timer=winding.timer))
    full, small = entry["variants"]
    assert (full["name"], small["name"], entry["baseline"]) == ("full", "narrow", "full")
    assert full["latency_ms"] == always(500)
    assert small["latency_ms"] == always(125)
    assert full["throughput_voxels_per_s"] == always(3 * 8**3 / 0.5)
    assert small["training_step_ms"] == always(250)  # two forward passes for a step
    for name in ("latency", "throughput", "training_step", "prediction"):
        assert full[f"{name}_ratio"] == always(1)
        assert small[f"{name}_ratio"] == always(4)
    # 8 rounds of two measures of one pass and one of two; the rest are windows of 4 rounds over two cases.
    windows = (winding.passes["full"] - 8 * 4) / 4
    assert full["prediction_s"] == always(0.5 * windows / 2)
    assert windows >= 2 * 2 * 1 * 1
    assert (full["peak_memory_inference_mib"], full["peak_memory_training_mib"]) == (10, None)
    # Counted on meta, at ceilings that are given: more work takes longer, and fusing never adds any.
    assert full["latency_floor_ms"] > full["latency_floor_fused_ms"] > small["latency_floor_fused_ms"] > 0
    assert full["training_step_floor_ms"] > 6 * full["latency_floor_ms"]  # twice a batch of three, and backwards
    assert set(entry["ceilings"]) == {"fp32"}
    assert full["parameters"] == sum(p.numel() for p in subject.network().parameters())
    assert (full["precision"], full["memory_format"], full["weights"]) == ("fp32", "channels_last_3d", "initial")
    assert (entry["kind"], entry["precision"], entry["rounds"], entry["warmup"]) == ("cpu", "fp32", 6, 2)
    assert (entry["prediction_rounds"], entry["prediction_cases"]) == (3, 2)
    assert (entry["patch_size"], entry["batch"], entry["accumulate"]) == ([8, 8, 8], 3, 2)
    assert entry["environment"]["device"] == entry["device"]
    assert str(Path.cwd()) not in str(entry)


def test_without_cases_prediction_is_not_measured_and_peers_have_none(subject: Subject, winding: Winding) -> None:
    entry = measure_device([subject], CPU, Settings(rounds=3, warmup=1, timer=winding.timer))
    assert entry["variants"][0]["prediction_s"] is None
    assert entry["variants"][0]["prediction_ratio"] is None
    assert (entry["prediction_rounds"], entry["prediction_cases"]) == (0, 0)


def test_a_peer_runs_in_torchs_own_layout(subject: Subject) -> None:
    runtime = replace(subject, peer="dynunet").runtime(CPU)
    assert (runtime.memory_format, runtime.precision) == (torch.contiguous_format, "fp32")
    config = replace(subject.config, training=replace(subject.config.training, precision="bf16"))
    assert replace(subject, config=config).runtime(CPU).precision == "bf16"
    assert replace(subject, config=config, precision="fp32").runtime(CPU).precision == "fp32"


def test_training_which_keeps_the_heap_comes_behind_prediction(
    subject: Subject, winding: Winding, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    predict = measure.FilePrediction.__call__

    def note(own: measure.FilePrediction) -> None:
        done.append("prediction")
        predict(own)

    monkeypatch.setattr(subjects, "keep_heap", lambda: done.append("heap"))
    monkeypatch.setattr(measure.FilePrediction, "__call__", note)
    images = held_out_images(subject.config, 1)
    measure_device([subject], CPU, Settings(rounds=3, warmup=1, images=images, timer=winding.timer))
    assert done == ["prediction"] * 4 + ["heap"]


@pytest.mark.parametrize(("kind", "layout"), [("cuda", torch.contiguous_format), ("cpu", torch.channels_last_3d)])
def test_a_network_lies_on_a_gpu_as_its_experiment_says(
    subject: Subject, kind: str, layout: torch.memory_format
) -> None:
    training = replace(subject.config.training, memory_format="contiguous")
    own = replace(subject, config=replace(subject.config, training=training))
    assert own.runtime(torch.device(kind)).memory_format == layout
    assert subject.runtime(torch.device(kind)).memory_format == torch.channels_last_3d


def test_a_gpu_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[object] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    device = torch.device("cuda", 1)
    runtime = Runtime(device=device, precision="bf16")
    assert Settings().timer(runtime).wait == runtime.wait
    runtime.wait()
    assert waited == [device]
    Runtime(device=CPU, precision="bf16").wait()
    assert len(waited) == 1


def test_gpus_of_a_kind_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["A", "B", "A"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(names))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: names[index])
    assert [str(device) for device in present_devices()] == ["cuda:0", "cuda:1", "cpu"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert present_devices() == [CPU]


@pytest.mark.parametrize("augmented", [False, True])
def test_a_step_is_that_of_the_optimiser(subject: Subject, augmented: bool) -> None:
    training = replace(subject.config.training, accumulate=2)
    runtime = Runtime(device=CPU, precision="fp32")
    networks = [runtime.put(replace(subject).network(trained=False)) for _ in range(2)]
    config = replace(subject.config, training=training)
    step = TrainingStep(config, networks[0], channels=1, num_classes=2, runtime=runtime, augmented=augmented)
    passes: list[torch.Tensor] = []
    networks[0].register_forward_hook(lambda module, given, out: passes.append(given[0].clone()))
    step()
    assert len(passes) == 2
    assert torch.equal(passes[0], passes[1]) != augmented
    moved = [not torch.equal(one, other) for one, other in zip(*(n.parameters() for n in networks), strict=True)]
    assert all(moved)
    assert all(parameter.grad is None for parameter in networks[0].parameters())
