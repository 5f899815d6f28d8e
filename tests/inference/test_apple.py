"""Networks on Apple's GPU, as far as a machine without one tells."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import torchgen
import yaml
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from seg.config import (
    BottleneckConfig,
    ExperimentConfig,
    LossConfig,
    NetworkConfig,
    OptimizerConfig,
    PatchConfig,
    WidthsConfig,
)
from seg.data.cases import Dataset
from seg.data.datamodule import SegmentationData
from seg.data.splits import Split
from seg.hardware import choose_device, choose_precision, computes_bf16, environment
from seg.inference import apple
from seg.inference.apple import agreed_device, disagreement, logits_of, on_processor
from seg.inference.predictor import Predictor, load_predictor
from seg.networks import network_from_config
from seg.networks.blocks import initialise
from seg.runs import read_runs
from seg.training.fit import training_step
from seg.training.losses import build_loss
from seg.training.optim import build_optimizer
from seg.workflows.predict import predict

CPU, META, MPS = torch.device("cpu"), torch.device("meta"), torch.device("mps")
SMALL = NetworkConfig(channels=(2, 4), strides=((1, 1, 1), (2, 2, 2)), kernel_sizes=((3, 3, 3), (3, 3, 3)))


@pytest.fixture
def apple_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that says it has an Apple GPU; what is sent there fails, as torch has no kernels for it here."""
    if torch.backends.mps.is_available():
        pytest.skip("this machine has one")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)


def small(**changes: Any) -> ExperimentConfig:
    return ExperimentConfig(network=SMALL, patches=PatchConfig(size=(8, 6, 4)), **changes)


def data_set(tmp_path: Path) -> Dataset:
    return Dataset(
        name="any",
        root=tmp_path,
        layout="manifest",
        cases=(),
        class_names=("background", "a", "b"),
        channel_names=("x",),
        ignore_label=None,
        licence="",
        attribution="",
    )


def test_an_apple_gpu_computes_in_fp32_and_is_named(apple_gpu: None) -> None:
    assert choose_device("auto") == choose_device("mps") == MPS
    assert [choose_precision(wanted, MPS) for wanted in ("auto", "fp32", "bf16")] == ["fp32"] * 3  # type: ignore[arg-type]
    assert not computes_bf16(MPS)
    assert environment(MPS, "fp32")["device"] not in ("", environment(CPU, "fp32")["device"])


def test_results_that_agree_are_told_from_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = small()
    network = network_from_config(SMALL, 1, 3)
    initialise(network, 0)
    before = copy.deepcopy(network.state_dict())
    for work in (logits_of((8, 6, 4), 1), training_step(config, data_set(tmp_path))):
        assert disagreement(network, work, CPU) == ""
        # No voxel of a meta tensor can be read back: a device that lacks an operator raises the same error.
        assert "NotImplementedError" in disagreement(network, work, META)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())

    def changed(module: nn.Module, times: list[int]) -> nn.Module:
        """Copies, the second time with one weight of one kernel off by a tenth."""
        other = copied(module)
        times.append(1)
        if len(times) == 2:
            with torch.no_grad():
                other.encoder[1][0].conv.weight[0, 0, 1, 1, 1] += 0.1
        return other

    copied = copy.deepcopy
    for work in (logits_of((8, 6, 4), 1), training_step(config, data_set(tmp_path))):
        times: list[int] = []
        monkeypatch.setattr(apple, "copy", SimpleNamespace(deepcopy=lambda one, times=times: changed(one, times)))
        assert "differ" in disagreement(network, work, CPU)


def test_results_that_are_no_numbers_do_not_agree() -> None:
    calls: list[int] = []

    def work(network: nn.Module, device: torch.device) -> list[torch.Tensor]:
        calls.append(1)
        return [torch.tensor([1.0, float("nan") if len(calls) == 2 else 1.0])]

    assert "differ" in disagreement(nn.Identity(), work, CPU)


def test_other_devices_are_taken_without_a_comparison() -> None:
    def work(network: nn.Module, device: torch.device) -> list[torch.Tensor]:
        raise AssertionError

    for device in (CPU, torch.device("cuda")):
        assert agreed_device([(nn.Identity(), work)], device) == (device, "")


def test_a_prediction_falls_back_to_the_processor_and_says_so(
    apple_gpu: None, make_run: Callable[..., Path], scans: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_dir = make_run()
    for name, device in (("apple", "auto"), ("plain", "cpu")):
        out = tmp_path / name
        assert predict(run_dirs=[run_dir], input=scans, output=out, device=device) == 0  # type: ignore[arg-type]
    assert [one.levelname for one in caplog.records if "mps" in one.getMessage()].count("WARNING") == 1
    for path in sorted((tmp_path / "plain").glob("*.nii.gz")):
        voxels = [np.asanyarray(nib.load(tmp_path / name / path.name).dataobj) for name in ("apple", "plain")]  # type: ignore[attr-defined]
        np.testing.assert_array_equal(*voxels)
    loaded = load_predictor(read_runs([run_dir]), device="mps", tta=False, probabilities=False)
    assert (loaded.torch_device, len(loaded.warnings)) == (CPU, 1)


def test_sums_of_logits_stay_on_the_processor(make_run: Callable[..., Path]) -> None:
    plain = load_predictor(read_runs([make_run()]), device="cpu", tta=False, probabilities=False)
    assert plain.memory.attempt is None
    models = [SimpleNamespace(device=MPS)]
    there = Predictor(models=models, data=plain.data, channel_names=("x",), class_names=("a", "b"))  # type: ignore[arg-type]
    assert there.memory.attempt is not None
    assert there.memory.attempt.device == CPU
    moves: list[torch.device] = []

    class Window:
        def to(self, device: torch.device) -> Window:
            moves.append(device)
            return self

    on_processor(lambda window: window, MPS)(Window())
    assert moves == [MPS, CPU]


@pytest.mark.parametrize("kind", ["mps", "cpu"])
def test_patches_are_augmented_once_before_an_apple_gpu_and_on_other_devices(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = SegmentationData(small(), data_set(tmp_path), Split(train=(), validation=()), tmp_path)
    strategy = SimpleNamespace(root_device=torch.device(kind))
    data.trainer = SimpleNamespace(training=True, strategy=strategy)  # type: ignore[assignment]
    monkeypatch.setattr(SegmentationData, "augmented", lambda self, batch: batch | {"times": batch["times"] + 1})
    before = data.on_before_batch_transfer({"times": 0}, 0)
    assert before["times"] == (kind == "mps")
    assert data.on_after_batch_transfer(before, 0)["times"] == 1
    data.trainer = SimpleNamespace(training=False, strategy=strategy)  # type: ignore[assignment]
    assert data.on_after_batch_transfer(data.on_before_batch_transfer({"times": 0}, 0), 0)["times"] == 0


class Operators(TorchDispatchMode):
    """Notes the operators that reach a device."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(str(func.name()).removeprefix("aten::"))
        return func(*args, **kwargs or {})


def has_kernel(entry: dict[str, Any], entries: dict[str, dict[str, Any]]) -> bool:
    """Tells by torch's table whether an operator runs on an Apple GPU: by a kernel for it, or made of others."""
    while "structured_delegate" in entry:
        entry = entries[entry["structured_delegate"]]
    keys = ", ".join(entry.get("dispatch", {"CompositeImplicitAutograd": ""}))
    return "MPS" in keys or "Composite" in keys


OPTIONS = {
    "transposed": NetworkConfig(upsample="transposed"),
    "linear": NetworkConfig(upsample="linear", decoder_bottleneck=BottleneckConfig(ratio=1.0)),
    "deep": NetworkConfig(deep_supervision=True, merge="add", residual=True, upsample="linear"),
    **{
        name: NetworkConfig(skip_bottleneck=BottleneckConfig(ratio=2.0, activation=name, norm=True))  # type: ignore[arg-type]
        for name in ("relu", "leaky_relu", "prelu", "sigmoid")
    },
    "ranks": NetworkConfig(
        channels=(4, 8),
        strides=((1, 1, 1), (2, 2, 2)),
        kernel_sizes=((3, 3, 3), (3, 3, 3)),
        widths=WidthsConfig(encoder_ranks=(((0, 2), (2, 2)), ((2, 2), (2, 0))), decoder_ranks=(((2, 2), (0, 0)),)),
    ),
}
LOSSES = (LossConfig(), LossConfig(class_weights=(1.0, 2.0, 3.0), focal_gamma=2.0, top_k=0.5))


def test_torch_has_a_kernel_for_every_operator_of_every_network() -> None:
    table = Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml"
    entries = {entry["func"].partition("(")[0]: entry for entry in yaml.safe_load(table.read_text())}
    assert not has_kernel(entries["slow_conv_transpose3d.out"], entries)  # the processor's own
    noted = Operators()
    for network in OPTIONS.values():
        for optimizer in ("adamw", "sgd", "muon"):
            # On the meta device networks take the path of a GPU, and compute shapes alone.
            module = network_from_config(network, 1, 3).to(META)
            with noted:
                outputs = module(torch.empty(2, 1, 16, 16, 8, device=META))
                for logits in outputs if isinstance(outputs, list) else [outputs]:
                    logits.sum().backward(retain_graph=True)
                build_optimizer(module, OptimizerConfig(name=optimizer)).step()  # type: ignore[arg-type]
    for loss in LOSSES:
        logits = torch.randn(2, 3, 4, 4, 4, requires_grad=True)
        with noted:
            build_loss(loss, ignore_index=3)([logits, logits], torch.randint(4, (2, 1, 4, 4, 4))).backward()
    assert {"convolution", "convolution_backward", "upsample_trilinear3d", "topk"} <= noted.names
    lacking = {name for name in noted.names if name in entries and not has_kernel(entries[name], entries)}
    assert not lacking
