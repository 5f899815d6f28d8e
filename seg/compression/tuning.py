"""A short training of a cut network towards the original's probabilities."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from seg.config import OptimizerConfig, Precision
from seg.inference.model import autocast
from seg.networks import UNet
from seg.training.optim import build_optimizer

LOG = logging.getLogger(__name__)
RATE = 0.2
"""Learning rate at the start over that of the original's training; it falls to 0 by a cosine."""
LOWER, IN_VAIN = 1 / 5, 1 / 3
"""A rate that brought nothing in this share (the second) of its steps is given up for one lower by the first."""
CHECK_EVERY = 25
"""Steps between two looks at the cases that are kept back."""


def tune(
    network: UNet,
    smaller: UNet,
    batches: Iterable[Tensor],
    judge: Callable[[UNet], float],
    *,
    optimizer: OptimizerConfig,
    steps: int,
    precision: Precision = "fp32",
) -> int:
    """Trains a network towards another's probabilities, in place, and keeps the best weights on the way.

    Labels play no part: the target of each voxel is what the original says there. A rate that suits a network that lost
    much takes one that lost little further away. So a rate that brought nothing in a third of its steps is given up:
    training begins again from the weights as they came, at a fifth of the rate, for the steps that are left.

    Args:
        network: The original, in evaluation mode.
        smaller: The network to train; in evaluation mode, which it keeps.
        batches: Images (B, C, X, Y, Z), one batch for each step.
        judge: Returns the error of a network. It is called before the first step, every 25 steps and after the last;
            the weights of the smallest error are kept.
        optimizer: How the original was trained. Nothing is decayed or clipped here, and there is no warm-up.
        steps: Steps, >= 1.
        precision: Arithmetic of the forward passes.

    Returns:
        The step whose weights are kept; 0 where no training made the network better.

    References:
        G. Hinton, O. Vinyals, J. Dean, Distilling the knowledge in a neural network, 2015, arXiv:1503.02531. At
        temperature 1.
    """
    smaller.requires_grad_(True)

    def begin(peak: float, length: int) -> tuple[Optimizer, LRScheduler]:
        stepper = build_optimizer(smaller, replace(optimizer, learning_rate=peak, weight_decay=0.0))
        return stepper, CosineAnnealingLR(stepper, length)

    rate, begun = RATE * optimizer.learning_rate, 0
    stepper, schedule = begin(rate, steps)
    best, kept, lowest = copy.deepcopy(smaller.state_dict()), 0, judge(smaller)
    for step, images in enumerate(batches, start=1):
        with autocast(images.device, precision):
            with torch.no_grad():
                wanted = network(images).float().softmax(1)
            logits = smaller(images)
        loss = functional.cross_entropy(logits.float(), wanted)
        stepper.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        stepper.step()
        schedule.step()
        if step % CHECK_EVERY == 0 or step == steps:
            found = judge(smaller)
            if found < lowest:  # not so where it is NaN
                best, kept, lowest = copy.deepcopy(smaller.state_dict()), step, found
            elif not kept and step - begun >= IN_VAIN * (steps - begun) and step < steps:
                in_vain, rate, begun = (rate, step - begun), rate * LOWER, step
                LOG.info("a learning rate of %.2g brought nothing in %d steps; %.2g is tried", *in_vain, rate)
                smaller.load_state_dict(best)
                stepper, schedule = begin(rate, steps - begun)
        if step == steps:
            break
    smaller.load_state_dict(best)
    smaller.requires_grad_(False)
    return kept
