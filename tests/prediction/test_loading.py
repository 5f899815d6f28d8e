from __future__ import annotations

import hashlib
import json
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
    "content",
    ["", "[]", "{}", '{"schema_version": 1, "channel_names": "MRI", "class_names": ["a", "b"]}'],
)
def test_a_description_that_cannot_be_read_is_refused(make_run, content):
    run_dir = make_run()
    (run_dir / "model.json").write_text(content)
    assert "must be the description of a network, got " in problem(run_dir)


def test_a_newer_description_is_refused(make_run):
    run_dir = make_run()
    content = json.loads((run_dir / "model.json").read_text()) | {"schema_version": 2}
    (run_dir / "model.json").write_text(json.dumps(content))
    assert "schema version must be at most 1, got 2; it was written by a newer release, update seg." in problem(run_dir)


def test_weights_of_another_task_are_refused(make_run):
    run_dir, other = make_run(), make_run("other", classes=("background", "a", "b", "c"))
    os.replace(other / "checkpoints" / "weights.pt", run_dir / "checkpoints" / "weights.pt")
    text = problem(run_dir)
    assert text.startswith(
        f"{run_dir}/checkpoints/weights.pt: weights must fit the network of config.yaml and model.json"
    )
    assert "must have shape (3, 4, 1, 1, 1), got shape (4, 4, 1, 1, 1); the file belongs to another run" in text


@pytest.mark.parametrize(
    ("changes", "name", "wanted", "found"),
    [
        ({"channels": ("CT",)}, "channel_names", "['MRI']", "['CT']"),
        ({"classes": ("background", "right", "left")}, "class_names", "['background', 'left', 'right']", None),
    ],
)
def test_weights_of_another_task_are_refused_whatever_their_shapes(make_run, changes, name, wanted, found):
    run_dir, other = make_run(), make_run("other", **changes)
    os.replace(other / "checkpoints" / "weights.pt", run_dir / "checkpoints" / "weights.pt")
    assert problem(run_dir) == (
        f"{run_dir}/checkpoints/weights.pt: weights must be for the {name} of model.json, {wanted}, got "
        f"{found or ['background', 'right', 'left']}; the file belongs to another run, restore the run's own."
    )


def test_weights_without_names_are_refused(make_run):
    run_dir = make_run()
    path = run_dir / "checkpoints" / "weights.pt"
    content = torch.load(path, weights_only=True)
    assert (content.pop("channel_names"), content["class_names"]) == (["MRI"], ["background", "left", "right"])
    torch.save(content, path)
    assert problem(run_dir).startswith(f"{path}: must be a whole weights file of this project, tensors alone, got Key")


def test_names_in_weights_that_are_none_are_refused(make_run):
    run_dir = make_run()
    path = run_dir / "checkpoints" / "weights.pt"
    torch.save(torch.load(path, weights_only=True) | {"class_names": [1, 2, 3]}, path)
    assert problem(run_dir).startswith(f"{path}: must be a whole weights file of this project, tensors alone, got Type")


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


class Evil:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("damage", ["truncated", "pickle", "text"])
def test_damaged_and_hostile_weights_are_refused_and_not_run(make_run, tmp_path, monkeypatch, damage):
    monkeypatch.chdir(tmp_path)
    run_dir = make_run()
    path = run_dir / "checkpoints" / "weights.pt"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-2000])
    elif damage == "pickle":
        torch.save({"schema_version": 1, "network": {"a": Evil()}}, path)
    else:
        path.write_text("weights")
    text = problem(run_dir)
    assert text.startswith(f"{path}: must be a whole weights file of this project, tensors alone, got ")
    assert text.endswith("; nothing in it was run; copy it again or train anew.")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(make_run, value):
    run_dir = make_run()
    path = run_dir / "checkpoints" / "weights.pt"
    content = torch.load(path, weights_only=True)
    names = list(content["network"])
    content["network"][names[1]].view(-1)[0] = value
    torch.save(content, path)
    assert problem(run_dir) == (
        f"{path}: weights must be finite, got NaN or infinity in 1 of {len(names)} tensors, {names[1]} first; restore "
        "the file, or train anew with a lower learning rate."
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
