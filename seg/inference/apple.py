"""Apple's GPU (mps): a network is computed there only where it gives what the processor gives.

Networks, the loss and the optimiser alone are computed there; augmentation, sums of windows, resampling and scores stay
on the processor, whose memory is the same.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from seg.inference.memory import out_of_memory
from seg.inference.model import processor
from seg.inference.windows import Network, Triple

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    Work = Callable[[nn.Module, torch.device], Sequence[Tensor]]

LOG = logging.getLogger(__name__)
TOLERANCE = 1e-3
"""Largest difference of a result, relative to its largest value; sums in fp32 differ by far less."""
FLOOR = 1e-3
"""Results of less than this share of the largest one are compared with that share: some are zero but for rounding."""


def agreed_device(networks: Sequence[tuple[nn.Module, Work]], device: torch.device) -> tuple[torch.device, str]:
    """Compares what networks give on an Apple GPU and on the processor, and goes by the outcome.

    Torch's kernels for that GPU are younger than others: versions lack operators, and some gave wrong values without a
    message. Other devices are taken as they are.

    Args:
        networks: Networks on the processor, which stay as they are, each with what it is compared by: from a network
            and its device to results, the same at each call.
        device: Where networks are wanted.

    Returns:
        The device, and ""; or the processor, and a sentence that says why, which is announced.
    """
    if device.type != "mps":
        return device, ""
    for network, work in networks:
        if why := disagreement(network, work, device):
            message = f"the Apple GPU (mps) is not used, as {why}; computing on the processor."
            LOG.warning("%s", message)
            return processor(), message
    return device, ""


def disagreement(network: nn.Module, work: Work, device: torch.device) -> str:
    """Says in what results of a device differ from those of the processor; "" where they agree."""
    expected = [one.detach().cpu() for one in work(copy.deepcopy(network), processor())]
    try:
        there = copy.deepcopy(network).to(device)
        found = [one.detach().cpu() for one in work(there, device)]
    except (RuntimeError, TypeError) as error:  # an operator or a type of numbers that the device lacks
        kind = "its memory does not suffice" if out_of_memory(error) else "it cannot compute this network"
        return f"{kind} ({type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]})"
    largest = max(float(one.abs().max()) for one in expected)
    for one, other in zip(found, expected, strict=True):
        apart = float((one - other).abs().max()) / max(float(other.abs().max()), FLOOR * largest)
        if not apart <= TOLERANCE:  # NaN is not
            return f"its results differ from those of the processor by {apart:.2g} of the largest"
    return ""


def on_processor(network: Network, device: torch.device) -> Network:
    """Returns a network on another device as one that takes and gives tensors on the processor."""
    return lambda windows: network(windows.to(device)).to(processor())


def logits_of(window: Triple, channels: int) -> Work:
    """Returns the work of one forward pass of noise through a network in evaluation mode."""

    def work(network: nn.Module, device: torch.device) -> Sequence[Tensor]:
        import torch

        with torch.inference_mode():
            image = torch.randn((1, channels, *window), generator=torch.Generator().manual_seed(0))
            return [network(image.to(device))]

    return work
