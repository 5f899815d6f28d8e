"""Networks in int8: what is quantised, what the certificate says, and what is not written."""

from __future__ import annotations

import json
import logging
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import seg
from seg import hardware
from seg.compression import int8
from seg.compression.certificate import read_ledger
from seg.compression.int8 import export_int8
from seg.config import DataConfig
from seg.data.cases import Case, Dataset
from seg.errors import ConfigError, RunError, SegError
from seg.hardware import code_version
from seg.inference.engines import openvino_core
from seg.inference.export import write_record
from seg.inference.exported import read_export, record_path
from seg.inference.predictor import load_predictor
from seg.inference.quantise import quantise
from seg.workflows.export import export
from seg.workflows.predict import predict
from tests.compression.test_certificate import read_certificate
from tests.inference.conftest import CONFIG, write_run
from tests.inference.test_telemetry import COMMAND, watched
from tests.problems import refused

for package in ("nncf", "onnxscript", "openvino"):
    pytest.importorskip(package, reason="needs the extra int8")
pytestmark = pytest.mark.usefixtures("exports_kept")
CASES = 44  # of which a fold holds out 22: as many patients as a certificate takes


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "tiny"
    (root / "imagesTr").mkdir(parents=True)
    (root / "labelsTr").mkdir()
    cases = []
    for number in range(CASES):
        random = np.random.default_rng(number)
        label = np.zeros((10, 9, 8), dtype=np.uint8)
        label[2:5, 2:8, 1:7], label[6:9, 3:7, 2:6] = 1, 2
        for folder, array in (("imagesTr", label * 3.0 + random.normal(0, 1, label.shape)), ("labelsTr", label)):
            image = nib.Nifti1Image(array.astype(np.float32 if folder == "imagesTr" else np.uint8), np.eye(4))
            nib.save(image, root / folder / f"case_{number:02}.nii.gz")
        cases.append({"image": f"./imagesTr/case_{number:02}.nii.gz", "label": f"./labelsTr/case_{number:02}.nii.gz"})
    labels = {"0": "background", "1": "left", "2": "right"}
    description = {"name": "tiny", "modality": {"0": "MRI"}, "labels": labels, "licence": "CC0", "training": cases}
    (root / "dataset.json").write_text(json.dumps(description | {"numTraining": CASES}))
    return root


@pytest.fixture(scope="module")
def make_run(root: Path) -> Callable[..., Path]:
    def make(folder: Path, folds: int = 2) -> Path:
        return write_run(folder, config=replace(CONFIG, data=DataConfig(root=str(root), folds=folds), fold=0))

    return make


@pytest.fixture(scope="module")
def exported(make_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_int8(make_run(tmp_path_factory.mktemp("exported") / "run"), margin=0.5)


def certificate_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.certificate.json")


def dice(folder: Path, root: Path, value: int) -> dict[str, float]:
    found = {}
    for path in sorted(folder.glob("*.nii.gz")):
        one, other = (np.asarray(nib.load(file).dataobj) == value for file in (path, root / "labelsTr" / path.name))
        found[path.name] = 2 * (one & other).sum() / (one.sum() + other.sum())
    return found


def test_the_certificate_is_of_the_files_as_predict_runs_them(exported: Path, root: Path, tmp_path: Path) -> None:
    run_dir = exported.parent / "run"
    certificate = read_certificate(certificate_of(exported))
    ((step,), (weights,)) = certificate.steps, certificate.original
    assert (certificate.certified, certificate.margin, certificate.look) == ("int8", 0.5, 1)
    assert weights == read_export(exported).record.weights_sha256
    assert certificate.conditions["segnarrow"] == code_version()
    plain = export(run_dir, format="openvino", output=tmp_path / "plain.xml")
    for name, file in (("fp32", plain), ("int8", exported)):
        predict(run_dirs=[file], input=root / "imagesTr", output=tmp_path / name, engine="openvino")
    held_out = int8.read_held_out([run_dir])[2][run_dir].validation
    for one in step.classes:
        before, after = (dice(tmp_path / name, root, one.index) for name in ("fp32", "int8"))
        differences = [after[f"{case}.nii.gz"] - before[f"{case}.nii.gz"] for case in held_out]
        assert one.patients == len(held_out) == CASES // 2
        assert one.difference == pytest.approx(np.mean(differences), abs=1e-12)
        assert one.sd == pytest.approx(np.std(differences, ddof=1), abs=1e-12)
        assert one.sd > 0  # int8 is not fp32


def test_convolutions_alone_are_quantised(exported: Path) -> None:
    tree = ET.parse(exported).getroot()
    kinds = {layer.get("id"): layer.get("type") for layer in tree.iter("layer")}
    read_by: dict[str, set[str]] = {}
    for edge in tree.iter("edge"):
        if kinds[edge.get("from-layer")] == "FakeQuantize":
            read_by.setdefault(edge.get("from-layer"), set()).add(str(kinds[edge.get("to-layer")]))
    assert read_by
    assert set().union(*read_by.values()) <= {"Convolution", "ConvolutionBackpropData", "Concat"}
    weights = [layer for layer in tree.iter("layer") if layer.find("data[@element_type='i8']") is not None]
    assert len(weights) >= list(kinds.values()).count("Convolution")


def test_weights_take_7_bits(exported: Path) -> None:
    kinds = [node for node in openvino_core().read_model(exported).get_ops() if node.get_type_name() == "Constant"]
    weights = [node.data for node in kinds if node.data.dtype == np.int8]
    assert weights
    assert all(np.abs(one.astype(int)).max() <= 64 for one in weights)


def test_a_prediction_says_that_it_is_in_int8(exported: Path, root: Path, tmp_path: Path) -> None:
    predict(run_dirs=[exported], input=root / "imagesTr" / "case_00.nii.gz", output=tmp_path, engine="auto")
    manifest = json.loads((tmp_path / "predictions.json").read_text())
    (entry,), (model,) = manifest["cases"], manifest["models"]
    assert (entry["engine"], entry["precision"], model["export"]["arithmetic"]) == ("openvino", "int8", "int8")
    assert manifest["environment"]["precision"] == "int8"
    assert model["export"]["certified"] is True


def test_what_int8_cannot_do_is_refused(exported: Path, root: Path, tmp_path: Path) -> None:
    asked = {"run_dirs": [exported], "input": root / "imagesTr" / "case_00.nii.gz", "output": tmp_path}
    for precision in ("fp32", "bf16"):
        with refused(("--precision", "conflict"), error=ConfigError):
            predict(**asked, precision=precision, engine="openvino")
    with refused(("--engine", "format"), error=ConfigError):
        predict(**asked, engine="onnxruntime")


def test_another_processor_is_announced(exported: Path, root: Path, tmp_path: Path) -> None:
    for file in (exported, exported.with_suffix(".bin"), record_path(exported)):
        shutil.copy(file, tmp_path)
    record = read_export(exported).record
    warned = []
    for sets in (record.certified_on, ("neon",)):
        assert sets is not None
        write_record(tmp_path / exported.name, record.model_copy(update={"certified_on": sets}))
        output = tmp_path / sets[0]
        predict(run_dirs=[tmp_path / exported.name], input=root / "imagesTr" / "case_00.nii.gz", output=output)
        warned.append(len(json.loads((output / "predictions.json").read_text())["warnings"]))
    assert warned == [0, 1]


@pytest.mark.parametrize(
    ("there", "here", "warns"),
    [
        (("avx2",), "avx2", False),
        (("avx2",), "avx2 avx_vnni", True),
        (("avx2", "avx_vnni"), "avx2 avx_vnni", False),
        (("avx2", "avx512_f", "avx512_vnni"), "avx2 avx_vnni avx512f avx512_vnni", False),
        (("avx2",), None, True),
        ((), None, True),
        ((), "avx2", True),
    ],
)
def test_a_certificate_holds_where_int8_is_known_to_be_computed_alike(
    exported: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    there: tuple[str, ...],
    here: str | None,
    warns: bool,
) -> None:
    if here is not None:
        (tmp_path / "cpuinfo").write_text(f"model name : a processor\nflags : {here}\n")
    monkeypatch.setattr(hardware, "CPUINFO", tmp_path / "cpuinfo")
    for file in (exported, exported.with_suffix(".bin"), record_path(exported)):
        shutil.copy(file, tmp_path)
    file = tmp_path / exported.name
    write_record(file, read_export(exported).record.model_copy(update={"certified_on": there}))
    predictor = load_predictor([read_export(file)], device="cpu", tta=False, probabilities=False, engine="openvino")
    assert bool(predictor.warnings) == warns


def test_a_certificate_names_the_sets_that_decide(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("flags : avx2 avx_vnni avx512_bf16\n")
    monkeypatch.setattr(hardware, "CPUINFO", tmp_path / "cpuinfo")
    assert hardware.instruction_sets(int8.CERTIFIED_SETS) == ["avx2", "avx512_bf16", "avx_vnni"]


def test_a_network_that_is_not_shown_to_be_as_good_is_written_on_request_alone(
    make_run: Callable[..., Path], root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_dir = make_run(tmp_path / "run")
    target = tmp_path / "run_int8.xml"
    with refused((str(target), "inferior", "not shown"), error=RunError):
        export_int8(run_dir, margin=1e-9)
    assert not [record for record in caplog.records if record.getMessage().startswith(target.name)]  # said once
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert len(read_ledger(run_dir / "certificate_ledger.json")) == 1
    assert export_int8(run_dir, margin=1e-9, allow_inferior=True) == target
    certificate = read_certificate(certificate_of(target))
    assert (certificate.certified, certificate.look) == (None, 1)  # the same network again
    predict(run_dirs=[target], input=root / "imagesTr" / "case_00.nii.gz", output=tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert manifest["models"][0]["export"]["certified"] is False
    assert len(manifest["warnings"]) == 1
    with refused((str(target), "exists"), error=RunError):
        export_int8(run_dir)
    export_int8(run_dir, margin=0.5, overwrite=True)
    assert read_certificate(certificate_of(target)).exploratory  # a margin chosen after the result


def test_too_few_patients_certify_nothing(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "run", folds=5)
    with refused(("held-out patients", "too_few"), error=RunError):
        seg.export(run_dir, format="openvino", int8=True, margin=0.5)
    assert not (run_dir / "certificate_ledger.json").exists()  # nothing was looked at


def test_patients_whom_weights_before_saw_certify_nothing(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "run")
    names = [f"case_{number:02}" for number in range(CASES)]
    sides = {"train": names[::2], "validation": names[1::2]}
    record = {"schema_version": 1, "data": {name: name for name in names}, "split": sides}
    (run_dir / "environment.json").write_text(json.dumps(record | {"seen": {"renamed": "case_03"}}))
    with refused((str(run_dir), "seen"), error=RunError):
        export_int8(run_dir, margin=0.5)
    assert not (run_dir / "certificate_ledger.json").exists()  # nothing was looked at


def test_ranges_are_measured_on_training_cases(
    make_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = make_run(tmp_path / "run")
    configs, dataset, splits, _ = int8.read_held_out([run_dir])
    used, whole = [], int8.PreparedDataset

    def prepared(dataset: Dataset, cases: list[Case], *rest: object, **options: object) -> int8.PreparedDataset:
        used.extend(cases)
        return whole(dataset, cases, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(int8, "PreparedDataset", prepared)
    crops = int8.training_crops(configs[run_dir], dataset, splits[run_dir], 10)
    assert [crop.shape for crop in crops] == [(1, 1, 8, 8, 8)] * 10
    assert len({crop.tobytes() for crop in crops}) == 10
    assert len(used) == 10
    assert {case.id for case in used} <= set(splits[run_dir].train)


def test_an_export_connects_to_nothing(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run_dir, home = make_run(tmp_path / "run"), tmp_path / "home"
    words = ("export", "--run_dir", run_dir, "--format", "openvino", "--int8", "--margin", "0.5")
    assert watched(COMMAND, home, *words) == []
    assert [path for path in home.rglob("*") if "nncf" in path.name or "intel" in path.name] == []


def test_a_package_that_is_absent_is_named(
    make_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seg.inference.quantise.find_spec", lambda name: None)
    with refused(("nncf", "missing"), error=ConfigError):
        export_int8(make_run(tmp_path / "run"))


def test_a_final_model_holds_nothing_out_to_certify_it_on(root: Path, tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", config=replace(CONFIG, data=DataConfig(root=str(root)), fold=None))
    with refused((str(run_dir), "held_out"), error=SegError):
        export_int8(run_dir)


def test_int8_is_of_openvino_alone() -> None:
    with pytest.raises(TypeError):
        seg.export("runs/mine", format="onnx", int8=True)


def test_messages_of_others_stay_as_they_are(exported: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain = export(exported.parent / "run", format="openvino", output=tmp_path / "plain.xml")
    crop = np.random.default_rng(0).normal(size=(1, 1, 8, 8, 8)).astype(np.float32)
    quantise(plain, [crop], tmp_path / "coarse.xml")
    logging.getLogger("seg").warning("still heard")
    assert [record.message for record in caplog.records if record.name == "seg"] == ["still heard"]
