"""What a sweep holds, how it chooses windows, and what it does where memory is short."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from seg.errors import RunError
from seg.inference.memory import Attempt, MemoryHistory, smaller
from seg.inference.model import Model
from seg.inference.sweep import StageTimer, segment
from tests.inference.sweeps import STREAMED, image, network, prepared


def held_values(length, target):
    """Values held at most in a sweep over 16 x 16 rows of 5 classes, to a grid of another spacing along the sweep."""
    shape = (math.ceil(length / target), 16, 16)
    case = prepared(
        image(length, 16, 16), (1 / Fraction(target).limit_denominator(10), Fraction(1), Fraction(1)), shape
    )
    done = segment([Model(network=network(5), window=(8, 8, 8))], case, resident_mib=STREAMED)
    return done.held_mib * 2**20 / 4


def test_what_is_held_does_not_grow_with_the_length_of_the_sweep():
    plain, resampled = ([held_values(length, target) for length in (28, 60)] for target in (1.0, 0.7))
    assert plain[0] == plain[1]
    assert resampled[0] == resampled[1]
    # Half a window of rows is carried, with a weight beside the classes; half a window's band comes on top.
    assert plain[0] <= (4 * 16 * 16 + 8 * 4 * 16) * 6
    # Interpolation waits for a row and part of a band; whole cells would wait for four rows and the band.
    assert resampled[0] - plain[0] < 5 * 16 * 16 * 5


def test_the_sweep_runs_along_the_axis_that_carries_least():
    model = Model(network=network(), window=(8, 8, 8))
    shapes = [(48, 16, 16), (16, 48, 16), (16, 16, 48)]
    held = [segment([model], prepared(image(*shape)), resident_mib=STREAMED).held_mib for shape in shapes]
    assert held[0] == held[1] == held[2]
    assert held[0] < 4 * 4 * math.prod(shapes[0]) / 2**20 / 3


def test_an_irregular_last_window_carries_no_more():
    model = Model(network=network(), window=(8, 8, 8))
    held = [segment([model], prepared(image(length, 16, 16)), resident_mib=STREAMED).held_mib for length in (40, 41)]
    assert held[1] <= 1.3 * held[0]


def test_a_volume_below_the_limit_is_one_window():
    sizes = []

    def net(windows):
        sizes.append(tuple(windows.shape[2:]))
        return windows

    limited = Model(network=net, window=(8, 8, 8), multiple=(4, 8, 2), whole_up_to=12 * 16 * 10)
    segment([limited], prepared(image(10, 15, 9)), resident_mib=STREAMED)
    assert sizes == [(12, 16, 10)]
    sizes.clear()
    segment([limited], prepared(image(13, 15, 9)), resident_mib=STREAMED)
    assert set(sizes) == {(8, 8, 8)}


def test_a_whole_volume_in_one_window_is_the_forward_pass_of_it():
    net = network()
    model = Model(network=net, window=(8, 8, 8), multiple=(4, 4, 4), whole_up_to=10**5)
    volume = image(16, 12, 20)
    with torch.no_grad():
        expected = net(volume[None])[0].argmax(0).numpy()
    np.testing.assert_array_equal(segment([model], prepared(volume)).labels, expected)


class Hungry(nn.Module):
    """Takes inputs of up to a number of voxels."""

    def __init__(self, most, error=None):
        super().__init__()
        self.most = most
        self.error = error or torch.OutOfMemoryError("CUDA out of memory.")
        self.refused = 0
        self.net = network()

    def forward(self, windows):
        if windows[:, 0].numel() > self.most:
            self.refused += 1
            raise self.error
        return self.net(windows)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
        RuntimeError("Exception from src/inference/src/infer_request.cpp:223: std::bad_alloc"),
        Exception("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : bfc_arena.cc: Failed to allocate memory for requested"),
        MemoryError(),
    ],
)
def test_fewer_windows_go_through_the_network_where_memory_is_short(caplog, error):
    case = prepared(image(20, 20, 20))
    done = segment([Model(network=Hungry(2 * 8**3, error), window=(8, 8, 8), batch=8)], case)
    assert len(done.warnings) == 2  # from 8 windows to 4, and to 2
    assert [record.getMessage() for record in caplog.records] == list(done.warnings)
    plenty = segment([Model(network=network(), window=(8, 8, 8))], case)
    np.testing.assert_array_equal(done.labels, plenty.labels)


def test_a_fault_that_speaks_of_memory_is_no_want_of_it():
    case = prepared(image(8, 8, 8))
    hungry = Hungry(0, RuntimeError("CUDA error: an illegal memory access was encountered"))
    with pytest.raises(RuntimeError, match="illegal"):
        segment([Model(network=hungry, window=(8, 8, 8), batch=8)], case)
    assert hungry.refused == 1


def test_what_one_image_taught_is_where_the_next_begins():
    case, memory = prepared(image(20, 20, 20)), MemoryHistory()
    hungry = Hungry(8 * 8 * 8)
    model = Model(network=hungry, window=(8, 12, 8), multiple=(4, 4, 4), batch=2)
    first = segment([model], case, memory=memory)
    assert len(first.warnings) == 2  # one window a pass, then smaller ones
    refused = hungry.refused
    second = segment([model], case, memory=memory)
    assert hungry.refused == refused == 2
    assert second.warnings == first.warnings[1:]  # smaller windows change labels; fewer at a time do not
    np.testing.assert_array_equal(first.labels, second.labels)


CUDA = torch.device("cuda")


@pytest.mark.parametrize(
    ("sums", "batch", "moved"),
    [(0, 4, False), (74, 4, False), (76, 4, True), (0, 1, True), (51, 2, True), (49, 2, False)],
)
def test_sums_leave_the_gpu_first_where_they_take_more_than_fewer_windows_give_back(sums, batch, moved):
    attempt = Attempt(models=(Model(network=network(), window=(8, 8, 8), batch=batch, device=CUDA),), device=CUDA)
    following, _ = smaller(attempt, sums=sums, passes=100)
    assert following.device.type == ("cpu" if moved else "cuda")
    assert following.models[0].batch == (batch if moved else batch // 2)
    assert following.warnings == ()  # labels stay the same


def test_a_gpu_is_asked_once_for_the_time_of_all_stages(monkeypatch):
    times, waits = iter(range(100)), []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self, stream):
            self.time = next(times)

        def elapsed_time(self, other):
            assert waits, "asked before the GPU was done"
            return 1000 * (other.time - self.time)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "synchronize", waits.append)
    clock = StageTimer(CUDA, ("network", "sums"))
    for _ in range(3):
        with clock.stage("network"):
            pass
        with clock.stage("sums"), clock.stage("network"):
            pass
    assert waits == []
    assert clock.seconds() == {"network": 6.0, "sums": 9.0}
    assert waits == [CUDA]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_logits_that_are_not_finite_are_no_labels(value):
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.calls = network(), 0

        def forward(self, windows):
            self.calls += 1
            logits = self.net(windows)
            if self.calls == 3:
                logits[0, 1, 2, 3, 4] = value
            return logits

    with pytest.raises(RunError) as caught:
        segment([Model(network=Broken(), window=(8, 8, 8))], prepared(image(20, 20, 20)))
    assert [problem.kind for problem in caught.value.problems] == ["finite"]


def test_another_fault_is_none_of_memory():
    case = prepared(image(20, 20, 20))
    model = Model(network=Hungry(8**3, RuntimeError("shapes differ")), window=(8, 8, 8), batch=8)
    with pytest.raises(RuntimeError, match="shapes differ"):
        segment([model], case)


def test_windows_shrink_where_memory_is_short_for_one():
    case = prepared(image(30, 20, 20))
    model = Model(network=Hungry(8 * 12 * 8), window=(24, 12, 8), multiple=(4, 4, 4))
    done = segment([model], case)
    assert len(done.warnings) == 2  # to (12, 12, 8) and to (8, 12, 8)
    plenty = segment([Model(network=network(), window=(8, 12, 8))], case)
    np.testing.assert_array_equal(done.labels, plenty.labels)


def test_a_window_that_cannot_shrink_any_more_is_an_error():
    model = Model(network=Hungry(1), window=(8, 8, 8), multiple=(4, 4, 4))
    with pytest.raises(RunError) as caught:
        segment([model], prepared(image(20, 20, 20)))
    assert [problem.kind for problem in caught.value.problems] == ["memory"]
