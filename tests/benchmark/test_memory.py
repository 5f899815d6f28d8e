"""Peak memory: of a block of known size, in the process itself and in one of its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from seg.benchmark import memory
from seg.benchmark.memory import Peaks, measure_peaks, peaks
from seg.benchmark.subjects import Runtime, Subject
from seg.hardware import PeakMemory, held_mib
from tests.memory import block

RUNTIME = Runtime(device=torch.device("cpu"), precision="fp32")


def test_the_peak_stays_when_memory_is_freed_and_begins_anew() -> None:
    before = held_mib()
    peak = PeakMemory(gpu=False)
    held = block(200)
    del held
    most = peak.mib()
    assert before is not None
    assert most is not None
    assert 190 < most - before < 230
    after = held_mib()
    later = PeakMemory(gpu=False).mib()
    assert after is not None
    assert later is not None
    assert abs(later - after) < 10


def test_memory_of_a_gpu_is_that_of_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: said.append("reset"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 2**20)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 2**20)
    assert (held_mib(gpu=True), PeakMemory(gpu=True).mib(), said) == (1, 3, ["reset"])


def test_inference_and_training_are_told_apart(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_infer", lambda own, runtime: block(60))
    monkeypatch.setattr(memory, "_train", lambda own, runtime: block(180))
    found = peaks(subject, RUNTIME)
    assert found.inference_mib is not None
    assert found.training_mib is not None
    assert 55 < found.inference_mib < 90
    assert 175 < found.training_mib < 210


def test_the_median_of_fresh_processes_is_taken(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter([50.0, 10.0, 30.0, 20.0, 40.0])
    monkeypatch.setattr(
        memory, "in_fresh_process", lambda *_, context: Peaks(inference_mib=next(found), training_mib=None)
    )
    assert measure_peaks(subject, RUNTIME) == Peaks(inference_mib=30.0, training_mib=None)
    found = iter([7.0])
    gpu = replace(RUNTIME, device=torch.device("cuda"))
    assert measure_peaks(subject, gpu) == Peaks(inference_mib=7.0, training_mib=None)


def test_a_process_of_its_own_measures_and_its_end_is_named(
    subject: Subject, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(memory.PROCESSES, "cpu", 1)
    patches = replace(subject.config.patches, size=(64, 64, 64), batch=1)
    own = replace(subject, config=replace(subject.config, patches=patches))
    found = measure_peaks(own, RUNTIME)
    assert found.inference_mib is not None
    assert found.training_mib is not None
    stage = 4 * 64**3 * 4 / 2**20  # four channels of 32-bit floats at full resolution
    assert found.inference_mib > 2 * stage
    assert found.training_mib > found.inference_mib
    odd = replace(own, config=replace(own.config, patches=replace(patches, size=(7, 8, 8))))
    assert measure_peaks(odd, RUNTIME) == Peaks(inference_mib=None, training_mib=None)
    assert caplog.messages[-1].startswith("full: peak memory is not known: ValueError: image shape must be divisible")
