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
RATES = (0.5, 0.1, 0.02)
"""Learning rates to try in turn, as shares of that of the original's training; each falls to 0 by a cosine."""
TRIAL = 1 / 3
"""A learning rate that improved nothing in this share of its steps is given up for the next."""
LEAST_TRIAL = 100
"""Steps that each learning rate gets, at least, before it is given up."""
CHECK_EVERY = 25
"""Steps between two measurements on the cases that are held back."""


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

    Labels play no part: the target of each voxel is what the original says there. A learning rate that helps a network
    which lost much can harm a network which lost little. So a rate that improved nothing in a third of its steps, 100
    or more, is given up. Training begins again from the weights as they came, at the next of `RATES`, for the steps
    that are left; it ends where no rate is left.

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
        How many steps of training the kept weights have behind them; 0 where none made the network better.

    References:
        G. Hinton, O. Vinyals, J. Dean, Distilling the knowledge in a neural network, 2015, arXiv:1503.02531. At
        temperature 1.
    """
    smaller.requires_grad_(True)
    rates, start = [share * optimizer.learning_rate for share in RATES], 0
    stepper, schedule = _stepper(smaller, optimizer, rates[0], steps)
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
                best, kept, lowest = copy.deepcopy(smaller.state_dict()), step - start, found
            elif not kept and step - start >= max(LEAST_TRIAL, TRIAL * (steps - start)) and step < steps:
                tried = rates.pop(0), step - start
                if not rates:
                    break
                LOG.info("a learning rate of %.2g improved nothing in %d steps: %.2g is tried", *tried, rates[0])
                smaller.load_state_dict(best)
                start = step
                stepper, schedule = _stepper(smaller, optimizer, rates[0], steps - start)
        if step == steps:
            break
    smaller.load_state_dict(best)
    smaller.requires_grad_(False)
    return kept


def _stepper(network: UNet, optimizer: OptimizerConfig, rate: float, steps: int) -> tuple[Optimizer, LRScheduler]:
    stepper = build_optimizer(network, replace(optimizer, learning_rate=rate, weight_decay=0.0))
    return stepper, CosineAnnealingLR(stepper, steps)
