"""The command that exports a run: where files go, and what is refused before any work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from seg.errors import SegError
from seg.inference.predictor import load_predictor
from seg.runs import read_runs, warn_uncertified
from seg.workflows.export import export


def kinds(run_dir: Path, **options: object) -> list[tuple[str, str]]:
    with pytest.raises(SegError) as caught:
        export(run_dir, **options)  # type: ignore[arg-type]
    return [(problem.path, problem.kind) for problem in caught.value.problems]


def test_files_lie_beside_the_run_directory_and_replace_none(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run_dir = make_run("runs/mine")
    assert export(run_dir, format="zip") == tmp_path / "runs" / "mine.zip"
    assert kinds(run_dir, format="zip") == [(str(tmp_path / "runs" / "mine.zip"), "exists")]
    assert export(run_dir, format="zip", overwrite=True).is_file()
    (tmp_path / "runs" / "mine.bin").write_text("")
    assert kinds(run_dir, format="openvino") == [(str(tmp_path / "runs" / "mine.bin"), "exists")]
    (tmp_path / "runs" / "mine.onnx.json").write_text("")
    assert kinds(run_dir, format="onnx") == [(str(tmp_path / "runs" / "mine.onnx.json"), "exists")]


def test_the_file_beside_a_run_has_its_name_however_it_is_given(
    make_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = make_run("runs/mine")
    monkeypatch.chdir(run_dir / "checkpoints")
    for given in (run_dir / "checkpoints" / "..", Path(".."), Path("../../mine")):
        assert export(given, format="zip", overwrite=True) == tmp_path / "runs" / "mine.zip"
    assert sorted(path.name for path in run_dir.iterdir() if path.suffix == ".zip") == []


def test_what_cannot_be_exported_is_named(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run_dir = make_run("folds/fold_0")
    make_run("folds/fold_1", seed=1)
    assert kinds(run_dir, format="onnx", output=tmp_path / "net.xml") == [("--output", "ending")]
    assert kinds(tmp_path / "folds", format="onnx") == [(str(tmp_path / "folds"), "folds")]
    assert export(tmp_path / "folds", format="zip", output=tmp_path / "all.zip").is_file()


def test_a_folder_of_runs_names_them(make_run: Callable[..., Path], tmp_path: Path) -> None:
    make_run("small/macs_0.5")
    make_run("small/macs_0.4/fold_0")
    with pytest.raises(SegError) as caught:
        export(tmp_path / "small", format="onnx")
    (problem,) = caught.value.problems
    assert (problem.path, problem.kind) == (str(tmp_path / "small"), "missing")
    assert all(str(tmp_path / "small" / name) in (problem.remedy or "") for name in ("macs_0.5", "macs_0.4"))


@pytest.mark.parametrize(
    ("verdict", "exploratory", "warned"),
    [
        ("not shown", False, True),
        ("not shown", True, True),
        ("not tested", False, True),
        ("not inferior", False, False),
        ("not inferior", True, True),
        ("not inferior", None, True),
    ],
)
def test_a_network_that_is_handed_on_without_a_certificate_is_announced(
    make_run: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
    verdict: str,
    exploratory: bool | None,
    warned: bool,
) -> None:
    run_dir = make_run("small/macs_0.5", verdict=verdict)
    card = json.loads((run_dir / "model.json").read_text())
    card["certificate"]["exploratory"] = exploratory
    (run_dir / "model.json").write_text(json.dumps(card))
    export(run_dir, format="zip")
    own = [record.getMessage().startswith(run_dir.name) for record in caplog.records if record.levelname == "WARNING"]
    assert own == [True] * warned
    runs = read_runs([run_dir])
    predictor = load_predictor(runs, device="cpu", tta=False, probabilities=False)
    assert [warning.startswith(run_dir.name) for warning in predictor.warnings] == [True] * warned


@pytest.mark.parametrize(("own", "alone"), [("not inferior", True), ("not shown", False), ("too few", False)])
def test_a_fold_that_passes_with_others_alone_is_announced(
    make_run: Callable[..., Path], own: str, alone: bool
) -> None:
    card = {
        "verdict": "not inferior",
        "exploratory": False,
        "differences": {"one": {"bound": -0.001, "fold": {"verdict": own}}, "two": {"fold": None}},
    }
    paths = [make_run(f"small/fold_{fold}", seed=fold, verdict="not inferior") for fold in (0, 1)]
    for path in paths:
        content = json.loads((path / "model.json").read_text())
        (path / "model.json").write_text(json.dumps({**content, "certificate": card}))
    assert len(warn_uncertified(read_runs(paths[:1]))) == (not alone)
    assert warn_uncertified(read_runs(paths)) == ()


def test_a_certificate_in_a_model_card_that_says_nothing_is_damage(make_run: Callable[..., Path]) -> None:
    path = make_run("small", verdict="not inferior")
    for certificate in ({}, {"verdict": 1}, {"verdict": "not inferior", "exploratory": "perhaps"}, {"conditions": 3}):
        content = json.loads((path / "model.json").read_text())
        (path / "model.json").write_text(json.dumps({**content, "certificate": certificate}))
        assert {where.split(": ")[0] for where, _ in kinds(path, format="zip")} == {str(path / "model.json")}


def test_packages_that_are_absent_are_named(make_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("seg.inference.engines.find_spec", lambda name: None)
    missing = ["onnx", "onnxscript", "openvino"]
    assert kinds(make_run(), format="openvino") == [(name, "missing") for name in missing]
