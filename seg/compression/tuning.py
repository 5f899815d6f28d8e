"""A short training of a cut network towards the original's probabilities."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor
from torch.nn import functional as F_
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from seg.compression.moments import class_odds
from seg.config import OptimizerConfig, Precision
from seg.inference.model import autocast
from seg.networks import UNet
from seg.training.optim import build_optimizer

LOG = logging.getLogger(__name__)
RATES = (0.5, 0.1, 0.02)
"""Learning rates to try one after the other, as shares of the original's own; each falls to 0 along a cosine."""
TRIAL = 1 / 3
"""A learning rate that did not lower the error within this share of the training steps is given up for the next one."""
LEAST_TRIAL = 100
"""Training steps that every learning rate gets before it may be given up."""
CHECK_EVERY = 25
"""Training steps between two measurements of the error, which is that on held-back cases."""
REPORT_EVERY = 100
"""Training steps between two lines of progress, a multiple of `CHECK_EVERY`; the last step has one too."""


def tune(
    network: UNet,
    smaller: UNet,
    batches: Iterable[Tensor],
    judge: Callable[[UNet], float],
    *,
    weights: Tensor,
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
        weights: What a class counts, by :func:`weighted_divergence`.
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
    batches, left = iter(batches), steps
    first = judge(smaller)
    best, lowest, kept = copy.deepcopy(smaller.state_dict()), first, 0
    for share in RATES:
        rate, trial = share * optimizer.learning_rate, max(LEAST_TRIAL, TRIAL * left)
        stepper, schedule = _begin(smaller, optimizer, rate, left)
        for step, images in enumerate(islice(batches, left), start=1):
            _step(network, smaller, images, weights, stepper, precision)
            schedule.step()
            if step % CHECK_EVERY and step < left:
                continue
            found = judge(smaller)
            if step % REPORT_EVERY == 0 or step == left:
                LOG.info("tuning, step %d of %d: divergence %.3g, before tuning %.3g", step, left, found, first)
            if found < lowest:  # not so where it is NaN
                best, lowest, kept = copy.deepcopy(smaller.state_dict()), found, step
            elif not kept and trial <= step < left:
                break
        else:
            break
        LOG.info("a learning rate of %.2g improved nothing in %d steps and is given up", rate, step)
        left -= step
        smaller.load_state_dict(best)
    smaller.load_state_dict(best)
    smaller.requires_grad_(False)
    return kept


def _begin(network: UNet, optimizer: OptimizerConfig, rate: float, steps: int) -> tuple[Optimizer, LRScheduler]:
    stepper = build_optimizer(network, replace(optimizer, learning_rate=rate, weight_decay=0.0))
    return stepper, CosineAnnealingLR(stepper, steps)


def _step(
    network: UNet, smaller: UNet, images: Tensor, weights: Tensor, stepper: Optimizer, precision: Precision
) -> None:
    with autocast(images.device, precision):
        with torch.no_grad():
            wanted = network(images)
        logits = smaller(images)
    loss = weighted_divergence(wanted.float(), logits.float(), weights)
    stepper.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    stepper.step()


def weighted_divergence(wanted: Tensor, logits: Tensor, weights: Tensor) -> Tensor:
    """Computes the divergence of a prediction from another, class against rest, as a weighted sum over classes.

    Args:
        wanted: Logits of the other prediction, shape (B, K, X, Y, Z).
        logits: Logits of the prediction, of the same shape.
        weights: What each class but the background counts, shape (K - 1,).

    Returns:
        A scalar, in nats a voxel for weights of 1.
    """
    target, odds = class_odds(wanted), class_odds(logits)
    share = target.sigmoid()
    entropy, cross = (F_.binary_cross_entropy_with_logits(one, share, reduction="none") for one in (target, odds))
    return ((cross - entropy).mean((0, 2, 3, 4)) * weights).sum()
