"""What is done where memory does not suffice: smaller steps, or another device."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from seg.config import MemoryFormat
from seg.errors import Problem, RunError
from seg.inference.arrays import Device
from seg.inference.model import Model, processor
from seg.inference.windows import Triple

if TYPE_CHECKING:
    import torch
    from torch import nn

NO_MEMORY = (
    "out of memory",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "can't allocate memory",
    "Failed to allocate memory",
    "bad_alloc",
    "bad allocation",
)
"""What torch, CUDA, cuDNN, cuBLAS, engines and the allocators of main memory say where there is none left."""


def out_of_memory(error: Exception) -> bool:
    """Tells whether memory did not suffice: libraries of the GPU and engines say so in words of their own."""
    torch = sys.modules.get("torch")
    kinds = (MemoryError,) if torch is None else (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or any(words in str(error) for words in NO_MEMORY)


def release_cache(device: Device) -> None:
    """Gives back what torch keeps of the memory of a GPU for later."""
    if device.type == "cuda":
        import torch

        torch.cuda.empty_cache()


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """How an image is to be segmented.

    Attributes:
        models: Networks with their windows.
        device: Where sums of logits are kept.
        warnings: Sentences on what changes labels against what was asked for: smaller windows.
    """

    models: tuple[Model, ...]
    device: Device
    warnings: tuple[str, ...] = ()


@dataclass
class MemoryHistory:
    """How the last image fitted in memory, so that the next image begins the same way; None before any."""

    attempt: Attempt | None = None


def smaller(attempt: Attempt, *, sums: int, passes: int) -> tuple[Attempt, str]:
    """Returns a smaller way to segment an image whose memory did not suffice, and a sentence that announces it.

    Args:
        attempt: What was tried.
        sums: Memory of the sums of logits, as far as they had come, in bytes.
        passes: Memory of all windows of a pass through a network, in bytes.

    Raises:
        RunError: There is nothing smaller.
    """
    models = attempt.models
    batch = max(model.batch for model in models)
    saved = passes - passes // batch  # by a single window a pass: what halving can come to
    if attempt.device.type != "cpu" and (batch == 1 or sums > saved):
        message = "memory of the GPU does not suffice for sums of logits; keeping them in main memory."
        return replace(attempt, device=processor()), message
    if batch > 1:
        message = f"memory does not suffice for {batch} windows per pass; going on with {batch // 2}."
        fewer = tuple(replace(model, batch=min(model.batch, batch // 2)) for model in models)
        return replace(attempt, models=fewer), message
    halved = tuple(replace(model, window=_halved(model), whole_up_to=0) for model in models)
    if halved == models:
        rule = f"must suffice for one window of {models[0].window} voxels, the smallest that the network takes"
        raise RunError(Problem("memory", "memory", rule, "less", "predict with --device cpu, or free memory"))
    sizes = " and ".join(
        sorted({f"{model.window} to {other.window}" for model, other in zip(models, halved, strict=True)})
    )
    message = f"memory does not suffice for one window; going on with smaller ones, from {sizes} voxels."
    return replace(attempt, models=halved, warnings=(*attempt.warnings, message)), message


def _halved(model: Model) -> Triple:
    """Halves the longest edge of the window, counted in total strides of the network, down to two strides."""
    counts = [math.ceil(edge / stride) for edge, stride in zip(model.window, model.multiple, strict=True)]
    axis = counts.index(max(counts))
    if counts[axis] <= 2:
        return model.window
    counts[axis] = (counts[axis] + 1) // 2
    x, y, z = (
        count * stride if own == axis else edge
        for own, (count, stride, edge) in enumerate(zip(counts, model.multiple, model.window, strict=True))
    )
    return x, y, z


LOG = logging.getLogger(__name__)


def memory_format_on(device: torch.device, wanted: MemoryFormat) -> torch.memory_format:
    """Returns the layout of a network and its images on a device.

    A CUDA GPU takes the one that is wanted, a processor always channels_last_3d, an Apple GPU (mps) torch's own.
    """
    from seg.networks.conv import MEMORY_FORMATS

    return MEMORY_FORMATS[{"cpu": "channels_last_3d", "mps": "contiguous"}.get(device.type, wanted)]


def place(
    networks: Sequence[nn.Module], layouts: Sequence[MemoryFormat], device: torch.device, *, fall_back: bool
) -> tuple[torch.device, str]:
    """Brings networks to a device, or with ``fall_back`` all to the processor where the GPU has too little memory.

    Args:
        networks: The networks.
        layouts: The layout that each is to have on a CUDA GPU, see :func:`memory_format_on`.
        device: Where they are wanted.
        fall_back: Whether they may go to the processor.

    Returns:
        Where they went, and a sentence where that is another device.

    Raises:
        RunError: Memory does not suffice, and they may not go elsewhere.
    """
    if _placed(networks, layouts, device):
        return device, ""
    for network in networks:
        network.to(processor())
    release_cache(device)
    if not fall_back or device.type == "cpu":
        rule, value = f"must suffice for the weights of {len(networks)} network(s)", f"less free on {device.type}"
        raise RunError(Problem("memory", "memory", rule, value, "free memory, or predict with --device cpu"))
    message = "memory of the GPU does not suffice for the weights; computing on the processor."
    LOG.warning("%s", message)
    _placed(networks, layouts, processor())
    return processor(), message


def _placed(networks: Sequence[nn.Module], layouts: Sequence[MemoryFormat], device: torch.device) -> bool:
    try:
        for network, layout in zip(networks, layouts, strict=True):
            network.to(device=device, memory_format=memory_format_on(device, layout))  # type: ignore[call-overload]
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        return False  # the traceback is gone then, and what it held of the memory
    return True
