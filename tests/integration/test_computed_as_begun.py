"""A run that goes on elsewhere, or with other threads, than it began."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from seg.config import ExperimentConfig
from seg.hardware import environment
from seg.workflows import train as training
from seg.workflows.train import recorded_threads, train
from tests.threads import torch_threads


@pytest.fixture
def begun(short: ExperimentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was interrupted before its first step."""

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(training, "train_fold", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(short, run_dir=tmp_path / "run", folds=(0,))
    return tmp_path / "run"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


def change(run_dir: Path, **values: object) -> None:
    path = run_dir / "environment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def here() -> dict[str, Any]:
    return environment(torch.device("cpu"), "fp32")


def test_a_resumed_run_has_the_threads_it_began_with(
    begun: Path, short: ExperimentConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    change(begun, threads=3)
    seen = []
    whole = training.train_fold
    monkeypatch.setattr(training, "train_fold", lambda *a, **n: (seen.append(torch.get_num_threads()), whole(*a, **n)))
    with caplog.at_level(logging.INFO, logger="seg"):
        assert train(short, run_dir=begun, folds=(0,), resume=True) == 0
    assert seen == [3]
    assert torch.get_num_threads() == 1
    assert (begun, 3, 1) in [record.args for record in caplog.records]
    assert not [record for record in caplog.records if record.levelname == "WARNING" and begun in record.args]
    assert json.loads((begun / "scoring_environment.json").read_text())["threads"] == 3


@pytest.mark.parametrize("threads", [1, None, 0, "many"])
def test_threads_that_are_equal_or_unknown_are_left(
    begun: Path, threads: object, caplog: pytest.LogCaptureFixture
) -> None:
    change(begun, threads=threads)
    with caplog.at_level(logging.INFO, logger="seg"), recorded_threads(begun, here()):
        assert torch.get_num_threads() == 1
    assert caplog.messages == []


def test_another_device_or_torch_is_warned_of(begun: Path, caplog: pytest.LogCaptureFixture) -> None:
    now = here()
    change(begun, device="a faster one", packages=now["packages"] | {"torch": "1.0"})
    with recorded_threads(begun, now):
        pass
    assert [record.args for record in caplog.records] == [
        (begun, "device", "a faster one", now["device"]),
        (begun, "torch", "1.0", torch.__version__),
    ]


def test_a_run_of_a_release_that_recorded_nothing_goes_on(begun: Path, caplog: pytest.LogCaptureFixture) -> None:
    (begun / "environment.json").unlink()
    with recorded_threads(begun, here()):
        assert torch.get_num_threads() == 1
    assert caplog.messages == []
