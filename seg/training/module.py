"""The steps of training and validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from seg.config import OptimizerConfig
from seg.errors import Problem, RunError
from seg.evaluation.tensors import dice_per_class
from seg.training.optim import build_optimizer, build_schedule

Batch = dict[str, Any]
Predictor = Callable[[nn.Module, Tensor], Tensor]


class SegmentationModule(pl.LightningModule):
    """Computes losses and validation scores; network, loss and prediction are passed in.

    Args:
        network: From images (B, C, X, Y, Z) to logits (B, K, X, Y, Z), or in training a list of them.
        loss: From the network's output and labels (B, 1, X, Y, Z) to a scalar.
        predictor: Predicts the logits of a whole volume with the network.
        num_classes: Classes, background included.
        optimizer: Optimiser and schedule.
        total_steps: Optimiser steps of the whole run.
        memory_format: Layout of the images that the network gets.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        predictor: Predictor,
        *,
        num_classes: int,
        optimizer: OptimizerConfig,
        total_steps: int,
        memory_format: torch.memory_format = torch.channels_last_3d,
    ) -> None:
        super().__init__()
        self.network = network
        self.loss = loss
        self.predictor = predictor
        self.num_classes = num_classes
        self.optimizer_config = optimizer
        self.total_steps = total_steps
        self.memory_format = memory_format
        self._dice: list[Tensor] = []

    def forward(self, image: Tensor) -> Tensor:
        """Returns the network's output for images (B, C, X, Y, Z)."""
        output: Tensor = self.network(image.to(memory_format=self.memory_format))
        return output

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the loss of a batch.

        Raises:
            RunError: The loss is not finite; the message names the cases.
        """
        loss: Tensor = self.loss(self(batch["image"]), batch["label"])
        if not torch.isfinite(loss):
            cases = ", ".join(sorted(set(batch["case_id"])))
            remedy = f"look at these images, or begin anew with {self._remedies()}"
            raise not_finite(f"step {self.global_step}: the loss", f"{loss.item()} on cases {cases}", remedy)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Computes the Dice of a whole case, per foreground class, and keeps it for the end of the validation.

        Raises:
            RunError: The prediction is not finite; the message names the case.
        """
        logits = self.predictor(self, batch["image"])
        if not torch.isfinite(logits).all():
            value = f"NaN or infinity on held-out case {batch['case_id']}"
            remedy = f"look at this image, or begin anew with {self._remedies()}"
            raise not_finite(f"step {self.global_step}: predictions", value, remedy)
        label = batch["label"].to(logits.device)
        self._dice.append(dice_per_class(logits.argmax(1, keepdim=True), label, self.num_classes).float())

    def on_validation_epoch_end(self) -> None:
        """Logs ``val_dice``, the mean over classes of the mean over cases where label or prediction has the class.

        Predictions are of plain sliding windows on the prepared grid; the final prediction may mirror
        (``inference.tta``), take volumes whole (``inference.whole_up_to``) and clean up.
        """
        dice = torch.stack(self._dice).nanmean(0)
        self._dice.clear()
        # To the callbacks alone: they write every log, so that all have the same rows.
        self.log("val_dice", dice.nanmean(), logger=False)
        for index, value in enumerate(dice, start=1):
            self.log(f"val_dice_{index}", value, logger=False)

    def configure_optimizers(self) -> Any:
        """Returns the optimiser and its schedule, stepped every optimiser step."""
        optimizer = build_optimizer(self.network, self.optimizer_config)
        schedule = build_schedule(optimizer, self.optimizer_config, self.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _remedies(self) -> str:
        return remedies(self.optimizer_config, in_bf16=torch.is_autocast_enabled(self.device.type))


def not_finite(what: str, value: str, remedy: str) -> RunError:
    """Returns the error of numbers that became infinite or NaN."""
    return RunError(Problem(what, "not_finite", "must be finite", value, remedy))


def remedies(optimizer: OptimizerConfig, *, in_bf16: bool) -> str:
    """Names the settings to change where numbers became infinite or NaN, as the end of a sentence."""
    clip = optimizer.clip_norm
    found = [
        f"a smaller optimizer.learning_rate than {optimizer.learning_rate:g}",
        "gradients clipped by optimizer.clip_norm" if clip is None else f"a smaller optimizer.clip_norm than {clip:g}",
    ]
    if in_bf16:
        found.append("training.precision fp32")
    return f"{', '.join(found[:-1])} or {found[-1]}"
