"""Predictions by other engines than torch: the same label maps on the same grids, and what is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from seg.config import AugmentationConfig, DataConfig, ExperimentConfig, InferenceConfig, SpatialConfig
from seg.errors import ConfigError, RunError, SegError
from seg.inference import engine_choice
from seg.inference.choice import Choice, ClassChoice, write_choice
from seg.inference.engines import READERS, openvino_core
from seg.inference.exported import ExportRecord, record_path
from seg.runs import read_runs
from seg.workflows.export import export
from seg.workflows.predict import predict

for package in ("openvino", "onnxruntime", "onnxscript"):
    pytest.importorskip(package, reason="needs the extra export")
pytestmark = pytest.mark.usefixtures("exports_kept")
Make = Callable[..., Path]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def run(run_dir: Path, scans: Path, output: Path, **values: Any) -> Path:
    assert predict(run_dirs=[run_dir], input=scans, output=output, **values) == 0
    return output


def same_label_maps(one: Path, other: Path) -> None:
    """Compares folders: headers to the byte, voxels but for those whose two largest scores are all but equal."""
    paths = sorted(one.glob("*.nii.gz"))
    assert [path.name for path in paths] == sorted(path.name for path in other.glob("*.nii.gz"))
    assert paths
    for path in paths:
        expected, found = (nib.load(folder / path.name) for folder in (one, other))
        assert expected.header == found.header
        labels, others = np.asarray(expected.dataobj), np.asarray(found.dataobj)
        scores = np.sort(np.asarray(nib.load(one / "probabilities" / path.name).dataobj), axis=-1)
        clear = scores[..., -1] - scores[..., -2] > 1e-3
        assert clear.mean() > 0.9
        np.testing.assert_array_equal(labels[clear], others[clear])


@pytest.fixture
def config(tiny_config: ExperimentConfig) -> ExperimentConfig:
    """Windows that overlap, two a pass with a rest of one, mirrored, of images that are resampled."""
    return replace(
        tiny_config,
        data=DataConfig(root="nowhere", spacing_mm=(1.3, 1.5, 1.5)),
        inference=InferenceConfig(batch=2, overlap=0.4, tta=True),
        augmentation=AugmentationConfig(spatial=SpatialConfig(mirror_axes=(0, 2))),
    )


@pytest.mark.parametrize(
    ("form", "engine"), [("onnx", "openvino"), ("onnx", "onnxruntime"), ("openvino", None), (None, "onnxruntime")]
)
def test_label_maps_are_those_of_torch(
    form: Any, engine: Any, config: ExperimentConfig, make_run: Make, scans: Path, write_scan: Make, tmp_path: Path
) -> None:
    write_scan(scans / "turned.nii.gz", affine=np.array([[0, 0, 2, 1], [-1, 0, 0, 5], [0, 1.5, 0, 0], [0, 0, 0, 1.0]]))
    run_dir = make_run(config=config)
    expected = run(run_dir, scans, tmp_path / "torch", probabilities=True, engine="torch")
    given = run_dir if form is None else export(run_dir, format=form)
    found = run(given, scans, tmp_path / "other", engine=engine)
    same_label_maps(expected, found)
    content = json.loads((found / "predictions.json").read_text())
    assert content["latest"]["engine"] == (engine or "openvino")
    assert content["latest"]["precision"] == "fp32"
    weights = read_runs([run_dir])[0].description()["weights_sha256"]
    assert content["models"][0]["weights_sha256"] == weights
    assert (engine or "openvino") in content["environment"]["packages"]


def test_a_run_is_exported_once_for_other_engines(
    make_run: Make, scans: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = make_run()
    run(run_dir, scans, tmp_path / "a", engine="openvino")
    (network,) = (cache / "seg" / "networks").glob("*/network.onnx")

    def again(*arguments: Any) -> None:
        raise AssertionError("exported again")

    with monkeypatch.context() as patch:
        patch.setattr("seg.inference.export.export_network", again)
        run(run_dir, scans, tmp_path / "b", engine="onnxruntime")
    network.write_bytes(network.read_bytes()[:-1])
    run(run_dir, scans, tmp_path / "c", engine="openvino")
    same = (tmp_path / name / "scan_0.nii.gz" for name in ("a", "c"))
    assert len({path.read_bytes() for path in same}) == 1


def test_a_packed_run_predicts_as_its_directory_does(make_run: Make, scans: Path, tmp_path: Path) -> None:
    run_dir = make_run()
    run(run_dir, scans, tmp_path / "a", device="cpu")
    run(export(run_dir, format="zip"), scans, tmp_path / "b", device="cpu")
    for path in (tmp_path / "a").glob("*.nii.gz"):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    models = [json.loads((tmp_path / name / "predictions.json").read_text())["models"] for name in "ab"]
    assert models[0] == models[1]


def test_an_export_keeps_the_clean_up_that_was_chosen(make_run: Make, scans: Path, tmp_path: Path) -> None:
    run_dir = make_run()
    weights = read_runs([run_dir])[0].description()["weights_sha256"]
    classes = [
        ClassChoice(name=name, largest_component=largest, dice=0.5, dice_largest=0.6, changed_cases=1)
        for name, largest in (("left", False), ("right", True))
    ]
    write_choice(run_dir, Choice(models=(weights,), cases=1, patients=1, classes=tuple(classes)))
    for form in ("onnx", "zip"):
        out = run(export(run_dir, format=form), scans, tmp_path / form)  # type: ignore[arg-type]
        clean_up = json.loads((out / "predictions.json").read_text())["latest"]["clean_up"]
        assert {name: rule["largest_component"] for name, rule in clean_up.items()} == {"right": True}


def test_what_an_engine_cannot_do_is_refused(make_run: Make, scans: Path, tmp_path: Path) -> None:
    run_dir = make_run()
    file = export(run_dir, format="openvino")

    def kinds(given: Path, **values: Any) -> list[tuple[str, str]]:
        with pytest.raises(SegError) as caught:
            run(given, scans, tmp_path / "out", **values)
        return [(problem.path, problem.kind) for problem in caught.value.problems]

    both = [("--device", "conflict"), ("--precision", "conflict")]
    assert kinds(run_dir, engine="onnxruntime", device="cuda", precision="bf16") == both
    assert kinds(file, engine="torch") == [("--engine", "format")]
    assert kinds(file, engine="onnxruntime") == [("--engine", "format")]
    if not torch.cuda.is_available():
        assert kinds(run_dir, engine="auto", device="cuda") == [("--device", "unavailable")]  # torch says so itself
    assert kinds(tmp_path / "absent.onnx") == [(str(tmp_path / "absent.onnx.json"), "missing")]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_a_damaged_network_with_a_matching_digest_is_blamed_itself(
    form: str, make_run: Make, scans: Path, tmp_path: Path
) -> None:
    file = export(make_run(), format=form)  # type: ignore[arg-type]
    content = file.read_bytes()[: file.stat().st_size // 2]
    file.write_bytes(content)
    record = json.loads(record_path(file).read_text())
    record["files"][file.name] = hashlib.sha256(content).hexdigest()
    record["record_sha256"] = ExportRecord.model_validate(record).digest()
    record_path(file).write_text(json.dumps(record))
    for engine in (None, *READERS[form]):  # type: ignore[index]
        with pytest.raises(RunError) as caught:
            run(file, scans, tmp_path / "out", engine=engine)
        found = [(problem.path, problem.kind) for problem in caught.value.problems]
        assert found == [(str(file), "damaged")]
    assert not list(tmp_path.glob("out/*.nii.gz"))


def test_what_no_engine_does_is_refused_before_engines_are_measured(
    make_run: Make, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(engine_choice, "measure", measured)
    monkeypatch.setattr(engine_choice, "has_bf16", lambda _: False)
    monkeypatch.setattr("seg.inference.predictor.computes_bf16", lambda _: False)
    run_dir = make_run()
    file = export(run_dir, format="onnx")
    for given, kind in ((file, "conflict"), (run_dir, "hardware")):
        with pytest.raises(ConfigError) as caught:
            run(given, scans, tmp_path / "out", engine="auto", precision="bf16")
        assert [(problem.path, problem.kind) for problem in caught.value.problems] == [("--precision", kind)]


def test_openvino_computes_in_bf16_where_that_is_asked_for(
    make_run: Make, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = make_run()
    hints: list[str] = []
    compile_model = openvino_core().compile_model
    # Without bf16 in the processor OpenVINO computes in fp32 whatever it is told, so the hint is looked at.
    monkeypatch.setattr(
        openvino_core(), "compile_model", lambda *a: hints.append(a[2]["INFERENCE_PRECISION_HINT"]) or compile_model(*a)
    )
    monkeypatch.setattr(engine_choice, "has_bf16", lambda engine: engine == "openvino")
    labels = {}
    for precision, said, hint in (("auto", "fp32", "f32"), ("fp32", "fp32", "f32"), ("bf16", "bf16", "bf16")):
        hints.clear()
        out = run(run_dir, scans, tmp_path / precision, engine="openvino", precision=precision)
        assert set(hints) == {hint}
        assert json.loads((out / "predictions.json").read_text())["latest"]["precision"] == said
        labels[precision] = np.asarray(nib.load(out / "scan_0.nii.gz").dataobj)
    np.testing.assert_array_equal(labels["auto"], labels["fp32"])
    assert (labels["bf16"] == labels["fp32"]).mean() > 0.98


def test_engines_with_bf16_alone_are_measured_where_that_is_asked_for(
    make_run: Make, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(engine_choice, "has_bf16", lambda engine: engine == "openvino")
    monkeypatch.setattr(engine_choice, "fastest_engine", lambda engines, *_, **__: asked.append(engines) or "openvino")
    run_dir = make_run()
    run(export(run_dir, format="onnx"), scans, tmp_path / "file", precision="bf16")
    run(run_dir, scans, tmp_path / "run", engine="auto", precision="bf16")
    assert asked == [("openvino",), ("torch", "openvino")]


def test_label_maps_of_two_engines_are_not_mixed_in_a_folder(make_run: Make, scans: Path, tmp_path: Path) -> None:
    run_dir = make_run()
    out = run(run_dir, scans, tmp_path / "out")
    (out / "scan_1.nii.gz").unlink()
    with pytest.raises(SegError) as caught:
        run(run_dir, scans, out, engine="openvino", existing="skip")
    assert [problem.kind for problem in caught.value.problems] == ["engine"]
