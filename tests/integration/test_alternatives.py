"""`seg compress` with other ways to choose: each on a copy of the run, all to the same target."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from seg.compression import compress, search
from seg.compression import shrink as loop
from seg.compression.certificate import Certificate
from seg.compression.speed import Latency
from seg.compression.target import read_target
from seg.config import ExperimentConfig
from seg.errors import ConfigError, Problem
from seg.networks import map_elements
from seg.workflows.train import train
from tests.compression import tuned
from tests.integration.conftest import tell_costs


@pytest.fixture(scope="module")
def trained(tiny: ExperimentConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("alternatives") / "run"
    train(tiny, run_dir=run_dir, folds=[0])
    return run_dir


def test_each_method_makes_a_network_of_its_own_and_each_look_is_counted(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell_costs(monkeypatch)
    before = (loop.measure, loop.measure_maps, loop.project, search.KINDS, search.DEFAULT)
    methods = (tuned.COMMAND, "ours", "ours_channels", "pca")
    words = ("--run_dir", str(trained), "--output", str(tmp_path), "--target", "macs=0.6", "--tune_steps", "0")
    monkeypatch.setattr("sys.argv", ["tuned", *words, "--methods", *methods])
    tuned.main()
    assert (loop.measure, loop.measure_maps, loop.project, search.KINDS, search.DEFAULT) == before
    assert not (trained / "certificate_ledger.json").exists()
    rows = list(csv.DictReader((tmp_path / "compared.csv").read_text().splitlines()))
    assert [row["method"] for row in rows] == list(methods)
    assert [row["look"] for row in rows] == ["1", "1", "2", "3"]  # the first two made the same network, see below
    assert all(0.3 < float(row["macs"]) <= 0.6 for row in rows)
    cards = [json.loads((tmp_path / method / "small" / "macs_0.6" / "model.json").read_text()) for method in methods]
    command, ours, channels, pca = (card["weights_sha256"] for card in cards)
    assert command == ours  # for such a target the command cuts 1x1 alone
    assert len({ours, channels, pca}) == 3


def test_for_a_latency_the_command_cuts_channels_too_and_networks_are_tuned(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell_costs(monkeypatch)

    # In place of a clock: the share of the numbers in feature maps, which fewer channels alone bring down.
    def timed(networks: dict[str, Any], config: ExperimentConfig, **_: Any) -> dict[str, Latency]:
        numbers = {name: map_elements(one.config, shape=config.patches.size) for name, one in networks.items()}
        whole = numbers["original"]
        return {name: Latency(ms=1, ratio=n / whole, q1=n / whole, q3=n / whole) for name, n in numbers.items()}

    monkeypatch.setattr(compress, "measure_latency", timed)
    monkeypatch.setattr(search, "TUNE_BELOW", -1e9)  # whatever a network lost
    monkeypatch.setattr(compress, "ALIGNED", 1)
    monkeypatch.setattr(compress, "vector_floats", lambda: 8)
    methods = (tuned.COMMAND, "ours_channels", "ours")
    command, channels, ranks = tuned.compare(
        trained, tmp_path, read_target("latency=0.8"), methods=methods, tune_steps=25
    )
    assert command["latency_ratio"] == pytest.approx(channels["latency_ratio"], abs=0.2)
    assert float(command["latency_ratio"]) <= 0.8
    assert set(ranks) == {"run", "method", "verdict"}  # 1x1 alone never get there


def test_a_target_beyond_one_method_ends_no_other_and_any_other_fault_ends_all(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell_costs(monkeypatch)
    made = compress.compress

    def fails_once(path: str, output: Path, **settings: Any) -> Certificate:
        if output.parent.name == "ours":
            raise ConfigError(Problem(path, "range", "must be a share that widths reach", "0.5"))
        return made(trained_copy, output, **settings)

    trained_copy = Path(shutil.copytree(trained, tmp_path / "copy"))
    target = read_target("macs=0.8")
    monkeypatch.setattr(tuned, "compress", lambda _, output, **given: fails_once("target", output, **given))
    first, second = tuned.compare(trained, tmp_path / "a", target, methods=("ours", "pca"), tune_steps=0)
    assert (first["method"], set(first)) == ("ours", {"run", "method", "verdict"})
    assert (second["method"], second["step"]) == ("pca", "macs_0.8")
    monkeypatch.setattr(tuned, "compress", lambda _, output, **given: fails_once("--engine", output, **given))
    with pytest.raises(ConfigError):
        list(tuned.compare(trained, tmp_path / "b", target, methods=("ours", "pca"), tune_steps=0))
