"""Soft Dice plus cross-entropy, also over the stages of deep supervision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from seg.config import LossConfig
from seg.errors import ConfigError, Problem


class DiceCrossEntropy(nn.Module):
    """Weighted sum of soft Dice loss and cross-entropy over a softmax, computed in fp32 (fp64 for fp64 logits).

    The Dice of a class is ``(2 overlap + smooth) / (predicted + reference + smooth)``, of probabilities summed over
    voxels; the term is 1 minus its mean over classes (and patches, where the batch is not one volume). A class that is
    absent from the label has ``smooth / (predicted + smooth)``: it costs close to its full share and, as ``smooth`` is
    far below a voxel, has next to no gradient. Cross-entropy alone then drives it down; only where the prediction is
    empty too does it cost nothing.

    Cross-entropy is the mean over voxels. A batch without any counted voxel has loss 0. With class weights w, a focal
    exponent g or a share k of voxels, it is the sum over the counted voxels of ``w (1 - p)^g (-log p)``, p being the
    probability of the voxel's class and w its weight, over the sum of their w. Where k < 1, only the k n voxels (to the
    nearest, one at least) of the n in the batch with the largest such terms count.

    Args:
        config: Weights, smoothing and reach of the Dice term.
        ignore_index: Label of voxels that count in neither term; None counts all.

    References:
        Drozdzal, Vorontsov, Chartrand, Kadoury, Pal. The importance of skip connections in biomedical image
        segmentation. 2016. arXiv:1608.04117 (soft Dice).
        Isensee, Jaeger, Kohl, Petersen, Maier-Hein. nnU-Net. Nature Methods 2021. doi:10.1038/s41592-020-01008-z
        (the sum of both terms, and Dice over the batch as one volume).
        Lin, Goyal, Girshick, He, Dollár. Focal Loss for Dense Object Detection. ICCV 2017. arXiv:1708.02002.
        Wu, Shen, van den Hengel. Bridging Category-level and Instance-level Semantic Image Segmentation. 2016.
        arXiv:1605.06885 (the mean over the hardest voxels; nnU-Net's TopK loss takes a tenth).
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
    tensor for the backward pass instead of four. Where cross-entropy is weighted, 1 / N is another number for each
    voxel: its weight over the sum of weights, times (1 - q)^g - g q (1 - q)^(g - 1) log q, where q is p of the voxel's
    class.
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
        entropy: float | Tensor = config.ce_weight / voxels
        if (config.class_weights, config.focal_gamma, config.top_k) == ((), 0, 1):
            cross_entropy = -torch.dot(log_p.flatten(), target.flatten()) / voxels
        else:
            cross_entropy, share = _weighted_cross_entropy((log_p * target).sum(0), target, counted, config)
            entropy = config.ce_weight * share
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
            ctx.gradient = _gradient(p, target, (slope * dice, -2 * slope), entropy)
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


def _weighted_cross_entropy(
    log_q: Tensor, target: Tensor, counted: Tensor | None, config: LossConfig
) -> tuple[Tensor, Tensor]:
    """Returns the cross-entropy term, and each voxel's factor of (p - t) in its gradient, of shape (B, V).

    Args:
        log_q: Logarithm of the probability of each voxel's class, of shape (B, V); 0 where the voxel does not count.
        target: 1 where a counted voxel is of a class, of shape (K, B, V).
        counted: 1 where a voxel counts, of shape (B, V); None counts all.
        config: Weights, exponent and share of voxels.
    """
    gamma, weights = config.focal_gamma, torch.ones_like(log_q) if counted is None else counted
    if config.class_weights:
        weights = torch.einsum("k,kbv->bv", target.new_tensor(config.class_weights), target)
    miss = -torch.expm1(log_q)  # 1 - q
    terms = -log_q * weights
    if gamma:
        terms = terms * miss**gamma
    if config.top_k < 1:
        number = log_q.numel() if counted is None else int(counted.sum())
        # What does not count is below every term that does.
        ranked = (terms if counted is None else terms - (1 - counted)).flatten()
        hardest = ranked.topk(max(1, round(config.top_k * number)), sorted=False).indices
        chosen = torch.zeros_like(ranked).index_fill_(0, hardest, 1).view_as(terms)
        terms, weights = terms * chosen, weights * chosen
    total = weights.sum().clamp_min(torch.finfo(weights.dtype).tiny)
    share = weights / total
    if gamma:
        least = torch.finfo(miss.dtype).tiny  # beside log q = 0 a power of 0 below 0 would be no number
        share = share * (miss**gamma - gamma * log_q.exp() * miss.clamp_min(least) ** (gamma - 1) * log_q)
    return terms.sum() / total, share


def _gradient(p: Tensor, target: Tensor, dice: tuple[Tensor, Tensor], entropy: float | Tensor) -> Tensor:
    """Returns the gradient for the logits, (K, B, V), from dL/dp = constant + factor x target of each class.

    To it comes ``entropy`` (p - t), of one factor or of one for each voxel (B, V).
    """
    constant, factor = (value[..., None] for value in dice)
    gradient = torch.addcmul(constant, target, factor).mul_(p)
    common = gradient.sum(0) - entropy
    gradient.addcmul_(p, common, value=-1)
    if isinstance(entropy, Tensor):
        return gradient.addcmul_(target, entropy, value=-1)
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


def check_class_weights(config: LossConfig, class_names: Sequence[str]) -> None:
    """Checks that there is a weight for each class, or none.

    Raises:
        ConfigError: There are fewer or more.
    """
    if len(config.class_weights) not in (0, len(class_names)):
        rule = f"must have one weight for each of the {len(class_names)} classes: {', '.join(class_names)}"
        value = str(len(config.class_weights))
        raise ConfigError(Problem("loss.class_weights", "length", rule, value, "the background comes first"))


def build_loss(config: LossConfig, *, ignore_index: int | None) -> nn.Module:
    """Builds the training loss, which takes one output or those of every stage."""
    return DeepSupervisionLoss(DiceCrossEntropy(config, ignore_index))
