"""The container's files against what they repeat; no engine needed."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
import yaml

import seg

ROOT = Path(__file__).parents[1]


def instructions() -> list[tuple[str, str]]:
    """Reads the Dockerfile as pairs of an instruction and its words."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name, words) for line in joined.splitlines() if line for name, _, words in [line.partition(" ")]]


def words_of(name: str, found: list[tuple[str, str]] | None = None) -> list[str]:
    return [words for instruction, words in found or instructions() if instruction == name]


def defaults() -> dict[str, str]:
    return dict(words.split("=", 1) for words in words_of("ARG"))


def final_stage() -> list[tuple[str, str]]:
    found = instructions()
    start = max(index for index, (name, _) in enumerate(found) if name == "FROM")
    return found[start:]


def services() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "compose.yaml").read_text())["services"])


def test_the_entry_is_the_command_of_the_installed_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert words_of("ENTRYPOINT", final_stage()) == ['["seg"]']
    assert services()["fetch"]["entrypoint"] == ["seg", "fetch"]
    assert project["scripts"] == {"seg": "seg.cli:main"}


def test_versions_in_the_dockerfile_are_those_of_the_project() -> None:
    pins = dict(re.findall(r"^(\S+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert defaults()["TORCH_VERSION"] == pins["torch"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert defaults()["VERSION"] == citation["version"] == seg.__version__
    assert any("--constraint constraints.txt --requirement" in words for words in words_of("RUN"))
    listed = [*project["dependencies"], *project["optional-dependencies"]["train"]]
    required = {re.split(r"[\[<>=]", line)[0] for line in listed}
    assert required <= pins.keys()


def test_the_requirements_are_those_of_the_project_and_its_extras() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    code = re.search(r'python -c "(.*)" >', words_of("RUN")[0])
    assert code is not None
    optional = project["optional-dependencies"]
    for extras, lists in (("", [optional["train"]]), ("formats", [optional["train"], optional["formats"]])):
        command = [sys.executable, "-c", code.group(1).replace("${EXTRAS}", extras)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        assert done.stdout.splitlines() == sum(lists, project["dependencies"])


def test_the_image_runs_as_nobody_in_particular_and_says_what_it_is() -> None:
    stage = final_stage()
    assert words_of("USER", stage) == ["1000:1000"]
    assert not [words for words in words_of("RUN", stage) if re.search(r"pip|apt", words)]
    (labels,) = words_of("LABEL", stage)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f'licenses="{project["license"]}"' in labels
    assert "not for clinical use" in labels
    copied = [words.split()[0] for words in words_of("COPY", stage)]
    assert copied == ["--from=dependencies", "--from=source"]  # what changes least comes first


def test_the_build_sees_what_it_copies_and_nothing_else() -> None:
    copied = {name for words in words_of("COPY") if "--from" not in words for name in words.split()[:-1]}
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert patterns[0] == "*"
    assert {pattern[1:] for pattern in patterns if pattern.startswith("!")} == copied
    assert copied.isdisjoint({"data", "runs", ".git", ".venv"})
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.parametrize("name", ["seg", "seg-gpu", "fetch"])
def test_services_are_shut_in(name: str) -> None:
    service = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["network_mode"] == ("bridge" if name == "fetch" else "none")
    assert service["tmpfs"]
    assert service["build"].get("args", {}).keys() <= defaults().keys()


def test_the_gpu_is_a_profile_with_an_image_of_its_own() -> None:
    cpu, gpu = services()["seg"], services()["seg-gpu"]
    assert "profiles" not in cpu
    assert gpu["profiles"] == ["gpu"]
    assert gpu["image"] != cpu["image"]
    assert "/cpu" not in gpu["build"]["args"]["TORCH_INDEX"]
    assert gpu["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]


@pytest.fixture(scope="module")
def same_results() -> ModuleType:
    spec = importlib.util.spec_from_file_location("same_results", ROOT / ".ci" / "same_results.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("change", "differing"),
    [
        ({}, ""),
        ({"weight": 1.0 + 2**-23}, "weights.pt"),
        ({"voxel": 2}, "case.nii.gz"),
        ({"score": 0.6}, "evaluation.json"),
        ({"voxel": None}, "case.nii.gz"),
    ],
)
def test_a_difference_of_one_bit_and_a_missing_file_are_found(
    change: dict[str, Any],
    differing: str,
    same_results: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, values in (("inside", change), ("outside", {})):
        folder, values = tmp_path / name, {"weight": 1.0, "voxel": 1, "score": 0.5} | values
        folder.mkdir()
        state = {"w": torch.tensor([values["weight"]])}
        torch.save({"schema_version": 1, "network": state}, folder / "weights.pt")
        (folder / "evaluation.json").write_text(f'{{"mean_dice": {values["score"]}}}\n')
        if values["voxel"] is not None:
            image = nibabel.Nifti1Image(np.full((2, 2, 2), values["voxel"], np.uint8), np.eye(4))
            nibabel.save(image, folder / "case.nii.gz")
    monkeypatch.setattr(sys, "argv", ["same_results.py", str(tmp_path / "inside"), str(tmp_path / "outside")])
    assert same_results.main() == (1 if differing else 0)
    said = capsys.readouterr().err
    assert said.startswith(f"error: {differing} ") if differing else said == ""
