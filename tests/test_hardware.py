from __future__ import annotations

import json
import logging
import subprocess

import pytest
import torch

from seg import hardware
from seg.errors import ConfigError
from seg.hardware import choose_device, choose_precision, environment

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def _announcements(caplog):
    caplog.set_level(logging.INFO, hardware.__name__)


@pytest.mark.parametrize(("available", "device"), [(True, "cuda"), (False, "cpu")])
def test_a_device_is_chosen_by_what_there_is_and_announced(monkeypatch, caplog, available, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert choose_device("auto") == torch.device(device)
    assert caplog.messages == [f"device: {device}"]


def test_a_named_device_or_precision_is_followed_silently_and_refused_where_it_is_missing(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (choose_device("cpu"), choose_device("cuda")) == (CPU, CUDA)
    assert [choose_precision(precision, CPU) for precision in ("fp32", "bf16")] == ["fp32", "bf16"]
    assert caplog.messages == []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError) as caught:
        choose_device("cuda")
    assert [(problem.path, problem.kind) for problem in caught.value.problems] == [("training.device", "unavailable")]


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


def test_an_image_keeps_its_revision_in_a_file(monkeypatch, tmp_path):
    monkeypatch.setattr(hardware, "REVISION_FILE", tmp_path / "REVISION")
    (tmp_path / "REVISION").write_text("0123456789ab\n")
    assert environment(CPU, "fp32")["revision"] == "0123456789ab"
    (tmp_path / "REVISION").write_text("\n")
    assert environment(CPU, "fp32")["revision"] is None
