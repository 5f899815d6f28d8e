from __future__ import annotations

import hashlib
import os
from dataclasses import replace

import pytest
import torch

from seg.config import AugmentationConfig, CtConfig, PostprocessingConfig, SpatialConfig
from seg.errors import ConfigError, SegError
from seg.inference.predictor import load_predictor
from seg.runs import read_runs


def load(*run_dirs):
    return load_predictor(read_runs(run_dirs), device="cpu", tta=False, probabilities=False)


def problem(*run_dirs):
    with pytest.raises(SegError) as caught:
        load(*run_dirs)
    return str(caught.value)


def test_the_networks_are_those_of_the_run_directories(make_run):
    runs = read_runs([make_run("a"), make_run("b", seed=1)])
    predictor = load_predictor(runs, device="cpu", tta=False, probabilities=True)
    assert len(predictor.models) == 2
    for run, model in zip(runs, predictor.models, strict=True):
        saved = torch.load(run.path / "checkpoints" / "weights.pt", weights_only=True)["network"]
        assert all(torch.equal(value, saved[name]) for name, value in model.network.state_dict().items())
        assert not model.network.training
    assert (predictor.channel_names, predictor.class_names) == (("MRI",), ("background", "left", "right"))
    description = runs[1].description()
    content = (runs[1].path / "checkpoints" / "weights.pt").read_bytes()
    assert description == {"name": "tiny", "run": "b", "weights_sha256": hashlib.sha256(content).hexdigest()}


def test_a_directory_of_folds_stands_for_all_of_them(make_run, tmp_path):
    for fold in (0, 1, 10, 2):
        make_run(f"cv/fold_{fold}", seed=fold)
    assert [run.path.name for run in read_runs([tmp_path / "cv"])] == ["fold_0", "fold_1", "fold_2", "fold_10"]


def test_mirroring_is_along_the_axes_of_training(make_run, tiny_config, caplog):
    mirrored = replace(tiny_config, augmentation=AugmentationConfig(spatial=SpatialConfig(mirror_axes=(0, 2))))
    runs = read_runs([make_run("a", config=mirrored)])
    for tta, axes in ((False, ()), (True, (0, 2))):
        assert load_predictor(runs, device="cpu", tta=tta, probabilities=False).models[0].mirror_axes == axes
    load_predictor(read_runs([make_run("b")]), device="cpu", tta=True, probabilities=False)
    assert "--tta changes nothing: training mirrored along no axis" in caplog.text


@pytest.mark.parametrize("name", ["config.yaml", "checkpoints/weights.pt", "model.json"])
def test_an_unfinished_run_is_refused(make_run, name):
    run_dir = make_run()
    (run_dir / name).unlink()
    assert problem(run_dir) == f"{run_dir}: must be the directory of a finished run, got no {name}; check --run_dir."


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"channels": ("CT",)}, "['CT']"),
        ({"classes": ("background", "right", "left")}, "['background', 'right', 'left']"),
        ({"classes": ("background", "a", "b", "c")}, "float32 (4, 4, 1, 1, 1)"),
    ],
)
def test_weights_of_another_task_are_refused_whatever_their_shapes(make_run, changes, named):
    run_dir, other = make_run(), make_run("other", **changes)
    os.replace(other / "checkpoints" / "weights.pt", run_dir / "checkpoints" / "weights.pt")
    text = problem(run_dir)
    assert text.startswith(f"{run_dir}/checkpoints/weights.pt: ")
    assert f"got {named}; " in text


def test_a_run_that_is_named_twice_is_refused(make_run, tmp_path):
    folds = [make_run(f"cv/fold_{fold}", seed=fold) for fold in (0, 1)]
    for given in ([folds[1], folds[0], folds[1]], [tmp_path / "cv", folds[1]]):
        with pytest.raises(ConfigError) as caught:
            read_runs(given)
        assert str(caught.value) == (
            f"--run_dir must name each run once, got {folds[1]} twice; it would count double, leave it out."
        )
    copy = make_run("copy", seed=1)
    assert problem(tmp_path / "cv", copy) == (
        f"{copy}: runs must differ to be averaged, got the weights of {folds[1]}; they would count double, leave "
        "one of them out."
    )


def test_runs_that_cannot_be_averaged_are_refused(make_run, tiny_config):
    first = make_run("a")
    spaced = replace(tiny_config, data=replace(tiny_config.data, spacing_mm=(1.0, 1.0, 1.0)))
    cleaned = replace(tiny_config, postprocessing=PostprocessingConfig(largest_component=("left",)))
    ct = CtConfig(lower=(0.0,), upper=(1.5,), mean=(0.5,), std=(0.1,))
    windowed = replace(tiny_config, data=replace(tiny_config.data, normalization=("ct",), ct=ct))
    others = [
        make_run("b", channels=("CT",)),
        make_run("c", classes=("background", "x")),
        make_run("d", config=spaced),
        make_run("e", config=cleaned),
        make_run("f", config=windowed),
    ]
    remedy = "; predict with each alone, or leave one out."
    assert problem(first, *others).splitlines() == [
        f"{others[0]}: channels must be those of {first} to average both, got CT where that has MRI{remedy}",
        f"{others[1]}: classes must be those of {first} to average both, got background, x where that has background, "
        f"left, right{remedy}",
        f"{others[2]}: data.spacing_mm must be those of {first} to average both, got 1, 1, 1 where that has "
        f"none{remedy}",
        f"{others[3]}: postprocessing.largest_component must be those of {first} to average both, got left where that "
        f"has none{remedy}",
        f"{others[4]}: data.normalization must be those of {first} to average both, got ct where that has "
        f"zscore{remedy}",
        f"{others[4]}: data.ct must be those of {first} to average both, got lower 0; upper 1.5; mean 0.5; std 0.1 "
        f"where that has none{remedy}",
    ]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named(make_run):
    with pytest.raises(ConfigError, match="--device must be available, got 'cuda' without a GPU; use auto or cpu"):
        load_predictor(read_runs([make_run()]), device="cuda", tta=False, probabilities=False)


@pytest.mark.parametrize("configured", ["auto", "fp32", "bf16"])
def test_precision_is_that_of_the_run_unless_it_is_named(make_run, tiny_config, monkeypatch, configured):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    runs = read_runs(
        [make_run(config=replace(tiny_config, training=replace(tiny_config.training, precision=configured)))]
    )
    for asked, expected in {"auto": "fp32" if configured == "fp32" else "bf16", "fp32": "fp32", "bf16": "bf16"}.items():
        predictor = load_predictor(runs, device="cpu", tta=False, probabilities=False, precision=asked)
        assert [model.precision for model in predictor.models] == [expected]


def test_arithmetic_that_the_hardware_lacks_is_refused(make_run, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    with pytest.raises(ConfigError) as caught:
        load_predictor(read_runs([make_run()]), device="cpu", tta=False, probabilities=False, precision="bf16")
    assert str(caught.value) == (
        "--precision must be one that the processor computes, got 'bf16', which it lacks; use fp32."
    )
