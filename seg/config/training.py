"""Configuration of training: loss, optimiser, schedule, precision, checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Soft Dice plus cross-entropy.

    Attributes:
        dice_weight: Weight of the Dice term, >= 0.
        ce_weight: Weight of the cross-entropy term, >= 0.
        batch_dice: Whether Dice is taken over the batch as one volume instead of patch by patch.
        include_background: Whether class 0 counts in the Dice term.
        smooth: Added to numerator and denominator of Dice, in voxels, > 0.
    """

    dice_weight: float = 1.0
    ce_weight: float = 1.0
    batch_dice: bool = True
    include_background: bool = False
    smooth: float = 1e-5


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Optimiser and learning-rate schedule.

    Attributes:
        name: AdamW, SGD with Nesterov momentum, or Muon (AdamW where a parameter is no matrix).
        learning_rate: Peak learning rate, in (0, 10].
        weight_decay: Decoupled (adamw, muon) or L2 (sgd) weight decay, >= 0; norms and biases are exempt.
        momentum: Momentum of sgd and muon (0.95 suits it), or beta1 of adamw, in [0, 1).
        schedule: Shape of the decay to zero after the warm-up; constant does not decay.
        warmup_steps: Optimiser steps of linear warm-up, >= 0.
        clip_norm: Largest global gradient norm, > 0; null does not clip.
    """

    name: Literal["adamw", "sgd", "muon"] = "adamw"
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    momentum: float = 0.9
    schedule: Literal["cosine", "poly", "linear", "constant"] = "cosine"
    warmup_steps: int = 50
    clip_norm: float | None = 12.0


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Length, precision and book-keeping of a run.

    Attributes:
        steps: Optimiser steps of the whole run, >= 1.
        validate_every: Optimiser steps between validations, each of which also writes a checkpoint.
        accumulate: Batches whose gradients are averaged for one optimiser step, >= 1.
        precision: Arithmetic of the forward pass; auto takes bf16 where the hardware computes it, and announces it.
        ema_decay: Decay of the moving average of the weights that is validated and kept, in [0, 1); 0 turns it off.
        early_stop: Validations without a better Dice after which training stops; null never stops early. The cases
            that are scored then choose the step too, which is announced and recorded.
        init_from: Run directory whose final weights are the initial ones where name and shape agree; null draws them
            from the seed.
        device: Where to train; auto takes the GPU where there is one, and announces it.
        progress: Whether a progress bar is shown.
    """

    steps: int = 2000
    validate_every: int = 200
    accumulate: int = 1
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    ema_decay: float = 0.999
    early_stop: int | None = None
    init_from: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    progress: bool = True
