"""The installed package: a wheel in a clean environment trains, and the functions of `seg` do what the commands do."""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import seg
from seg.cli import COMMANDS, read_command
from seg.compression.int8 import MARGIN
from seg.config import ExperimentConfig, dump_config, load_config
from seg.config.fields import REQUIRED
from seg.config.loading import fields_of
from seg.errors import ConfigError, RunError

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
    shutil.copytree(tmp_path / "labels", tmp_path / "copy")
    folders = seg.evaluate(predictions=tmp_path / "labels", labels=tmp_path / "copy", output=tmp_path / "scores")
    assert folders["mean_dice"] == 1
    with pytest.raises(TypeError):
        seg.evaluate()
    with pytest.raises(ConfigError):
        seg.train(tiny, training__step=3)


def test_a_data_set_is_planned_from_python(tiny_root: Path, tmp_path: Path) -> None:
    target = tmp_path / "plan.yaml"
    config = seg.plan(tiny_root, target)
    assert config == load_config([target])
    assert (config.data.label_grid, config.data.nan, config.data.classes) == ("own", "refuse", None)
    with pytest.raises(RunError) as caught:
        seg.plan(tiny_root, target)
    assert [(problem.path, problem.kind) for problem in caught.value.problems] == [(str(target), "exists")]
    config = seg.plan(tiny_root, target, label_grid="image", nan="background", classes=["box"], overwrite=True)
    assert config == load_config([target])
    assert (config.data.label_grid, config.data.nan, config.data.classes) == ("image", "background", ("box",))


def test_a_final_model_and_a_home_folder_from_python(
    tiny: ExperimentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    changes = {"training__steps": 2, "training__validate_every": 2}
    (tmp_path / "tiny.yaml").write_text(dump_config(tiny))
    (tmp_path / "over.yaml").write_text("seed: 3\n")
    final = seg.train(["~/tiny.yaml", "~/over.yaml"], folds="none", classes=["corner"], **changes)
    assert final == Path("runs/tiny/seed_3/final")
    assert seg.load_run(final).class_names == ("background", "corner")
    assert load_config([final / "config.yaml"]).fold is None
    run_dir = seg.train(tiny, run_dir="~/run", folds=[1], **changes)
    assert run_dir == tmp_path / "run"
    before = (run_dir / "checkpoints" / "weights.pt").read_bytes()
    assert seg.train(resume=True, run_dir="~/run") == run_dir  # by its own configuration
    assert (run_dir / "checkpoints" / "weights.pt").read_bytes() == before
    begun = seg.train(tiny, run_dir=tmp_path / "begun", folds=[1], init_from="~/run", **changes)
    assert load_config([begun / "config.yaml"]).training.init_from == str(run_dir)
    with pytest.raises(TypeError):
        seg.train(resume=True)


def test_folders_are_scored_from_python_as_by_the_command(
    tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = tiny_root / "labelsTr"
    ids = sorted(path.name for path in labels.glob("*.nii.gz"))
    some_labels = tmp_path / "labels"
    shutil.copytree(labels, some_labels)
    (some_labels / ids[0]).unlink()
    options = {"class_names": ["box", "corner"], "ignore_label": 5, "nsd_tolerance_mm": 2.0, "workers": 2}
    found = seg.evaluate(
        predictions=some_labels,
        labels=labels,
        images=tiny_root / "imagesTr",
        output=tmp_path / "python",
        leave_out=True,
        **options,
    )  # type: ignore[arg-type]
    words = ["--predictions", str(some_labels), "--labels", str(labels), "--images", str(tiny_root / "imagesTr")]
    words += ["--class_names", "box,corner", "--ignore_label", "5", "--nsd_tolerance_mm", "2.0", "--workers", "2"]
    code = read_command("evaluate", [*words, "--leave_out", "--output", str(tmp_path / "command")]).run()
    assert code == 1
    assert found == json.loads((tmp_path / "command" / "evaluation.json").read_text())
    assert len(found["left_out"]) == 1
    for wrong in ({"run_dir": "any", "labels": labels}, {"predictions": labels}, {"run_dir": "any", "workers": 2}):
        with pytest.raises(TypeError):
            seg.evaluate(**wrong)  # type: ignore[arg-type]


OTHER_NAMES = {
    "predict": {"run_dir": "run_dirs", "skip_existing": "existing", "overwrite": "existing"},
    "ablate": {"runs": "runs_dir", "set": "changes"},
}
OTHER_DEFAULTS = {
    ("predict", "existing"): "refuse",  # what the command does without either of its options
    ("export", "margin"): MARGIN,  # the command's default, which it has to tell from a number that is given
    ("train", "config"): None,
}


@pytest.mark.parametrize("name", ["train", "plan", "predict", "evaluate", "ablate", "export", "compress"])
def test_a_function_takes_every_option_of_its_command_with_its_default(name: str) -> None:
    function = inspect.signature(getattr(seg, name)).parameters
    for option, field in fields_of(COMMANDS[name]).items():
        own = option.removeprefix("data__") if name == "plan" else option.replace("__", "_")
        own = "data_root" if option == "data__root" else OTHER_NAMES.get(name, {}).get(option, own)
        assert own in function, f"seg.{name} lacks {option}"
        if field.default is not REQUIRED and function[own].kind is not inspect.Parameter.VAR_KEYWORD:
            expected = OTHER_DEFAULTS.get((name, own), field.default)
            if function[own].default is not inspect.Parameter.empty:
                assert function[own].default == expected, f"seg.{name}, {option}"
