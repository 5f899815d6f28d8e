"""`seg compress` with other ways to choose: each on a copy of the run, all to the same target."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from seg.compression import search
from seg.compression import shrink as loop
from seg.compression.target import read_target
from seg.config import ExperimentConfig
from seg.errors import ConfigError, Problem
from seg.workflows.train import train
from tests.compression import tuned


@pytest.fixture(scope="module")
def trained(tiny: ExperimentConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("alternatives") / "run"
    train(tiny, run_dir=run_dir, folds=[0])
    return run_dir


def test_each_method_makes_a_network_of_its_own_and_no_look_is_counted(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (loop.measure, loop.measure_maps, loop.project, search.KINDS, search.DEFAULT)
    methods = (tuned.COMMAND, "ours", "ours_channels", "pca")
    words = ("--run_dir", str(trained), "--output", str(tmp_path), "--target", "macs=0.6", "--tune_steps", "0")
    monkeypatch.setattr("sys.argv", ["tuned", *words, "--methods", *methods])
    tuned.main()
    assert (loop.measure, loop.measure_maps, loop.project, search.KINDS, search.DEFAULT) == before
    assert not (trained / "certificate_ledger.json").exists()
    rows = list(csv.DictReader((tmp_path / "compared.csv").read_text().splitlines()))
    assert [row["method"] for row in rows] == list(methods)
    assert all(0.3 < float(row["macs"]) <= 0.6 for row in rows)
    cards = [json.loads((tmp_path / method / "small" / "macs_0.6" / "model.json").read_text()) for method in methods]
    command, ours, channels, pca = (card["weights_sha256"] for card in cards)
    assert command == ours  # for such a target the command cuts 1x1 alone
    assert len({ours, channels, pca}) == 3


def test_a_target_beyond_one_method_ends_no_other(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def beyond(*_: object, **__: object) -> None:
        raise ConfigError(Problem("target", "range", "must be a share that widths reach", "0.5"))

    monkeypatch.setattr(tuned, "compress", beyond)
    rows = list(tuned.compare(trained, tmp_path, read_target("macs=0.5"), methods=("ours", "pca")))
    assert [row["method"] for row in rows] == ["ours", "pca"]
    assert all(set(row) == {"run", "method", "verdict"} for row in rows)
