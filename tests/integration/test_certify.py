"""A network certified against another one: the numbers, the ledger, and what cannot be compared."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

import seg
from seg.compression import certificate
from seg.compression import certify as certify_module
from seg.compression.certify import _common_patch
from seg.config import ExperimentConfig, NetworkConfig
from seg.errors import RunError
from seg.evaluation.scores import read_cases
from seg.runs import read_config
from seg.workflows.train import train
from tests.costs import checked_complexity
from tests.integration.conftest import name_patients, tell_costs, write_case
from tests.problems import refused

LEDGER = "certificate_ledger.json"


@pytest.fixture(scope="module")
def thin(short: ExperimentConfig) -> ExperimentConfig:
    return replace(short, seed=1, network=replace(short.network, channels=(2, 6), skip_bottleneck=None))


@pytest.fixture(scope="module")
def trained_thin(thin: ExperimentConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("certify") / "thin"
    train(thin, run_dir=run_dir, folds=[0])
    return run_dir


@pytest.fixture
def original(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "original_run"))


@pytest.fixture
def changed(trained_thin: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained_thin, tmp_path / "thin"))


@pytest.fixture(scope="module")
def trained_folds(
    short: ExperimentConfig, thin: ExperimentConfig, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("folds")
    for name, config in (("wide", short), ("thin", thin)):
        train(config, run_dir=root / name, folds=None)
    return root / "wide", root / "thin"


@pytest.fixture
def roots(trained_folds: tuple[Path, Path], tmp_path: Path) -> list[Path]:
    """Cross-validations of the original and the changed network."""
    return [Path(shutil.copytree(path, tmp_path / path.name)) for path in trained_folds]


@pytest.fixture
def measured() -> None:
    """Has time and memory of networks measured, which takes seconds."""


@pytest.fixture(autouse=True)
def known(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tells time and memory to tests that do not ask for `measured`, and has two patients be enough."""
    monkeypatch.setattr(certificate, "LEAST_PATIENTS", 2)
    if "measured" not in request.fixturenames:
        tell_costs(monkeypatch, certify_module)


def looks(run_dir: Path) -> int:
    path = run_dir / LEDGER
    return len(json.loads(path.read_text())["looks"]) if path.exists() else 0


def differences(before: Path, after: Path, index: int) -> np.ndarray:
    """Returns the change of Dice of each case of a run; each case of the data set is a patient."""
    first, second = (
        {score.case_id: score.scores.dice for score in read_cases(path) if score.class_index == index}
        for path in (before, after)
    )
    return np.array([second[case] - first[case] for case in first])


def test_differences_and_bounds_are_those_of_the_scores(original: Path, changed: Path, tmp_path: Path) -> None:
    found = seg.certify(changed, original, tmp_path / "out", margin=0.9)
    (result,) = found.steps
    assert (found.certified, found.look, result.verdict) == ("changed", 1, "not inferior")
    for one in result.classes:
        own = differences(original, changed, one.index)
        assert one.patients == len(own) == 3
        assert one.difference == pytest.approx(own.mean())
        assert one.bound == pytest.approx(stats.ttest_1samp(own, 0).confidence_interval(0.95).low)
    written = json.loads((tmp_path / "out" / "certificate.json").read_text())
    assert written["steps"][0]["classes"][0]["difference"] == result.classes[0].difference
    assert "`changed`" in (tmp_path / "out" / "certificate.md").read_text()


def test_the_comparison_is_a_look_at_the_cases_of_the_original(original: Path, changed: Path, tmp_path: Path) -> None:
    for number, (margin, look) in enumerate(((0.9, 1), (0.9, 1), (0.5, 2))):
        found = seg.certify(changed, original, tmp_path / f"{number}", margin=margin)
        assert (found.look, found.exploratory) == (look, look > 1)
    assert (looks(original), looks(changed)) == (2, 0)


def test_a_network_that_loses_more_than_the_margin_is_not_certified(
    original: Path, changed: Path, tmp_path: Path
) -> None:
    found = seg.certify(changed, original, tmp_path / "out", margin=1e-9)
    assert (found.certified, found.steps[0].verdict) == (None, "not shown")


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_costs_are_those_of_the_two_networks_on_one_patch(
    engine: str,
    original: Path,
    changed: Path,
    short: ExperimentConfig,
    thin: ExperimentConfig,
    tmp_path: Path,
    script: Callable[..., Any],
) -> None:
    if engine != "torch":
        pytest.importorskip(engine)
    options = ("--original", original, "--output", tmp_path / "out", "--engine", engine)
    assert script("certify", "--run_dir", changed, *options).code == 0
    costs = json.loads((tmp_path / "out" / "certificate.json").read_text())["costs"]
    for name, config in (("original", short), ("changed", thin)):
        cost = checked_complexity(1, 3, config.network, shape=short.patches.size)
        assert (costs[name]["macs"], costs[name]["parameters"]) == (cost.macs, cost.parameters)
        assert costs[name]["peak_memory_mib"] is not None


def test_an_engine_finds_the_differences_of_torch(original: Path, changed: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    both = [
        seg.certify(changed, original, tmp_path / engine, margin=0.9, engine=engine) for engine in ("torch", "openvino")
    ]
    first, second = ([one.difference for one in found.steps[0].classes] for found in both)
    assert second == pytest.approx(first, abs=0.01)
    assert [found.look for found in both] == [1, 2]


def test_folds_are_compared_pair_by_pair(roots: list[Path], tmp_path: Path, undrawn: None) -> None:
    found = seg.certify(roots[1], roots[0], tmp_path / "out", margin=0.9)
    for one in found.steps[0].classes:
        own = [differences(*(root / f"fold_{fold}" for root in roots), one.index) for fold in (0, 1)]
        assert one.patients == 6
        assert one.degrees_of_freedom == 4
        assert one.difference == pytest.approx(np.concatenate(own).mean())
        assert [fold.difference for fold in one.folds] == pytest.approx([each.mean() for each in own])
    assert [looks(roots[0] / f"fold_{fold}") for fold in (0, 1)] == [1, 1]
    with refused((str(roots[1] / "fold_0"), "folds", "0"), error=RunError):
        seg.certify(roots[1] / "fold_0", roots[0], tmp_path / "other")
    with refused((str(roots[1] / "fold_0"), "folds", "0"), error=RunError):
        seg.certify(roots[1] / "fold_0", roots[0] / "fold_1", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_networks_that_predict_otherwise_are_not_compared(
    original: Path, thin: ExperimentConfig, tmp_path: Path, undrawn: None
) -> None:
    spatial = replace(thin.augmentation.spatial, mirror_axes=(0,))
    augmentation = replace(thin.augmentation, spatial=spatial)
    mirrored = replace(thin, augmentation=augmentation, inference=replace(thin.inference, tta=True))
    train(mirrored, run_dir=tmp_path / "mirrored", folds=[0])
    with refused((str(tmp_path / "mirrored"), "mirroring", "X"), error=RunError):
        seg.certify(tmp_path / "mirrored", original, tmp_path / "out")
    assert looks(original) == 0


def test_other_held_out_cases_and_the_network_itself_are_refused(original: Path, changed: Path, tmp_path: Path) -> None:
    path = changed / "environment.json"
    record = json.loads(path.read_text())
    moved = record["split"]["validation"].pop()
    record["split"]["train"].append(moved)
    path.write_text(json.dumps(record))
    with refused((str(changed), "cases", f"others: {moved}"), error=RunError):
        seg.certify(changed, original, tmp_path / "out")
    copy = Path(shutil.copytree(original, tmp_path / "copy"))
    with refused((str(copy), "same"), error=RunError):
        seg.certify(copy, original, tmp_path / "out")
    assert looks(original) == 0


def test_cases_of_one_name_with_other_files_are_refused(
    original: Path, changed: Path, write_dataset: Callable[[Path], Path], tmp_path: Path
) -> None:
    root = write_dataset(tmp_path / "data")
    held_out = json.loads((changed / "environment.json").read_text())["split"]["validation"][0]
    write_case(root, held_out, seed=99)
    path = changed / "config.yaml"
    path.write_text(path.read_text().replace(read_config(changed).data.root, str(root)))
    with refused((str(changed), "data"), error=RunError):
        seg.certify(changed, original, tmp_path / "out")
    assert looks(original) == 0


def test_a_certificate_that_is_there_stays(original: Path, changed: Path, tmp_path: Path) -> None:
    seg.certify(changed, original, tmp_path / "out", margin=0.9)
    before = (tmp_path / "out" / "certificate.json").read_bytes()
    with refused((str(tmp_path / "out"), "exists"), error=RunError):
        seg.certify(changed, original, tmp_path / "out", margin=0.5)
    assert (tmp_path / "out" / "certificate.json").read_bytes() == before
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "certificate.json").symlink_to(tmp_path / "nothing")
    for output in (tmp_path / "linked", original):
        with refused((str(output), "exists"), error=RunError):
            seg.certify(changed, original, output)
    assert looks(original) == 1


@pytest.mark.usefixtures("measured", "undrawn")
@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_networks_of_other_patches_windows_and_strides_are_compared(
    engine: str, original: Path, short: ExperimentConfig, tmp_path: Path
) -> None:
    if engine != "torch":
        pytest.importorskip(engine)
    deep = replace(
        short,
        patches=replace(short.patches, size=(8, 16, 12)),
        network=NetworkConfig(
            channels=(2, 4, 4), strides=((1, 1, 1), (2, 2, 2), (1, 2, 3)), kernel_sizes=((3, 3, 3),) * 3
        ),
    )
    assert _common_patch(short, short) == (8, 8, 8)
    assert _common_patch(short, deep) == _common_patch(deep, short) == (8, 16, 12)
    train(deep, run_dir=tmp_path / "deep", folds=[0])
    found = seg.certify(tmp_path / "deep", original, tmp_path / "out", margin=0.9, engine=engine)
    assert found.certified == "changed"
    for name, config in (("original", short), ("changed", deep)):
        assert found.costs[name].macs == checked_complexity(1, 3, config.network, shape=(8, 16, 12)).macs
        assert found.costs[name].peak_memory_mib is not None
    assert found.conditions["changed: inference.window"] == "(8, 16, 12)"


def test_a_comparison_is_in_the_ledger_before_a_case_is_scored(
    original: Path, changed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        assert looks(original) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(certify_module, "torch_scores", killed)
    with pytest.raises(KeyboardInterrupt):
        seg.certify(changed, original, tmp_path / "out")
    assert not (tmp_path / "out" / "certificate.json").exists()


def test_another_way_to_predict_is_another_look(
    original: Path, thin: ExperimentConfig, tmp_path: Path, undrawn: None
) -> None:
    for number, overlap in enumerate((0.5, 0.25)):
        config = replace(thin, inference=replace(thin.inference, overlap=overlap))
        train(config, run_dir=tmp_path / f"run_{number}", folds=[0])
        found = seg.certify(tmp_path / f"run_{number}", original, tmp_path / f"{number}", margin=0.9)
        assert found.look == number + 1
    weights = [(tmp_path / f"run_{number}" / "checkpoints" / "weights.pt").read_bytes() for number in (0, 1)]
    assert weights[0] == weights[1]
    assert found.conditions["changed: inference.overlap"] == "0.25"


def test_a_network_whose_steps_the_held_out_cases_chose_is_refused(
    original: Path, thin: ExperimentConfig, tmp_path: Path, undrawn: None
) -> None:
    chosen = replace(thin, training=replace(thin.training, early_stop=3))
    train(chosen, run_dir=tmp_path / "chosen", folds=[0])
    with refused((str(tmp_path / "chosen"), "early_stop"), error=RunError):
        seg.certify(tmp_path / "chosen", original, tmp_path / "out")
    assert looks(original) == 0


def test_a_compressed_network_is_compared_with_a_third_one(original: Path, changed: Path, tmp_path: Path) -> None:
    seg.compress(changed, tmp_path / "small", target="macs=0.8", cases=2, tune_steps=0)
    found = seg.certify(tmp_path / "small" / "macs_0.8", original, tmp_path / "out", margin=0.9)
    assert found.certified == "changed"
    assert (looks(original), looks(changed)) == (1, 1)


def test_compressed_folds_of_different_widths_are_compared(roots: list[Path], tmp_path: Path, undrawn: None) -> None:
    for number, share in enumerate((0.8, 0.6)):
        small = tmp_path / "small" / f"fold_{number}"
        seg.compress(roots[1] / f"fold_{number}", tmp_path / f"{number}", target=f"macs={share}", cases=2, tune_steps=0)
        shutil.copytree(tmp_path / f"{number}" / f"macs_{share}", small)
    assert seg.load_run(small).config.network != seg.load_run(small.with_name("fold_0")).config.network
    found = seg.certify(tmp_path / "small", roots[0], tmp_path / "out", margin=0.9)
    assert [one.patients for one in found.steps[0].classes] == [6, 6]
    parameters = [
        sum(parameter.numel() for parameter in seg.load_run(tmp_path / "small" / f"fold_{number}").network.parameters())
        for number in (0, 1)
    ]
    assert found.costs["changed"].parameters == max(parameters)


def test_other_patients_are_refused(
    original: Path, thin: ExperimentConfig, write_dataset: Callable[[Path], Path], tmp_path: Path, undrawn: None
) -> None:
    root = write_dataset(tmp_path / "data")
    name_patients(root, original)
    seen = json.loads((original / "environment.json").read_text())["split"]
    (root / "splits.json").write_text(json.dumps([{"train": seen["train"], "val": seen["validation"]}]))
    data = replace(thin.data, root=str(root), splits=str(root / "splits.json"))
    train(replace(thin, data=data), run_dir=tmp_path / "other", folds=[0])
    with refused((str(tmp_path / "other"), "data"), error=RunError):
        seg.certify(tmp_path / "other", original, tmp_path / "out")
    assert looks(original) == 0
