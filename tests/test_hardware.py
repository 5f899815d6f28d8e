from __future__ import annotations

import json
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import seg
from seg import hardware
from seg.errors import ConfigError
from seg.hardware import choose_device, choose_precision, environment
from seg.processes import usable_cores

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def _announcements(caplog):
    caplog.set_level(logging.INFO, hardware.__name__)


@pytest.mark.parametrize(
    ("cuda", "mps", "device"),
    [(True, False, "cuda"), (True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_a_device_is_chosen_by_what_there_is_and_announced(monkeypatch, caplog, cuda, mps, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device("auto") == torch.device(device)
    assert caplog.messages == [f"device: {device}"]


def test_the_system_and_torch_name_the_same_instruction_sets():
    if not hardware.CPUINFO.exists():
        pytest.skip("needs /proc/cpuinfo")
    capabilities = torch.cpu.get_capabilities()
    assert hardware.instruction_sets() == [name for name in hardware.INSTRUCTION_SETS if capabilities.get(name)]


@pytest.mark.parametrize(("flags", "floats"), [("avx2 avx512f", 16), ("avx2", 8), ("asimd", 8)])
def test_avx512_computes_16_floats_at_once(monkeypatch, tmp_path, flags, floats):
    (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    monkeypatch.setattr(hardware, "CPUINFO", tmp_path / "cpuinfo")
    assert hardware.vector_floats() == floats


def test_an_environment_without_torch_says_the_same_of_the_machine():
    with_torch, without = environment(CPU, "fp32"), environment(None, "fp32", engine="nibabel")
    assert without == {**with_torch, "threads": usable_cores()}


def test_the_load_is_that_of_the_system_or_not_known(monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (1.5, 2.0, 3.0), raising=False)
    assert hardware.load_1min() == 1.5

    def unobtainable():
        raise OSError

    monkeypatch.setattr(os, "getloadavg", unobtainable)
    assert hardware.load_1min() is None
    monkeypatch.delattr(os, "getloadavg")
    assert hardware.load_1min() is None


def test_a_named_device_or_precision_is_followed_silently_and_refused_where_it_is_missing(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (choose_device("cpu"), choose_device("cuda")) == (CPU, CUDA)
    assert [choose_precision(precision, CPU) for precision in ("fp32", "bf16")] == ["fp32", "bf16"]
    assert caplog.messages == []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for device in ("cuda", "mps"):
        with pytest.raises(ConfigError) as caught:
            choose_device(device)
        found = [(problem.path, problem.kind) for problem in caught.value.problems]
        assert found == [("training.device", "unavailable")]


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [
        ({}, "fp32"),
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False}, "fp32"),
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True}, "bf16"),
        ({"bf16": True}, "bf16"),
    ],
)
def test_precision_follows_the_processor_and_is_announced(monkeypatch, caplog, capabilities, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert choose_precision("auto", CPU) == precision
    assert caplog.messages == [f"precision: {precision}"]


def test_precision_follows_the_gpu(monkeypatch):
    for supported, precision in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, s=supported: s)
        assert choose_precision("auto", CUDA) == precision


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_fp32_convolutions_are_no_tf32(monkeypatch, precision):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    choose_precision(precision, CUDA)
    assert not torch.backends.cudnn.allow_tf32


def test_this_processor_is_asked_by_a_name_that_torch_knows():
    assert {"avx512_bf16", "amx_bf16", "bf16"} & set(torch.cpu.get_capabilities())


def test_the_environment_names_versions_device_and_code(monkeypatch):
    found = environment(CPU, "bf16")
    assert json.loads(json.dumps(found)) == found
    assert found["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert set(found["packages"]) == {"torch", "monai", "pytorch-lightning", "nibabel", "numpy", "scipy"}
    assert (found["threads"], found["precision"]) == (torch.get_num_threads(), "bf16")
    assert {"python", "platform", "cores", "device", "revision"} < set(found)
    assert found["version"] == seg.__version__


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="needs /proc/cpuinfo")
def test_instruction_sets_are_those_that_the_system_names():
    flags = set(re.findall(r"[a-z0-9_]+", Path("/proc/cpuinfo").read_text()))
    names = {"avx2": "avx2", "avx512f": "avx512_f", "avx512_vnni": "avx512_vnni", "avx512_bf16": "avx512_bf16"}
    found = set(environment(CPU, "fp32")["instruction_sets"])
    assert {names[flag] for flag in flags & set(names)} == found & set(names.values())


def test_the_commit_of_a_checkout_around_the_package_is_not_recorded(tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", "-C", tmp_path, *identity, "commit", "-q", "--allow-empty", "-m", "other"], check=True)
    package = tmp_path / "site" / "seg"
    shutil.copytree(Path(seg.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    code = "import torch, seg.hardware as h; print(h.environment(torch.device('cpu'), 'fp32')['revision'])"
    command = [sys.executable, "-c", code]
    environ = os.environ | {"PYTHONPATH": str(package.parent)}
    done = subprocess.run(command, cwd=package.parent, env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="needs /proc/cpuinfo")
def test_the_processor_is_named_as_the_system_names_it():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = {line.split(": ", 1)[1] for line in lines if line.startswith("model name")}
    if not models:
        pytest.skip("this system names no processor")
    assert environment(CPU, "fp32")["device"] in models


def test_the_gpu_is_named_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"a GPU at {device}")
    assert environment(CUDA, "bf16")["device"] == "a GPU at cuda"


@pytest.mark.parametrize(
    ("answer", "revision"),
    [
        (subprocess.CompletedProcess((), 0, "0123456789ab-dirty\n"), "0123456789ab-dirty"),
        (subprocess.CompletedProcess((), 128, "", "fatal"), None),
        (FileNotFoundError("git"), None),
    ],
)
def test_the_revision_is_that_of_git_where_there_is_one(monkeypatch, answer, revision):
    def run(*args, **kwargs):
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(hardware.subprocess, "run", run)
    assert environment(CPU, "fp32")["revision"] == revision
    assert hardware.code_version().split() == [seg.__version__] + ([] if revision is None else [f"({revision})"])


def test_an_image_keeps_its_revision_in_a_file(monkeypatch, tmp_path):
    monkeypatch.setattr(hardware, "REVISION_FILE", tmp_path / "REVISION")
    (tmp_path / "REVISION").write_text("0123456789ab\n")
    assert environment(CPU, "fp32")["revision"] == "0123456789ab"
    (tmp_path / "REVISION").write_text("\n")
    assert environment(CPU, "fp32")["revision"] is None


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives freed memory back to the kernel")
@pytest.mark.parametrize("kept", [False, True])
def test_a_kept_heap_gives_the_next_step_the_same_pages(kept):
    # A process of its own: the setting lasts as long as the process.
    code = f"""
import resource, torch
from seg.hardware import keep_heap
if {kept}:
    keep_heap()
for _ in range(16):  # until a hole is large enough for an aligned block
    torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    faults = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    # 64 MiB four times are 65,536 pages, or 128 where the kernel has large ones.
    assert faults < 64 if kept else faults > 100
