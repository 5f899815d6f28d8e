"""Exported networks compute what torch computes, say how well, and are refused where they do not."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seg.config import BottleneckConfig, ExperimentConfig, NetworkConfig
from seg.errors import RunError, SegError
from seg.inference.engines import ExportedNetwork
from seg.inference.export import Check, check_problems, check_shapes, export_network
from seg.inference.exported import exported_file, read_export, record_path
from seg.inference.predictor import load_predictor
from seg.networks.norm import InstanceNorm3d
from seg.runs import read_runs

onnx = pytest.importorskip("onnx", reason="needs the extra export")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra export")
pytest.importorskip("onnxscript", reason="needs the extra export")
pytest.importorskip("openvino", reason="needs the extra export")
UNEVEN: dict[str, Any] = {
    "channels": (4, 6, 8),
    "strides": ((1, 1, 1), (2, 2, 1), (2, 2, 2)),
    "kernel_sizes": ((3, 3, 1), (3, 3, 3), (3, 3, 3)),
}
NETWORKS = {
    "plain": NetworkConfig(**UNEVEN),
    "decoder": NetworkConfig(
        **UNEVEN, decoder_bottleneck=BottleneckConfig(ratio=1.0, norm=True, activation="leaky_relu")
    ),
    "linear": NetworkConfig(
        **UNEVEN,
        upsample="linear",
        skip_bottleneck=BottleneckConfig(ratio=2.0, activation="prelu"),
        decoder_bottleneck=BottleneckConfig(ratio=0.5, activation="relu"),
    ),
    "add": NetworkConfig(
        **UNEVEN,
        merge="add",
        residual=True,
        deep_supervision=True,
        skip_bottleneck=BottleneckConfig(ratio=0.5, activation="sigmoid", norm=True),
    ),
}
EXPORTED = {"onnx": "net.onnx", "openvino": "net.xml"}


@pytest.mark.parametrize(("name", "form"), [*((name, "onnx") for name in NETWORKS), ("linear", "openvino")])
def test_every_network_is_exported_with_open_batch_and_space(
    name: str, form: Any, make_run: Callable[..., Path], tiny_config: ExperimentConfig, tmp_path: Path
) -> None:
    config = replace(tiny_config, network=NETWORKS[name])
    run_dir = make_run(config=config, channels=("T1", "T2"))
    (run,) = read_runs([run_dir])
    file = tmp_path / EXPORTED[form]
    record = export_network(run, file, form)
    network = run.network()
    engines = {check.engine for check in record.checks}
    assert engines == ({"openvino", "onnxruntime"} if form == "onnx" else {"openvino"})
    assert all(check.largest_difference < 1e-4 for check in record.checks)
    assert {check.shape for check in record.checks} == {(1, 2, 8, 8, 8), (2, 2, 12, 8, 8), (1, 2, 8, 12, 10)}
    for shape in ((1, 2, 8, 12, 6), (3, 2, 12, 8, 4)):  # of none of the checks
        windows = np.random.default_rng(1).normal(size=shape).astype(np.float32)
        with torch.inference_mode():
            expected = network(torch.from_numpy(windows)).numpy()
        if form == "onnx":  # with shapes left open
            norms = sum(isinstance(module, InstanceNorm3d) for module in network.modules())
            operators = [node.op_type for node in onnx.load(file).graph.node]
            assert operators.count("InstanceNormalization") == norms
            assert "Reshape" not in operators  # as where norms are traced
            session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
            assert session.get_outputs()[0].shape == ["batch", len(run.class_names), "x", "y", "z"]
            np.testing.assert_allclose(session.run(None, {"image": windows})[0], expected, atol=1e-3)
        for engine in engines:
            np.testing.assert_allclose(ExportedNetwork(file, engine)(windows), expected, atol=1e-3)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.inference.conftest import write_run

    folder = tmp_path_factory.mktemp("exported")
    (run,) = read_runs([write_run(folder / "run", verdict="not shown")])
    export_network(run, folder / "net.xml", "openvino")
    return folder / "net.xml"


@pytest.fixture
def own(exported: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    for path in (exported, exported.with_suffix(".bin"), record_path(exported)):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path / exported.name


def test_a_signal_is_handled_once_networks_were_freed_in_the_order_in_which_they_were_made(exported: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
import numpy as np
from seg.inference.engines import ExportedNetwork
networks = [ExportedNetwork(Path(sys.argv[1]), "openvino", threads=1) for _ in range(2)]
for network in networks:
    network(np.zeros((1, 1, 8, 8, 8), np.float32))
del network
while networks:
    del networks[0]
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGTERM)
"""
    done = subprocess.run([sys.executable, "-c", code, str(exported)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


def test_the_record_holds_the_run_and_digests_of_what_lies_beside_it(exported: Path) -> None:
    (run,) = read_runs([exported.parent / "run"])
    read = read_export(exported)
    assert (read.config, read.channel_names, read.class_names) == (run.config, run.channel_names, run.class_names)
    content = json.loads(record_path(exported).read_text())
    assert content["schema_version"] == 1
    files = {name: (exported.parent / name).read_bytes() for name in ("net.xml", "net.bin")}
    assert content["files"] == {name: hashlib.sha256(raw).hexdigest() for name, raw in files.items()}
    weights = exported.parent / "run" / "checkpoints" / "weights.pt"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert read.description()["weights_sha256"] == content["weights_sha256"] == digest
    assert content["certificate"] == {"verdict": "not shown"}
    assert not any(b"site-packages" in raw or str(Path.cwd()).encode() in raw for raw in files.values())


def test_an_exported_network_that_was_not_shown_to_be_as_good_is_announced(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = read_export(exported)
    load = partial(load_predictor, device="cpu", tta=False, probabilities=False, engine="openvino")
    (warning,) = load([run]).warnings
    assert warning.startswith(exported.name)
    passed = {"verdict": "not inferior", "exploratory": False}
    assert load([replace(run, certificate=passed)]).warnings == ()
    assert load([replace(run, certificate=None)]).warnings == ()
    conditions = {"engine": "openvino 2.13.0, both networks", "precision": "fp32", "mirroring": "none"}
    changes: list[dict[str, str]] = [{}, {"engine": "torch 2.13.0"}, {"precision": "bf16"}, {"mirroring": "X"}]
    for change in changes:
        warnings = load([replace(run, certificate={**passed, "conditions": conditions | change})]).warnings
        assert [one.startswith(exported.name) for one in warnings] == [True] * len(change)
    monkeypatch.setattr("seg.inference.predictor.chosen_classes", lambda _: (run.class_names[1],))
    assert len(load([replace(run, certificate={**passed, "conditions": conditions})]).warnings) == 1


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda file: file.with_suffix(".bin").write_bytes(file.with_suffix(".bin").read_bytes()[:-4]), "digest"),
        (lambda file: file.with_suffix(".bin").unlink(), "missing"),
        (lambda file: record_path(file).unlink(), "missing"),
        (lambda file: edit(file, lambda content: content["config"]["inference"].update(overlap=0.25)), "digest"),
        (lambda file: edit(file, lambda content: content["files"].update({"../../etc/passwd": "0"})), "path"),
        (lambda file: edit(file, lambda content: content["files"].update({"": "0"})), "path"),
        (lambda file: edit(file, lambda content: content["files"].update({"..": "0"})), "path"),
        (lambda file: edit(file, lambda content: content.update(label_values=[[0], [5], [6]])), "digest"),
        (lambda file: edit(file, lambda content: content.update(largest_component=["nope"])), "digest"),
        (lambda file: edit(file, lambda content: content.update(arithmetic="int8")), "digest"),
        (lambda file: edit(file, lambda content: content.pop("record_sha256")), "digest"),
        (lambda file: edit(file, lambda content: content["files"].pop("net.xml")), "missing"),
        (lambda file: edit(file, lambda content: content.update(schema_version=2)), "version"),
        (lambda file: edit(file, lambda content: content.update(arithmetic="fp8")), "literal_error"),
    ],
)
def test_an_export_that_was_changed_is_refused(own: Path, change: Callable[[Path], object], kind: str) -> None:
    assert read_export(own)
    change(own)
    with pytest.raises(SegError) as caught:
        read_export(own)
    assert kind in {problem.kind for problem in caught.value.problems}


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(record_path(file).read_text())
    change(content)
    record_path(file).write_text(json.dumps(content))


@pytest.mark.usefixtures("exports_kept")
@pytest.mark.parametrize(
    ("wrong", "kinds"),
    [
        (lambda logits: logits[:, ::-1], {"labels", "logits"}),
        (lambda logits: logits * np.float32(1.01), {"logits"}),
        (lambda logits: logits * np.float32(np.nan), {"labels", "logits"}),
    ],
)
def test_a_network_that_computes_something_else_is_not_written(
    wrong: Callable[[Any], Any],
    kinds: set[str],
    make_run: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (run,) = read_runs([make_run()])
    call = ExportedNetwork.__call__
    monkeypatch.setattr(ExportedNetwork, "__call__", lambda self, windows: wrong(call(self, windows)))
    with pytest.raises(SegError) as caught:
        export_network(run, tmp_path / "out" / "net.onnx", "onnx")
    assert {problem.kind for problem in caught.value.problems} == kinds
    assert not (tmp_path / "out").exists()


def test_voxels_of_all_shapes_count_alike() -> None:
    small = Check(engine="openvino", shape=(1, 1, 10, 10, 10), equal_labels=0.999, largest_difference=0.0)
    large = Check(engine="openvino", shape=(2, 1, 100, 10, 10), equal_labels=1.0, largest_difference=0.0)
    assert check_problems([small, large], "openvino") == []  # 1 voxel of 21,000
    assert [problem.kind for problem in check_problems([small], "openvino")] == ["labels"]


def test_shapes_to_check_differ_in_every_axis_and_hold_whole_strides(tiny_config: ExperimentConfig) -> None:
    shapes = check_shapes(replace(tiny_config, network=NETWORKS["plain"]))
    assert len({size for _, size in shapes}) == 3
    assert all(x % 4 == y % 4 == z % 2 == 0 for _, (x, y, z) in shapes)
    assert all(len(set(sizes)) > 1 for sizes in zip(*(size for _, size in shapes), strict=True))


def test_a_cache_that_cannot_be_written_ends_before_the_export(
    make_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("seg.inference.export.export_network", lambda *_: pytest.fail("exported"))
    (run,) = read_runs([make_run()])
    with pytest.raises(RunError) as caught:
        exported_file(run)
    (problem,) = caught.value.problems
    assert problem.kind == "unwritable"
    assert problem.path.startswith(f"{tmp_path / 'file'}/")
