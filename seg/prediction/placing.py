"""Networks brought to the device that computes."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import nn

from seg.errors import RunError
from seg.inference import out_of_memory

LOG = logging.getLogger(__name__)
CPU = torch.device("cpu")


def place(networks: Sequence[nn.Module], device: torch.device, *, fall_back: bool) -> tuple[torch.device, str]:
    """Brings networks to a device, or all to the processor where the memory of a GPU does not suffice for them.

    Args:
        networks: The networks; changed in place.
        device: Where they are to go.
        fall_back: Whether they may go to the processor instead.

    Returns:
        Where they went, and a sentence where that is another device.

    Raises:
        RunError: Memory does not suffice, and they may not go elsewhere.
    """
    if _placed(networks, device):
        return device, ""
    for network in networks:
        network.to(CPU)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if not fall_back or device.type == "cpu":
        raise RunError(
            f"memory must suffice for the weights of {len(networks)} network(s), got less free on {device.type}; free "
            "memory, or predict with --device cpu."
        )
    message = "memory of the GPU does not suffice for the weights; computing on the processor."
    LOG.warning("%s", message)
    _placed(networks, CPU)
    return CPU, message


def _placed(networks: Sequence[nn.Module], device: torch.device) -> bool:
    try:
        for network in networks:
            network.to(device=device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        return False  # the traceback is gone then, and what it held of the memory
    return True
