"""Which cases are under way at a time, with how many threads, and what is kept of them."""

from __future__ import annotations

import gc
import threading
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch

from seg.data import memory
from seg.inference import pipeline
from seg.inference.pipeline import needed_bytes, shares
from seg.workflows.predict import predict
from tests.prediction.test_pipeline import arguments, manifest, voxels

GIB = 1 << 30


def test_large_cases_go_through_one_at_a_time(make_run, scans, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "MEMORY_BUDGET", 1)
    under_way, most = [], []
    real_load, real_write = pipeline.load_case, pipeline.write_labels

    def load(*args):
        under_way.append(1)
        most.append(len(under_way))
        return real_load(*args)

    def write(*args):
        real_write(*args)
        under_way.pop()

    monkeypatch.setattr(pipeline, "load_case", load)
    monkeypatch.setattr(pipeline, "write_labels", write)
    assert predict(**arguments(make_run(), scans, tmp_path / "out")) == 0
    assert most == [1, 1, 1]


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_small_cases_are_segmented_side_by_side_and_reported_in_order(
    make_run, scans, tmp_path, monkeypatch, two_threads
):
    run_dir = make_run()
    monkeypatch.setattr(pipeline, "SMALL_VOXELS", 0)
    predict(**arguments(run_dir, scans, tmp_path / "alone"))
    monkeypatch.undo()
    (scans / "scan_3.nii.gz").write_bytes((scans / "scan_1.nii.gz").read_bytes())
    both = threading.Barrier(2, timeout=60)  # broken, and cases fail, where one waits for the other to end
    threads = []
    real = pipeline.segment_case

    def segment(*args):
        threads.append(torch.get_num_threads())
        both.wait()
        return real(*args)

    monkeypatch.setattr(pipeline, "segment_case", segment)
    assert predict(**arguments(run_dir, scans, tmp_path / "out")) == 0
    assert threads == [1, 1, 1, 1]
    assert torch.get_num_threads() == 2
    assert [case["output"] for case in manifest(tmp_path / "out")["cases"]] == [f"scan_{n}.nii.gz" for n in range(4)]
    for number in range(3):
        name = f"scan_{number}.nii.gz"
        np.testing.assert_array_equal(voxels(tmp_path / "out" / name), voxels(tmp_path / "alone" / name))


def threads_of(monkeypatch):
    """Notes how many processor threads the networks have at each case."""
    threads = []
    real = pipeline.segment_case

    def segment(*args):
        threads.append(torch.get_num_threads())
        return real(*args)

    monkeypatch.setattr(pipeline, "segment_case", segment)
    return threads


def test_a_small_case_alone_has_all_threads(make_run, scans, tmp_path, monkeypatch, two_threads):
    threads = threads_of(monkeypatch)
    predict(**arguments(make_run(), scans / "scan_0.nii.gz", tmp_path / "out"))
    assert threads == [2]


@pytest.mark.parametrize(
    ("threads", "cases", "available", "expected"),
    [
        (8, 100, None, [1] * 8),
        (8, 8, 100 * GIB, [1] * 8),
        (8, 3, None, [3, 3, 2]),
        (8, 1, None, [8]),
        (1, 5, None, [1]),
        (8, 100, 6 * GIB, [3, 3, 2]),
        (8, 100, 1, [8]),
    ],
)
def test_all_threads_are_shared_by_the_cases_that_fit(threads, cases, available, expected):
    assert shares(threads, cases, 2 * GIB, available) == expected


def test_want_of_memory_is_announced(make_run, scans, tmp_path, monkeypatch, two_threads, caplog):
    monkeypatch.setattr(pipeline, "available_bytes", lambda: 1000)
    threads = threads_of(monkeypatch)
    assert predict(**arguments(make_run(), scans, tmp_path / "out")) == 0
    assert threads == [2, 2, 2]
    assert "memory suffices for 1 instead of 2 cases at a time: each takes about 0.00" in caplog.text
    assert shares(4, 9, 3 * GIB, 6 * GIB) == [2, 2]
    assert caplog.messages[-1] == (
        "memory suffices for 2 instead of 4 cases at a time: each takes about 3 GiB, with 6 GiB available"
    )


def test_a_case_that_needs_more_than_its_share_of_memory_has_all_threads(
    make_run, scans, write_scan, tmp_path, monkeypatch, two_threads
):
    write_scan(scans / "scan_3.nii.gz", shape=(24, 10, 9))
    threads = threads_of(monkeypatch)
    monkeypatch.setattr(pipeline, "needed_bytes", lambda models, shape, classes, target: 4 * np.prod(shape))
    monkeypatch.setattr(pipeline, "available_bytes", lambda: 12_000)
    assert predict(**arguments(make_run(), scans, tmp_path / "out")) == 0
    assert threads == [1, 1, 1, 2]


def test_memory_of_a_pass_is_estimated_from_what_it_computes(make_run):
    from seg.inference.predictor import load_predictor
    from seg.runs import read_runs

    predictor = load_predictor(read_runs([make_run()]), device="cpu", tta=False, probabilities=False)
    (model,) = predictor.models
    window, voxels_of_case = 8**3, 20 * 16 * 16
    # 4 channels and 3 classes in fp32; sums of logits, and twice the logits that labels are made of.
    expected = 4 * window * (12 * 4 + 2 * 3) + 3 * 4 * 3 * voxels_of_case
    # The label map on the scan's own grid, of which a small one is resampled in one block: source, share and result.
    own = (1 + 3 * 4 * 3) * 30**3
    assert needed_bytes([model], (20, 16, 16), 3, (30, 30, 30)) == expected + own
    # A large one is resampled in blocks, and costs its label map alone.
    large = [needed_bytes([model], (20, 16, 16), 3, (1000, 1000, size)) for size in (500, 501)]
    assert large[1] - large[0] == 1000 * 1000


def test_label_maps_of_large_scans_count_in_what_is_held(make_run, tiny_config, write_scan, tmp_path, monkeypatch):
    coarse = replace(tiny_config, data=replace(tiny_config.data, spacing_mm=(4.0, 4.0, 4.0)))
    write_scan(tmp_path / "in" / "scan.nii.gz", shape=(24, 20, 18))
    held = []
    monkeypatch.setattr(pipeline.MemoryBudget, "add", lambda self, amount: held.append(amount))
    assert predict(**arguments(make_run(config=coarse), tmp_path / "in", tmp_path / "out")) == 0
    # Voxels of 1 x 2 x 1.5 mm become fewer of 4 mm for the network; its label map has one byte for each of the scan's.
    assert held[0] - 24 * 20 * 18 == pytest.approx(4 * 24 * 20 * 18 * 3 / 64, rel=0.3)
    assert held == [held[0], -held[0]]


def test_nothing_of_a_case_is_kept_when_the_next_is_read(make_run, scans, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "MEMORY_BUDGET", 1)  # the next is read when the one before is written
    kept, alive = [], []
    real_load, real_segment = pipeline.load_case, pipeline.segment_case

    def load(*args):
        alive.append([name for name, reference in kept if reference() is not None])
        loaded = real_load(*args)
        kept.append(("image", weakref.ref(loaded.prepared.image)))
        return loaded

    def segment(*args):
        predicted = real_segment(*args)
        kept.extend([("labels", weakref.ref(predicted.labels)), ("maps", weakref.ref(predicted.probabilities))])
        return predicted

    monkeypatch.setattr(pipeline, "load_case", load)
    monkeypatch.setattr(pipeline, "segment_case", segment)
    gc.disable()  # what is released is so by its last name
    try:
        assert predict(**arguments(make_run(), scans, tmp_path / "out", probabilities=True)) == 0
    finally:
        gc.enable()
    assert alive == [[], [], []]
    assert len(kept) == 9


def test_probabilities_that_do_not_fit_cost_their_case_before_they_are_allocated(
    make_run, scans, write_scan, tmp_path, monkeypatch, caplog
):
    write_scan(scans / "scan_1.nii.gz", shape=(24, 10, 9))
    needed = 4 * 3 * 24 * 10 * 9
    monkeypatch.setattr(memory, "available_bytes", lambda: needed - 1)
    out = tmp_path / "out"
    assert predict(**arguments(make_run(), scans, out, probabilities=True)) == 1
    assert [case["status"] for case in manifest(out)["cases"]] == ["done", "failed", "done"]
    assert manifest(out)["cases"][1]["problems"] == [
        "probabilities of 3 classes on the scan's grid of 24 x 10 x 9 voxels must fit in memory, got 2.41e-05 GiB "
        "with 2.41e-05 GiB available; leave --probabilities out, crop the scan or take a machine with more."
    ]
    monkeypatch.setattr(memory, "available_bytes", lambda: needed)
    assert predict(**arguments(tmp_path / "run", scans, out, probabilities=True, existing="overwrite")) == 0


def test_an_interrupt_while_an_interrupt_is_dealt_with_does_not_hang(make_run, scans, tmp_path, monkeypatch):
    real = pipeline.NetworkPool.close

    def close(self):
        real(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline.NetworkPool, "close", close)
    ended = []

    def run():
        try:
            predict(**arguments(make_run(), scans, tmp_path / "out"))
        except KeyboardInterrupt:
            ended.append("interrupted")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    assert ended == ["interrupted"]
    assert not [one for one in threading.enumerate() if one.name == "writer"]
