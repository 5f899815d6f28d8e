"""Networks of runs: which go together, their settings, and where they go when a GPU is full."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from seg.config import (
    AugmentationConfig,
    CtConfig,
    ExperimentConfig,
    MemoryFormat,
    PostprocessingConfig,
    SpatialConfig,
)
from seg.errors import RunError, SegError
from seg.inference.memory import place
from seg.inference.predictor import Predictor, load_model, load_predictor
from seg.networks.conv import MEMORY_FORMATS
from seg.runs import read_runs

Make = Callable[..., Path]
CUDA = torch.device("cuda")


def load(*run_dirs: Path, device: Any = "cpu", tta: bool = False, precision: Any = "auto") -> Predictor:
    return load_predictor(read_runs(run_dirs), device=device, tta=tta, probabilities=False, precision=precision)


def problems(*run_dirs: Path, **options: Any) -> list[tuple[str, str]]:
    with pytest.raises(SegError) as caught:
        load(*run_dirs, **options)
    return [(problem.path, problem.value) for problem in caught.value.problems]


def sentences(*run_dirs: Path) -> tuple[str, ...]:
    with pytest.raises(SegError) as caught:
        load(*run_dirs)
    return caught.value.sentences


def test_the_networks_are_those_of_the_run_directories(make_run: Make) -> None:
    runs = read_runs([make_run("a"), make_run("b", seed=1)])
    predictor = load(*(run.path for run in runs))
    for run, model in zip(runs, predictor.models, strict=True):
        saved = torch.load(run.path / "checkpoints" / "weights.pt", weights_only=True)["network"]
        assert isinstance(model.network, nn.Module)
        assert all(torch.equal(value, saved[name]) for name, value in model.network.state_dict().items())
        assert not model.network.training
    assert (predictor.channel_names, predictor.class_names) == (("MRI",), ("background", "left", "right"))
    content = (runs[1].path / "checkpoints" / "weights.pt").read_bytes()
    assert runs[1].description() == {"name": "tiny", "run": "b", "weights_sha256": hashlib.sha256(content).hexdigest()}


def test_a_directory_of_folds_stands_for_all_of_them(make_run: Make, tmp_path: Path) -> None:
    folds = [make_run(f"cv/fold_{fold}", seed=fold) for fold in (0, 1, 2, 10)]
    assert [run.path for run in read_runs([tmp_path / "cv"])] == folds
    for given in ([folds[1], folds[0], folds[1]], [tmp_path / "cv", folds[1]]):
        assert str(folds[1]) in sentences(*given)[0]
    assert problems(tmp_path / "cv", copy := make_run("copy", seed=1)) == [(str(copy), f"the weights of {folds[1]}")]


def test_mirroring_is_along_the_axes_of_training(
    make_run: Make, tiny_config: ExperimentConfig, caplog: pytest.LogCaptureFixture
) -> None:
    mirrored = replace(tiny_config, augmentation=AugmentationConfig(spatial=SpatialConfig(mirror_axes=(0, 2))))
    first, second = make_run("a", config=mirrored), make_run("b", seed=1)
    for tta, axes in ((False, ()), (True, (0, 2))):
        assert load(first, tta=tta).models[0].mirror_axes == axes
    (warning,) = load(first, second, tta=True).warnings
    assert str(second) in warning
    assert str(first) not in warning
    assert caplog.messages[-1] == warning


@pytest.mark.parametrize("name", ["config.yaml", "checkpoints/weights.pt", "model.json"])
def test_an_unfinished_run_is_refused(make_run: Make, name: str) -> None:
    run_dir = make_run()
    (run_dir / name).unlink()
    (said,) = sentences(run_dir)
    assert str(run_dir) in said
    assert name in said


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"channels": ("CT",)}, "['CT']"),
        ({"classes": ("background", "right", "left")}, "['background', 'right', 'left']"),
        ({"classes": ("background", "a", "b", "c")}, "float32 (4, 4, 1, 1, 1)"),
    ],
)
def test_weights_of_another_task_are_refused_whatever_their_shapes(
    make_run: Make, changes: dict[str, Any], named: str
) -> None:
    run_dir, other = make_run(), make_run("other", **changes)
    os.replace(other / "checkpoints" / "weights.pt", run_dir / "checkpoints" / "weights.pt")
    text = sentences(run_dir)[0]
    assert text.startswith(f"{run_dir}/checkpoints/weights.pt")
    assert f"got {named}; " in text


def test_runs_that_cannot_be_averaged_are_refused(make_run: Make, tiny_config: ExperimentConfig) -> None:
    first = make_run("a")
    spaced = replace(tiny_config, data=replace(tiny_config.data, spacing_mm=(1.0, 1.0, 1.0)))
    cleaned = replace(tiny_config, postprocessing=PostprocessingConfig(largest_component=("left",)))
    ct = CtConfig(lower=(0.0,), upper=(1.5,), mean=(0.5,), std=(0.1,))
    windowed = replace(tiny_config, data=replace(tiny_config.data, normalization=("ct",), ct=ct))
    others = {
        make_run("b", channels=("CT",)): [("channels", "CT")],
        make_run("c", classes=("background", "x")): [("classes", "background, x")],
        make_run("d", config=spaced): [("data.spacing_mm", "1, 1, 1")],
        make_run("e", config=cleaned): [("postprocessing.largest_component", "left")],
        make_run("f", config=windowed): [
            ("data.normalization", "ct"),
            ("data.ct", "lower 0; upper 1.5; mean 0.5; std 0.1"),
        ],
    }
    expected = [(f"{other}: {name}", value) for other, found in others.items() for name, value in found]
    assert problems(first, *others) == expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named(make_run: Make) -> None:
    assert problems(make_run(), device="cuda") == [("--device", "'cuda' without a GPU")]


@pytest.mark.parametrize("configured", ["auto", "fp32", "bf16"])
def test_precision_is_that_of_the_run_unless_it_is_named(
    make_run: Make, tiny_config: ExperimentConfig, monkeypatch: pytest.MonkeyPatch, configured: Any
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    run_dir = make_run(config=replace(tiny_config, training=replace(tiny_config.training, precision=configured)))
    for asked, expected in {"auto": "fp32" if configured == "fp32" else "bf16", "fp32": "fp32", "bf16": "bf16"}.items():
        assert [model.precision for model in load(run_dir, precision=asked).models] == [expected]
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert problems(run_dir, precision="bf16")[0][0] == "--precision"


FULL = [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("CUDA error: out of memory")]


LAYOUTS: tuple[MemoryFormat, ...] = ("channels_last_3d", "contiguous")


class Placed(nn.Module):
    """Notes where it is sent, and is refused on a GPU."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error, self.places = error, []

    def to(self, device: Any = None, memory_format: Any = None) -> Any:
        if self.error is not None and device.type == "cuda":
            raise self.error
        self.places.append(device.type)
        return self


@pytest.mark.parametrize("error", FULL)
def test_all_networks_go_to_the_processor_where_the_gpu_is_full_for_one(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    networks = [Placed(), Placed(error)]
    device, note = place(networks, LAYOUTS, CUDA, fall_back=True)
    assert (device.type, caplog.messages) == ("cpu", [note])
    assert [network.places[-1] for network in networks] == ["cpu", "cpu"]
    with pytest.raises(RunError) as caught:
        place(networks, LAYOUTS, CUDA, fall_back=False)
    assert [(problem.path, problem.kind) for problem in caught.value.problems] == [("memory", "memory")]
    with pytest.raises(RuntimeError, match="another fault"):
        place([Placed(RuntimeError("another fault"))], LAYOUTS[:1], CUDA, fall_back=True)


@pytest.mark.parametrize(
    ("kind", "layout"), [("cuda", "contiguous"), ("cpu", "channels_last_3d"), ("mps", "contiguous")]
)
def test_a_gpu_computes_in_the_layout_of_the_run_and_a_processor_in_its_own(
    make_run: Make, tiny_config: ExperimentConfig, monkeypatch: pytest.MonkeyPatch, kind: str, layout: str
) -> None:
    placed = []

    def to(module: nn.Module, *args: Any, device: Any, memory_format: Any) -> nn.Module:
        placed.append(memory_format)
        return module

    monkeypatch.setattr("seg.inference.predictor.choose_device", lambda wanted, option: torch.device(kind))
    monkeypatch.setattr("seg.inference.predictor.agreed_device", lambda networks, device: (device, ""))
    run_dir = make_run(config=replace(tiny_config, training=replace(tiny_config.training, memory_format="contiguous")))
    (run,) = read_runs([run_dir])
    monkeypatch.setattr(nn.Module, "to", to)
    load(run_dir, device="auto")
    load_model(run, torch.device(kind), "fp32")
    assert placed == [MEMORY_FORMATS[layout]] * 2


def test_the_predictor_says_that_the_processor_computes(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    real = nn.Module.to

    def full(module: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        if kwargs.get("device") == CUDA:
            raise FULL[0]
        return real(module, *args, **kwargs)

    monkeypatch.setattr("seg.inference.predictor.choose_device", lambda wanted, option: CUDA)
    monkeypatch.setattr(nn.Module, "to", full)
    predictor = load(make_run(), device="auto")
    assert [model.device.type for model in predictor.models] == ["cpu"]
    assert len(predictor.warnings) == 1
