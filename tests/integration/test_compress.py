"""A trained run made smaller: run directories like any other, a certificate, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import seg
from seg.compression import certificate
from seg.compression.compress import compress
from seg.config import ExperimentConfig
from seg.errors import SegError
from seg.networks.complexity import checked_complexity
from seg.workflows.train import train


@pytest.fixture(scope="module")
def trained(tiny: ExperimentConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("compress") / "run"
    train(tiny, run_dir=run_dir, folds=[0])
    return run_dir


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def content(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_steps_are_run_directories_of_the_size_that_is_said(
    run: Path, tiny: ExperimentConfig, tiny_root: Path, tmp_path: Path, script: Callable[..., Any]
) -> None:
    before = files(run)
    ended = script("compress", "--run_dir", run, "--output", tmp_path / "small", "--macs", 0.7, 0.9, "--cases", 3)
    assert ended.code == 0
    record = content(tmp_path / "small" / "compression.json")
    whole = checked_complexity(1, 3, tiny.network, shape=tiny.patches.size)
    assert (record["original"]["macs"], record["original"]["parameters"]) == (whole.macs, whole.parameters)
    assert [(step["name"], step["share"]) for step in record["steps"]] == [("macs_0.9", 0.9), ("macs_0.7", 0.7)]
    for step in record["steps"]:
        small = seg.load_run(tmp_path / "small" / step["name"])
        cost = checked_complexity(1, 3, small.config.network, shape=tiny.patches.size)
        assert (step["macs"], step["parameters"]) == (cost.macs, cost.parameters)
        assert step["macs"] <= step["share"] * whole.macs
        assert step["parameters"] == sum(parameter.numel() for parameter in small.network.parameters())
        assert replace(small.config, network=tiny.network) == replace(tiny, fold=0)
    output = seg.predict(tmp_path / "small" / "macs_0.7", tiny_root / "imagesTr", tmp_path / "labels")
    assert len(list(output.glob("*.nii.gz"))) == 6
    changed = {path for path, value in files(run).items() if before.get(path) != value}
    assert {path.name for path in changed} <= {"certificate_ledger.json", "certificate_ledger.json.lock"}


def test_with_too_few_patients_the_first_step_is_scored_and_the_second_is_not(run: Path, tmp_path: Path) -> None:
    found = seg.compress(run, tmp_path / "small", macs=(0.9, 0.7), cases=3)
    assert [step.verdict for step in found.steps] == ["too few", "not tested"]
    assert (found.certified, found.look, found.exploratory) == (None, 1, False)
    assert content(tmp_path / "small" / "certificate.json")["steps"][0]["step"]["name"] == "macs_0.9"
    assert (tmp_path / "small" / "macs_0.9" / "evaluation.json").is_file()
    assert not (tmp_path / "small" / "macs_0.7" / "evaluation.json").exists()
    seg.evaluate(tmp_path / "small" / "macs_0.7")
    again = seg.compress(run, tmp_path / "again", macs=(0.8,), cases=3)
    assert (again.look, again.exploratory) == (2, True)


def test_steps_that_pass_are_certified(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate, "LEAST_PATIENTS", 2)
    found = seg.compress(run, tmp_path / "small", macs=(0.9, 0.7), margin=0.99, cases=3)
    assert found.certified == "macs_0.7"
    assert [step.verdict for step in found.steps] == ["not inferior"] * 2


def test_the_widths_of_a_step_are_trained_from_scratch_and_from_its_weights(run: Path, tmp_path: Path) -> None:
    seg.compress(run, tmp_path / "small", macs=(0.7,), cases=2)
    small = tmp_path / "small" / "macs_0.7"
    for name, source in (("scratch", None), ("on", str(small))):
        again = seg.train(small / "config.yaml", run_dir=tmp_path / name, training__init_from=source)
        assert seg.load_run(again).config.network == seg.load_run(small).config.network
    assert seg.load_run(tmp_path / "scratch").config.network.widths is not None


def test_tuning_is_recorded_and_never_leads_further_away(run: Path, tmp_path: Path) -> None:
    options = {"macs": (0.7,), "cases": 2}
    seg.compress(run, tmp_path / "cut", **options)  # type: ignore[arg-type]
    seg.compress(run, tmp_path / "tuned", tune_steps=30, **options)  # type: ignore[arg-type]
    (cut,), (tuned,) = (content(tmp_path / name / "compression.json")["steps"] for name in ("cut", "tuned"))
    assert (cut["tuned_steps"], cut["ranks"]) == (0, tuned["ranks"])
    assert tuned["tuned_steps"] in (0, 25, 30)
    assert tuned["measured_divergence"] <= cut["measured_divergence"]
    assert (tuned["measured_divergence"] == cut["measured_divergence"]) == (tuned["tuned_steps"] == 0)


def test_a_dry_run_prints_a_table_and_leaves_nothing(run: Path, script: Callable[..., Any]) -> None:
    before = files(run)
    ended = script("compress", "--run_dir", run, "--dry_run", "--cases", 2)
    assert ended.code == 0
    for name in ("encoder.0.0.conv", "encoder.1.1.conv", "decoder.0.block.1.conv"):
        assert name in ended.out
    assert files(run) == before


def test_what_cannot_be_compressed_is_named(run: Path, tmp_path: Path) -> None:
    def kinds(run_dir: Path = run, output: Path = tmp_path / "new", **options: Any) -> list[tuple[str, str]]:
        with pytest.raises(SegError) as caught:
            compress(run_dir, output, **options)
        return [(problem.path, problem.kind) for problem in caught.value.problems]

    assert kinds(macs=(1.0, 0.5, 0.5)) == [("macs", "range"), ("macs", "repeated")]
    assert kinds(macs=(0.01,), cases=1) == [("macs", "range")]
    assert kinds(macs=(0.9,), cases=1, tune_steps=2) == [("cases", "range")]
    assert not (tmp_path / "new").exists()
    assert kinds(output=run) == [(str(run), "exists")]
    shutil.copytree(run, tmp_path / "folds" / "fold_0")
    assert kinds(tmp_path / "folds") == [(str(tmp_path / "folds"), "folds")]
    seg.compress(run, tmp_path / "small", macs=(0.9,), cases=1)
    small = tmp_path / "small" / "macs_0.9"
    assert kinds(small) == [(str(small), "compressed")]
    (run / "evaluation.json").unlink()
    assert kinds() == [(str(run), "scores")]
