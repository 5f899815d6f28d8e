"""An installation without the packages of training predicts with exported networks, and names the extra otherwise."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from seg.cli import TRAINING_PACKAGES
from seg.workflows.export import export
from seg.workflows.predict import predict
from tests.inference.conftest import write_run

for package in ("openvino", "onnxruntime", "onnxscript"):
    pytest.importorskip(package, reason="needs the extra export")
ROOT = Path(__file__).parents[2]
PROBE = """
import sys
from importlib.machinery import PathFinder
refused, tried = REFUSED, []

class Installed:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] not in refused:
            return PathFinder.find_spec(name, path, target)
        tried.append(name)

sys.meta_path[sys.meta_path.index(PathFinder)] = Installed
from seg.cli import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    print("code", ended.code)
print("tried", [name for name in tried if name.partition(".")[0] in ("torch", "monai", "pytorch_lightning")])
"""


def distributions(extra: str) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return {re.split(r"[\[<>=]", line)[0].lower() for line in listed}


def modules(names: set[str]) -> set[str]:
    """Returns the modules of distributions, as the installed packages themselves say."""
    found = metadata.packages_distributions()
    return {module for module, owners in found.items() if {owner.lower() for owner in owners} & names}


def light(engine: str) -> set[str]:
    """Returns the modules that an installation with an engine alone lacks."""
    return (modules(distributions("train")) | modules(distributions("export"))) - modules({engine, "numpy"})


def run(refused: set[str], *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROBE.replace("REFUSED", repr(refused)), *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(write_run(tmp_path_factory.mktemp("light") / "run"), format="onnx")


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_label_maps_are_the_same_without_torch(engine: str, exported: Path, tiny_root: Path, tmp_path: Path) -> None:
    refused = light(engine)
    assert {"torch", "monai", "pytorch_lightning", "pandas", "matplotlib", "onnx", "onnxscript"} <= refused
    scans = tiny_root / "imagesTr"
    words = ("predict", "--run_dir", exported, "--input", scans, "--output", tmp_path / "light", "--probabilities")
    done = run(refused, *words)
    assert done.stdout.splitlines()[-2:] == ["code 0", "tried []"], done.stderr
    predict(
        run_dirs=[exported],
        input=scans,
        output=tmp_path / "full",
        probabilities=True,
        engine=engine,  # type: ignore[arg-type]
    )
    predict(run_dirs=[exported.with_suffix("")], input=scans, output=tmp_path / "torch", device="cpu", precision="fp32")
    paths = sorted((tmp_path / "full").rglob("*.nii.gz"))
    assert len(paths) == 2 * len(list(scans.iterdir()))
    for path in paths:
        assert path.read_bytes() == (tmp_path / "light" / path.relative_to(tmp_path / "full")).read_bytes()
    for path in (tmp_path / "torch").glob("*.nii.gz"):
        expected, found = nib.load(path), nib.load(tmp_path / "light" / path.name)
        assert expected.header == found.header
        assert np.mean(np.asarray(expected.dataobj) == np.asarray(found.dataobj)) > 0.999


def test_commands_of_training_name_the_extra_that_they_need(exported: Path, tiny_root: Path, tmp_path: Path) -> None:
    refused = light("openvino")
    data = ("--data.root", tiny_root, "--run_dir", tmp_path / "new")
    for words in (
        ("train", "--config", "phantom", *data),
        ("predict", "--run_dir", exported.with_suffix(""), "--input", tiny_root / "imagesTr", "--output", tmp_path),
        ("export", "--run_dir", exported.with_suffix(""), "--format", "onnx", "--output", tmp_path / "new.onnx"),
    ):
        done = run(refused, *words)
        assert "code 2" in done.stdout.splitlines(), done.stderr
        assert "segnarrow[" in done.stderr
        assert "Traceback" not in done.stderr


def test_what_the_extra_brings_is_what_commands_miss() -> None:
    assert set(TRAINING_PACKAGES) <= modules(distributions("train"))
    assert not distributions("train") & distributions("")
    assert distributions("openvino") | distributions("onnxruntime") <= distributions("export")
