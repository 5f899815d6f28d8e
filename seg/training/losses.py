"""Soft Dice plus cross-entropy, also over the stages of deep supervision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from seg.config import LossConfig


class DiceCrossEntropy(nn.Module):
    """Weighted sum of soft Dice loss and cross-entropy over a softmax, computed in fp32 (fp64 for fp64 logits).

    The Dice of a class is ``(2 overlap + smooth) / (predicted + reference + smooth)``, of probabilities summed over
    voxels; the term is 1 minus its mean over classes (and patches, where the batch is not one volume). A class that is
    absent from the label has ``smooth / (predicted + smooth)``: it costs close to its full share and, as ``smooth`` is
    far below a voxel, has next to no gradient. Cross-entropy alone then drives it down; only where the prediction is
    empty too does it cost nothing.

    Cross-entropy is the mean over voxels. A batch without any counted voxel has loss 0.

    Args:
        config: Weights, smoothing and reach of the Dice term.
        ignore_index: Label of voxels that count in neither term; None counts all.

    References:
        Drozdzal, Vorontsov, Chartrand, Kadoury, Pal. The importance of skip connections in biomedical image
        segmentation. 2016. arXiv:1608.04117 (soft Dice).
        Isensee, Jaeger, Kohl, Petersen, Maier-Hein. nnU-Net. Nature Methods 2021. doi:10.1038/s41592-020-01008-z
        (the sum of both terms, and Dice over the batch as one volume).
    """

    def __init__(self, config: LossConfig, ignore_index: int | None = None) -> None:
        super().__init__()
        self.config = config
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Returns the loss, a scalar.

        Args:
            logits: Logits of shape (B, K, X, Y, Z), K >= 2, of any float type and memory format.
            label: Class indices of shape (B, 1, X, Y, Z).

        Raises:
            ValueError: The shapes do not fit, or a counted label is not a class.
        """
        _check(logits, label, self.ignore_index)
        loss: Tensor = _DiceCrossEntropy.apply(  # type: ignore[no-untyped-call]
            logits, label, self.config, self.ignore_index
        )
        return loss


def _check(logits: Tensor, label: Tensor, ignore_index: int | None) -> None:
    classes = logits.shape[1]
    if classes < 2 or label.shape != (logits.shape[0], 1, *logits.shape[2:]):
        raise ValueError(
            f"logits must have shape (B, K, X, Y, Z) with K >= 2 and labels (B, 1, X, Y, Z) on the same grid, "
            f"got {tuple(logits.shape)} and {tuple(label.shape)}; resample the label, or check the network's heads."
        )
    low, high = torch.stack(label.aminmax()).tolist()
    if low >= 0 and high < classes:
        return
    wrong = label[(label < 0) | (label >= classes)]
    if ignore_index is not None:
        wrong = wrong[wrong != ignore_index]
    if len(wrong):
        ignored = "" if ignore_index is None else f" or {ignore_index} (ignored)"
        raise ValueError(
            f"labels must be classes 0 to {classes - 1}{ignored}, got {int(wrong.min())}; "
            "give the network one output per class, or correct the labels."
        )


class _DiceCrossEntropy(torch.autograd.Function):
    """The loss with its gradient in closed form, which is found along with the value.

    With p = softmax(logits), t the one-hot label, P, R and I the sums of p, t and p t over a class, N the voxels and
    C the number of Dice terms, the loss is dice_weight (1 - sum D / C) - ce_weight sum(t log p) / N where
    D = (2 I + s) / (P + R + s). Hence g = dL/dp of the Dice term is ``dice_weight / C (D - 2 t) / (P + R + s)``, and
    dL/dlogits = p (g - sum_k g p) + ce_weight / N (p - t). That takes half the time of autograd on a CPU, and keeps one
    tensor for the backward pass instead of four.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, label: Tensor, config: LossConfig, ignore_index: int | None) -> Tensor:
        dtype = torch.promote_types(logits.dtype, torch.float32)
        classes, batch = logits.shape[1], logits.shape[0]
        # One dense plane per class: a softmax over so few channels is slow where they are the innermost axis.
        planes = logits.movedim(1, 0).to(dtype, memory_format=torch.contiguous_format).reshape(classes, batch, -1)
        labels = label.reshape(batch, -1)
        counted = None if ignore_index is None else (labels != ignore_index).to(dtype)
        target = _one_hot(labels, classes, counted, dtype)
        voxels = labels.numel() if counted is None else max(1.0, float(counted.sum()))

        log_p = planes.log_softmax(0)
        cross_entropy = -torch.dot(log_p.flatten(), target.flatten()) / voxels
        p = log_p.exp_()
        if counted is not None:
            p *= counted
        overlap, size = (p * target).sum(2), p.sum(2) + target.sum(2)
        if config.batch_dice:
            overlap, size = overlap.sum(1, keepdim=True), size.sum(1, keepdim=True)
        size = size + config.smooth
        dice = (2 * overlap + config.smooth) / size
        first = 0 if config.include_background else 1
        loss = config.dice_weight * (1 - dice[first:].mean()) + config.ce_weight * cross_entropy
        if ctx.needs_input_grad[0]:
            slope = config.dice_weight / dice[first:].numel() / size
            slope[:first] = 0
            ctx.gradient = _gradient(p, target, (slope * dice, -2 * slope), config.ce_weight / voxels)
            ctx.like = torch.empty_like(logits, device="meta")
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        like: Tensor = ctx.like
        shape = (like.shape[1], like.shape[0], *like.shape[2:])
        gradient = (ctx.gradient * upstream).to(like.dtype).view(shape).movedim(0, 1)
        channels_last = like.is_contiguous(memory_format=torch.channels_last_3d)
        memory_format = torch.channels_last_3d if channels_last else torch.contiguous_format
        return gradient.contiguous(memory_format=memory_format), None, None, None


def _one_hot(labels: Tensor, classes: int, counted: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Returns 1 where a counted label (B, V) is the class, else 0, of shape (K, B, V)."""
    target = torch.empty(classes, *labels.shape, dtype=dtype, device=labels.device)
    for index in range(classes):
        torch.eq(labels, index, out=target[index])
    return target if counted is None else target.mul_(counted)


def _gradient(p: Tensor, target: Tensor, dice: tuple[Tensor, Tensor], entropy: float) -> Tensor:
    """Returns the gradient for the logits, (K, B, V), from dL/dp = constant + factor x target of each class."""
    constant, factor = (value[..., None] for value in dice)
    gradient = torch.addcmul(constant, target, factor).mul_(p)
    common = gradient.sum(0) - entropy
    gradient.addcmul_(p, common, value=-1)
    return gradient.sub_(target, alpha=entropy)


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
        losses = [
            weight / sum(weights) * self.loss(logits, _resize(label, logits.shape[2:]))
            for weight, logits in zip(weights, outputs, strict=True)
        ]
        return torch.stack(losses).sum()


def _resize(label: Tensor, size: torch.Size) -> Tensor:
    """Samples labels (B, 1, X, Y, Z) at a grid of another size over the same field of view."""
    if label.shape[2:] == size:
        return label
    return functional.interpolate(label.float(), size=size, mode="nearest-exact").to(label.dtype)


def build_loss(config: LossConfig, *, ignore_index: int | None) -> nn.Module:
    """Builds the training loss, which takes one output or those of every stage."""
    return DeepSupervisionLoss(DiceCrossEntropy(config, ignore_index))
