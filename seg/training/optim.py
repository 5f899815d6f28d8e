"""Optimisers and learning-rate schedules."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from seg.config import OptimizerConfig
from seg.training.muon import Muon

POLY_POWER = 0.9


def build_optimizer(network: nn.Module, config: OptimizerConfig) -> Optimizer:
    """Builds the optimiser; parameters of one dimension (norms and biases) are not decayed.

    Returns:
        AdamW, SGD with Nesterov momentum, or Muon. Under Muon the heads, which only weigh features, take AdamW's
        steps, as norms and biases do.
    """
    named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    weights = [p for _, p in named if p.ndim > 1]
    plain = {"params": [p for _, p in named if p.ndim <= 1], "weight_decay": 0.0}
    groups: list[dict[str, Any]] = [{"params": weights, "weight_decay": config.weight_decay}, plain]
    match config.name:
        case "adamw":
            return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.momentum, 0.999), foreach=True)
        case "sgd":
            return torch.optim.SGD(
                groups, lr=config.learning_rate, momentum=config.momentum, nesterov=config.momentum > 0, foreach=True
            )
        case "muon":
            heads = [p for name, p in named if p.ndim > 1 and name.startswith("heads.")]
            matrices = [p for name, p in named if p.ndim > 1 and not name.startswith("heads.")]
            groups = [
                {"params": matrices, "weight_decay": config.weight_decay, "matrix": True},
                {"params": heads, "weight_decay": config.weight_decay, "matrix": False},
                {**plain, "matrix": False},
            ]
            return Muon([group for group in groups if group["params"]], config.learning_rate, momentum=config.momentum)


def build_schedule(optimizer: Optimizer, config: OptimizerConfig, total_steps: int) -> LambdaLR:
    """Builds the schedule of the learning rate, one value per optimiser step."""
    return LambdaLR(optimizer, partial(rate_factor, config=config, total_steps=total_steps))


def rate_factor(step: int, config: OptimizerConfig, total_steps: int) -> float:
    """Returns the learning rate of a step as a fraction of its peak.

    Args:
        step: Optimiser steps taken so far, >= 0.
        config: Warm-up steps and shape of the decay.
        total_steps: Optimiser steps of the whole run.

    Returns:
        A value in [0, 1]: linear up to 1 over the warm-up, then down to 0 at ``total_steps`` (``poly`` has the power
        0.9), or 1 throughout for ``constant``.
    """
    if step < config.warmup_steps:
        return (step + 1) / (config.warmup_steps + 1)
    progress = min(1.0, (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps))
    match config.schedule:
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))
        case "linear":
            return 1 - progress
        case "poly":
            return float((1 - progress) ** POLY_POWER)
        case "constant":
            return 1.0
