"""Where networks go when a GPU is full. There need not be one: what is refused is a call."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from seg.errors import RunError
from seg.inference.memory import place
from seg.inference.predictor import load_predictor
from seg.runs import read_runs

CUDA = torch.device("cuda")


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


FULL = [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("CUDA error: out of memory")]


@pytest.mark.parametrize("error", FULL)
def test_all_networks_go_to_the_processor_where_the_gpu_is_full_for_one(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    networks = [Placed(), Placed(error)]
    said = "memory of the GPU does not suffice for the weights; computing on the processor."
    device, note = place(networks, CUDA, fall_back=True)
    assert (device.type, note) == ("cpu", said)
    assert caplog.messages == [said]
    assert [network.places[-1] for network in networks] == ["cpu", "cpu"]


def test_a_full_gpu_that_was_asked_for_is_named() -> None:
    with pytest.raises(RunError) as caught:
        place([Placed(FULL[0])], CUDA, fall_back=False)
    assert str(caught.value) == (
        "memory must suffice for the weights of 1 network(s), got less free on cuda; free memory, or predict with "
        "--device cpu."
    )
    with pytest.raises(RuntimeError, match="another fault"):
        place([Placed(RuntimeError("another fault"))], CUDA, fall_back=True)


def test_the_manifest_says_that_the_processor_computed(make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = nn.Module.to

    def full(module: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        if kwargs.get("device") == CUDA:
            raise FULL[0]
        return real(module, *args, **kwargs)

    monkeypatch.setattr("seg.inference.predictor.choose_device", lambda wanted: CUDA)
    monkeypatch.setattr(nn.Module, "to", full)
    predictor = load_predictor(read_runs([make_run()]), device="auto", tta=False, probabilities=False)
    assert [model.device.type for model in predictor.models] == ["cpu"]
    assert predictor.warnings == ("memory of the GPU does not suffice for the weights; computing on the processor.",)
