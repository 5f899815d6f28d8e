"""Which cases are under way at a time, with how many threads, and what is kept of them."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from seg.config import ExperimentConfig
from seg.data import memory
from seg.data.volumes import read_label
from seg.inference import pipeline
from seg.inference.cases import Record, find_sources
from seg.inference.model import Model
from seg.inference.pipeline import Pipeline, needed_bytes, shares
from seg.inference.predictor import Predictor, load_predictor
from seg.runs import read_runs
from tests.threads import torch_threads

GIB = 1 << 30
Make = Callable[..., Path]


def load(run_dir: Path, *, probabilities: bool = False) -> Predictor:
    return load_predictor(read_runs([run_dir]), device="cpu", tta=False, probabilities=probabilities)


def run(predictor: Predictor, scans: Path, output: Path) -> list[Record]:
    records: list[Record] = []
    sources = find_sources(scans, output, probabilities=predictor.probabilities)
    Pipeline(predictor, sources, lambda source, record: records.append(record)).run()
    return records


def labels(folder: Path) -> list[npt.NDArray[Any]]:
    return [read_label(path).array for path in sorted(folder.glob("*.nii.gz"))]


@pytest.fixture
def two_threads() -> Iterator[None]:
    with torch_threads(2):
        yield


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch, two_threads: None) -> list[int]:
    """Of two processor threads, how many the networks have at each case."""
    noted = []
    real = pipeline.segment_case

    def segment(*args: Any) -> Any:
        noted.append(torch.get_num_threads())
        return real(*args)

    monkeypatch.setattr(pipeline, "segment_case", segment)
    return noted


def test_large_cases_go_through_one_at_a_time_and_nothing_of_them_is_kept(
    make_run: Make, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "MEMORY_BUDGET", 1)  # the next is read when the one before is written
    kept: list[tuple[str, Any]] = []
    alive, written = [], []
    real_load, real_segment, real_write = pipeline.load_case, pipeline.segment_case, pipeline.write_labels

    def load_one(*args: Any) -> Any:
        alive.append(([name for name, reference in kept if reference() is not None], len(written)))
        loaded = real_load(*args)
        kept.append(("image", weakref.ref(loaded.image)))
        return loaded

    def segment(*args: Any) -> Any:
        predicted = real_segment(*args)
        kept.extend([("labels", weakref.ref(predicted.labels)), ("maps", weakref.ref(predicted.probabilities))])
        return predicted

    def write(*args: Any) -> None:
        real_write(*args)
        written.append(1)

    monkeypatch.setattr(pipeline, "load_case", load_one)
    monkeypatch.setattr(pipeline, "segment_case", segment)
    monkeypatch.setattr(pipeline, "write_labels", write)
    predictor = load(make_run(), probabilities=True)
    gc.disable()  # what is released is so by its last name
    try:
        run(predictor, scans, tmp_path / "out")
    finally:
        gc.enable()
    assert alive == [([], 0), ([], 1), ([], 2)]
    assert len(kept) == 9


def test_small_cases_are_segmented_side_by_side_and_reported_in_order(
    make_run: Make, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_threads: None
) -> None:
    predictor = load(make_run())
    (scans / "scan_3.nii.gz").write_bytes((scans / "scan_1.nii.gz").read_bytes())
    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "SMALL_VOXELS", 0)
        run(predictor, scans, tmp_path / "alone")
    both = threading.Barrier(2, timeout=60)  # broken, and cases fail, where one waits for the other to end
    noted = []
    real = pipeline.segment_case

    def segment(*args: Any) -> Any:
        noted.append(torch.get_num_threads())
        both.wait()
        return real(*args)

    monkeypatch.setattr(pipeline, "segment_case", segment)
    records = run(predictor, scans, tmp_path / "out")
    assert [record.output for record in records] == [f"scan_{n}.nii.gz" for n in range(4)]
    assert (noted, torch.get_num_threads()) == ([1, 1, 1, 1], 2)
    for one, other in zip(labels(tmp_path / "out"), labels(tmp_path / "alone"), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_small_case_alone_has_all_threads(make_run: Make, scans: Path, tmp_path: Path, threads: list[int]) -> None:
    run(load(make_run()), scans / "scan_0.nii.gz", tmp_path / "out")
    assert threads == [2]


def test_a_case_that_needs_more_than_its_share_of_memory_has_all_threads(
    make_run: Make,
    scans: Path,
    write_scan: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    threads: list[int],
) -> None:
    write_scan(scans / "scan_3.nii.gz", shape=(24, 10, 9))
    monkeypatch.setattr(pipeline, "needed_bytes", lambda models, shape, classes, target: 4 * np.prod(shape))
    monkeypatch.setattr(pipeline, "available_bytes", lambda: 12_000)
    run(load(make_run()), scans, tmp_path / "out")
    assert threads == [1, 1, 1, 2]


@pytest.mark.parametrize(
    ("count", "cases", "available", "expected"),
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
def test_all_threads_are_shared_by_the_cases_that_fit(
    caplog: pytest.LogCaptureFixture, count: int, cases: int, available: int | None, expected: list[int]
) -> None:
    assert shares(count, cases, 2 * GIB, available) == expected
    assert len(caplog.messages) == (len(expected) < min(count, cases))  # want of memory is announced


def test_memory_of_a_pass_is_estimated_from_what_it_computes(make_run: Make) -> None:
    models: list[Model] = list(load(make_run()).models)
    window, voxels_of_case = 8**3, 20 * 16 * 16
    # 4 channels and 3 classes in fp32; sums of logits, and twice the logits that labels are made of.
    expected = 4 * window * (12 * 4 + 2 * 3) + 3 * 4 * 3 * voxels_of_case
    # The label map on the scan's own grid, of which a small one is resampled in one block: source, share and result.
    own = (1 + 3 * 4 * 3) * 30**3
    assert needed_bytes(models, (20, 16, 16), 3, (30, 30, 30)) == expected + own
    # A large one is resampled in blocks, and costs its label map alone.
    large = [needed_bytes(models, (20, 16, 16), 3, (1000, 1000, size)) for size in (500, 501)]
    assert large[1] - large[0] == 1000 * 1000


def test_label_maps_of_large_scans_count_in_what_is_held(
    make_run: Make, tiny_config: ExperimentConfig, write_scan: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coarse = replace(tiny_config, data=replace(tiny_config.data, spacing_mm=(4.0, 4.0, 4.0)))
    write_scan(tmp_path / "in" / "scan.nii.gz", shape=(24, 20, 18))
    held: list[int] = []
    monkeypatch.setattr(pipeline.MemoryBudget, "add", lambda self, amount: held.append(amount))
    run(load(make_run(config=coarse)), tmp_path / "in", tmp_path / "out")
    # Voxels of 1 x 2 x 1.5 mm become fewer of 4 mm for the network; its label map has one byte for each of the scan's.
    assert held[0] - 24 * 20 * 18 == pytest.approx(4 * 24 * 20 * 18 * 3 / 64, rel=0.3)
    assert held == [held[0], -held[0]]


def test_probabilities_that_do_not_fit_cost_their_case_before_they_are_allocated(
    make_run: Make, scans: Path, write_scan: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scan(scans / "scan_1.nii.gz", shape=(24, 10, 9))
    predictor, needed = load(make_run(), probabilities=True), 4 * 3 * 24 * 10 * 9
    for available, status in ((needed - 1, "failed"), (needed, "done")):
        monkeypatch.setattr(memory, "available_bytes", lambda available=available: available)
        records = run(predictor, scans, tmp_path / status)
        assert [record.status for record in records] == ["done", status, "done"]
        assert all("probabilities of 3 classes" in str(problem) for problem in records[1].problems)


def test_an_interrupt_while_an_interrupt_is_dealt_with_does_not_hang(
    make_run: Make, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor, real = load(make_run()), pipeline.NetworkPool.close

    def close(self: pipeline.NetworkPool) -> None:
        real(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline.NetworkPool, "close", close)
    ended = []

    def interrupted() -> None:
        try:
            run(predictor, scans, tmp_path / "out")
        except KeyboardInterrupt:
            ended.append("interrupted")

    thread = threading.Thread(target=interrupted, daemon=True)
    thread.start()
    thread.join(60)
    assert ended == ["interrupted"]
    assert not [one for one in threading.enumerate() if one.name == "writer"]
