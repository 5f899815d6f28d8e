"""The installed package: a wheel in a clean environment trains, and the functions of `seg` do what the commands do."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import seg
from seg.config import ExperimentConfig, load_config
from seg.errors import ConfigError

ROOT = Path(__file__).parents[2]
TINY = (
    *("--data.folds", "2", "--patches.size", "[8,8,8]", "--network.channels", "[4,8]"),
    *("--network.strides", "[[1,1,1],[2,2,2]]", "--network.kernel_sizes", "[[3,3,3],[3,3,3]]"),
    *("--optimizer.warmup_steps", "1", "--training.steps", "3", "--training.validate_every", "3"),
    *("--training.precision", "fp32", "--training.device", "cpu"),
)


def test_a_wheel_in_a_clean_environment_trains_with_a_configuration_of_the_package(
    tiny_root: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("README.md", "LICENSE", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, source)
    for name in ("seg", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    wheel = ["wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(source)]
    subprocess.run([*pip, *wheel], check=True)
    (built,) = tmp_path.glob("segnarrow-*.whl")
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    python = [*pip[:3], "--python", str(venv / "bin" / "python")]
    subprocess.run([*python, "install", "--quiet", "--no-deps", "--no-index", str(built)], check=True)
    (packages,) = venv.glob("lib/python*/site-packages")
    # The parent's packages, but not its own installation of this project, since files of paths are read once.
    (packages / "parent.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))

    def run(*words: str) -> str:
        command = [str(venv / "bin" / "seg"), *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("--version") == f"seg {seg.__version__}\n"
    run("train", "--config", "phantom", "--data.root", str(tiny_root), "--run_dir", "run", *TINY)
    assert (tmp_path / "run" / "evaluation.json").is_file()
    where = "import seg; print(seg.__file__)"
    home = subprocess.run(
        [venv / "bin" / "python", "-c", where], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert Path(home.stdout.strip()).is_relative_to(venv)


def test_import_of_the_package_is_light_and_its_functions_are_there() -> None:
    loaded = "[name for name in sys.modules if name.startswith(('seg.', 'torch'))]"
    probe = f"import sys, seg; assert {loaded} == [] and 'train' in dir(seg); print(seg.UNet, seg.train)"
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "seg.networks.unet.UNet" in done.stdout
    for name in seg.__all__:
        assert callable(getattr(seg, name))
    with pytest.raises(AttributeError):
        seg.nothing  # noqa: B018


def test_a_notebook_trains_loads_predicts_and_scores(tiny: ExperimentConfig, tmp_path: Path) -> None:
    run_dir = seg.train(tiny, run_dir=tmp_path / "run", training__steps=2, training__validate_every=2)
    assert run_dir == tmp_path / "run"
    assert load_config([run_dir / "config.yaml"]).training.steps == 2
    run = seg.load_run(run_dir)
    assert run.config.training.steps == 2
    with torch.no_grad():
        logits = run.network(torch.zeros(1, len(run.channel_names), 8, 8, 8))
    assert logits.shape == (1, len(run.class_names), 8, 8, 8)
    assert not run.network.training
    scans = Path(tiny.data.root) / "imagesTr"
    assert seg.predict(run_dir, scans, tmp_path / "labels", device="cpu") == tmp_path / "labels"
    assert len(list((tmp_path / "labels").glob("*.nii.gz"))) == len(list(scans.glob("*.nii.gz")))
    assert 0 <= seg.evaluate(run_dir)["mean_dice"] <= 1
    folders = seg.evaluate(predictions=tmp_path / "labels", labels=tmp_path / "labels", output=tmp_path / "scores")
    assert folders["mean_dice"] == 1
    with pytest.raises(TypeError):
        seg.evaluate()
    with pytest.raises(ConfigError):
        seg.train(tiny, training__step=3)


def test_a_data_set_is_planned_from_python(tiny_root: Path, tmp_path: Path) -> None:
    config = seg.plan(tiny_root, tmp_path / "plan.yaml")
    assert config == load_config([tmp_path / "plan.yaml"])
