"""Soft Dice plus cross-entropy, also over the stages of deep supervision."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from seg.config import LossConfig

NOTHING_IGNORED = -100


class DiceCrossEntropy(nn.Module):
    """Weighted sum of soft Dice loss and cross-entropy, computed in fp32.

    Both terms share one log-softmax. A class that is absent from the label and not predicted has a Dice near 1 and
    so costs nothing.

    Args:
        config: Weights, smoothing and reach of the Dice term.
        ignore_index: Label of voxels that count in neither term; None counts all.

    References:
        Drozdzal, Vorontsov, Chartrand, Kadoury, Pal. The importance of skip connections in biomedical image
        segmentation. 2016. arXiv:1608.04117 (soft Dice).
        Isensee, Jaeger, Kohl, Petersen, Maier-Hein. nnU-Net. Nature Methods 2021. doi:10.1038/s41592-020-01008-z
        (the sum of both terms).
    """

    def __init__(self, config: LossConfig, ignore_index: int | None = None) -> None:
        super().__init__()
        self.config = config
        self.ignore_index = NOTHING_IGNORED if ignore_index is None else ignore_index

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Returns the loss, a scalar.

        Args:
            logits: Logits of shape (B, K, X, Y, Z), any float type.
            label: Class indices of shape (B, 1, X, Y, Z).
        """
        target = label[:, 0]
        log_probabilities = functional.log_softmax(logits.float(), dim=1)
        loss = log_probabilities.new_zeros(())
        if self.config.ce_weight > 0:
            summed = functional.nll_loss(log_probabilities, target, ignore_index=self.ignore_index, reduction="sum")
            counted = (target != self.ignore_index).sum().clamp_min(1)
            loss = loss + self.config.ce_weight * summed / counted
        if self.config.dice_weight > 0:
            loss = loss + self.config.dice_weight * (1 - self._dice(log_probabilities.exp(), target))
        return loss

    def _dice(self, probabilities: Tensor, target: Tensor) -> Tensor:
        """Mean soft Dice over classes, and over patches unless the batch counts as one volume."""
        counted = target != self.ignore_index
        axes = tuple(range(0 if self.config.batch_dice else 1, target.ndim))
        scores = []
        for index in range(0 if self.config.include_background else 1, probabilities.shape[1]):
            predicted = torch.where(counted, probabilities[:, index], 0.0)
            reference = (target == index).to(predicted.dtype)
            overlap = (predicted * reference).sum(axes)
            size = predicted.sum(axes) + reference.sum(axes)
            scores.append((2 * overlap + self.config.smooth) / (size + self.config.smooth))
        return torch.stack(scores).mean()


class DeepSupervisionLoss(nn.Module):
    """Weighted mean of a loss over the outputs of several decoder stages.

    The weights halve from stage to stage and sum to 1; labels are sampled at each stage's grid by nearest neighbour.

    Args:
        loss: Loss of one output.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, outputs: Tensor | Sequence[Tensor], label: Tensor) -> Tensor:
        """Returns the loss, a scalar; a single output is a list of one.

        Args:
            outputs: Logits of each stage, from full resolution down.
            label: Class indices of shape (B, 1, X, Y, Z) at full resolution.
        """
        outputs = [outputs] if isinstance(outputs, Tensor) else outputs
        weights = [2.0**-stage for stage in range(len(outputs))]
        total = outputs[0].new_zeros((), dtype=torch.float32)
        for weight, logits in zip(weights, outputs, strict=True):
            resized = label
            if logits.shape[2:] != label.shape[2:]:
                resized = functional.interpolate(label.float(), size=logits.shape[2:], mode="nearest-exact").long()
            total = total + weight / sum(weights) * self.loss(logits, resized)
        return total


def build_loss(config: LossConfig, *, ignore_index: int | None) -> nn.Module:
    """Builds the training loss."""
    return DeepSupervisionLoss(DiceCrossEntropy(config, ignore_index))
