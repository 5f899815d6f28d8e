"""Instance normalisation that stays in channels_last_3d, with its leaky ReLU in the same step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from seg.networks.conv import is_exporting, is_recorded

LINE, VECTOR = 16, 8
"""Float32 numbers in a cache line, and in the shortest vector register."""
LEAST_FOLDED = 1 << 15
"""Feature maps of fewer numbers are not folded: the further calls would take longer than they save."""
CHUNK = 1 << 20
"""How many numbers of a gradient are converted to float32 at a time; the converted copy takes 4 bytes for each."""


class _NormAct(torch.autograd.Function):
    """Instance norm and leaky ReLU on a CPU, one sample after the other through torch's batch norm kernels.

    An instance norm is a batch norm over a batch of one. The batch norm kernels read channels_last_3d as it is, add up
    in float32 for bfloat16 input and take the weights in float32, which neither the instance nor the group norm of
    torch 2.13 does on a CPU (https://github.com/pytorch/pytorch/issues/59168). A leaky ReLU keeps the sign, so its
    result serves its own derivative and only the input, the output (which the next layer keeps anyway) and two
    numbers per channel are kept for the backward pass.

    In channels_last_3d the kernels add up one row of sums for each thread, a number for each channel. Rows that are no
    whole cache lines share one, which the threads then take from each other at every voxel: 8 channels took ten times
    as long as 16. Of such maps some voxels are folded into one row (:func:`_folds`), and their sums are joined.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, slope: float) -> Tensor:
        out = torch.empty_like(x)
        mean = torch.empty(x.shape[:2], dtype=weight.dtype)
        inv_std = torch.empty_like(mean)
        folds = _folds(x, VECTOR)
        for i in range(len(x)):
            own, to = x[i : i + 1], out[i : i + 1]
            if folds == 1:
                torch.ops.aten.native_batch_norm.out(
                    *(own, weight, bias, None, None, True, 0.0, eps), out=to, save_mean=mean[i], save_invstd=inv_std[i]
                )
            else:
                _normalise_folded(own, weight, bias, eps, folds, to, mean[i], inv_std[i])
        if slope != 1.0:
            F.leaky_relu_(out, slope)
        ctx.save_for_backward(x, out if slope != 1.0 else None, weight, mean, inv_std)
        ctx.eps, ctx.slope = eps, slope
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, out, weight, mean, inv_std = ctx.saved_tensors
        inner = torch.empty_like(x)  # the layout of x, whatever that of grad is
        if out is None:
            inner.copy_(grad)
        else:
            torch.ops.aten.leaky_relu_backward.grad_input(grad, out, ctx.slope, True, grad_input=inner)
        grad_weight, grad_bias = torch.zeros_like(weight), torch.zeros_like(weight)
        folds = _folds(x, LINE)
        for i in range(len(x)):
            own, given = x[i : i + 1], inner[i : i + 1]
            if folds == 1:
                dx, dw, db = torch.ops.aten.native_batch_norm_backward(
                    given, own, weight, None, None, mean[i], inv_std[i], True, ctx.eps, [True, True, True]
                )
                given.copy_(dx)
            else:
                dw, db = _gradients_folded(given, own, weight, mean[i], inv_std[i], ctx.eps, folds)
            grad_weight += dw
            grad_bias += db
        return inner, grad_weight, grad_bias, None, None


def _folds(x: Tensor, multiple: int) -> int:
    """Chooses how many neighbouring voxels to join into one row, so that the norm reads whole cache lines.

    It is 1 where joining voxels would not be faster.

    Args:
        x: Features, shape (B, C, X, Y, Z).
        multiple: Maps are left unfolded where their number of channels is a multiple of this.
    """
    channels, voxels = x.shape[1], x.shape[2:].numel()
    folds = LINE // math.gcd(LINE, channels)
    alone = torch.get_num_threads() == 1
    if not is_channels_last(x) or channels % multiple == 0 or channels * voxels < LEAST_FOLDED or voxels % folds:
        return 1
    # One thread gains by whole vectors alone, in which a row of few channels is all rest.
    return 1 if alone and (channels % VECTOR == 0 or channels > LINE) else folds


def _rows(x: Tensor, folds: int) -> Tensor:
    """Reshapes a sample so that a row holds all channels of several neighbouring voxels; copies nothing.

    Args:
        x: Features in channels_last_3d, shape (1, C, X, Y, Z).
        folds: Voxels in a row; divides X * Y * Z.

    Returns:
        A view of `x`, shape (X * Y * Z / folds, folds * C).
    """
    return x.permute(0, 2, 3, 4, 1).view(-1, folds * x.shape[1])


def _normalise_folded(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, folds: int, out: Tensor, mean: Tensor, inv_std: Tensor
) -> None:
    """Computes the instance norm of one sample from rows that hold several voxels each.

    Torch's batch norm finds the mean and variance at each place in a row; those of one channel are then combined.

    Args:
        x: Features, shape (1, C, X, Y, Z).
        weight: Scale, shape (C,).
        bias: Shift, shape (C,).
        eps: Added to the variance.
        folds: Voxels in a row.
        out: Receives the result, shape of `x`.
        mean: Receives the mean of each channel, shape (C,).
        inv_std: Receives 1 over the standard deviation of each channel, shape (C,).
    """
    rows, to = _rows(x, folds), _rows(out, folds)
    weights, biases = weight.repeat(folds), bias.repeat(folds)
    means, inverses = torch.empty_like(weights), torch.empty_like(weights)
    # The first pass serves for its statistics, of every so many voxels each; its result is written over.
    torch.ops.aten.native_batch_norm.out(
        *(rows, weights, biases, None, None, True, 0.0, eps), out=to, save_mean=means, save_invstd=inverses
    )
    parts = means.view(folds, -1)
    torch.mean(parts, 0, out=mean)
    variance = (inverses.square().reciprocal() - eps).view(folds, -1).mean(0) + parts.var(0, correction=0)
    torch.rsqrt(variance.clamp_min_(0) + eps, out=inv_std)
    torch.ops.aten.native_batch_norm.out(
        *(rows, weights, biases, mean.repeat(folds), variance.repeat(folds), False, 0.0, eps),
        out=to,
        save_mean=mean.new_empty(0),
        save_invstd=mean.new_empty(0),
    )


def _gradients_folded(
    grad: Tensor, x: Tensor, weight: Tensor, mean: Tensor, inv_std: Tensor, eps: float, folds: int
) -> tuple[Tensor, Tensor]:
    """Computes the gradients of :func:`_normalise_folded`; that of the features overwrites `grad`.

    Args:
        grad: Gradient with respect to the norm's result, shape (1, C, X, Y, Z); replaced by that with respect to `x`.
        x: Features, shape of `grad`.
        weight: Scale, shape (C,).
        mean: Mean of each channel, shape (C,).
        inv_std: 1 over the standard deviation of each channel, shape (C,).
        eps: Added to the variance.
        folds: Voxels in a row.

    Returns:
        Gradients with respect to the weight and the bias, shape (C,) each.
    """
    given, rows = _rows(grad, folds), _rows(x, folds)
    weights, means, inverses = (values.repeat(folds) for values in (weight, mean, inv_std))
    _, dw, db = torch.ops.aten.native_batch_norm_backward(
        given, rows, weights, None, None, means, inverses, True, eps, [False, True, True]
    )
    dw, db = dw.view(folds, -1).sum(0), db.view(folds, -1).sum(0)
    voxels = x.shape[2:].numel()
    by_grad = weight * inv_std
    by_x = -by_grad * inv_std * dw / voxels
    constant = -by_grad * db / voxels - by_x * mean
    by_grad, by_x, constant = (values.repeat(folds) for values in (by_grad, by_x, constant))
    length = max(1, CHUNK // rows.shape[1])
    for own, part in zip(torch.split(rows, length), torch.split(given, length), strict=True):
        inner = torch.addcmul(constant, own.to(weight.dtype), by_x)
        part.copy_(inner.addcmul_(part.to(weight.dtype), by_grad))
    return dw, db


def instance_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5, negative_slope: float = 1.0) -> Tensor:
    """Normalises each channel of each sample over space, scales and shifts it, and applies a leaky ReLU.

    The memory format of `x` (contiguous or channels_last_3d) is kept and statistics are float32 for lower precisions.
    An export to ONNX has ONNX's own operator. The work is left to torch's instance norm while the pass is traced or
    exported otherwise, on a CPU while it is compiled, and on other devices for contiguous input. Exporters and
    compilers know that norm; it hands on channels_last_3d as contiguous.

    Args:
        x: Features, shape (B, C, X, Y, Z), more than one voxel.
        weight: Scale, shape (C,).
        bias: Shift, shape (C,).
        eps: Added to the (biased) variance.
        negative_slope: Slope of the leaky ReLU below zero, >= 0; 1 leaves the ReLU out.

    Returns:
        Features, shape and type of `x`.

    Raises:
        ValueError: If there is a single voxel, whose normalised value would be 0 whatever the input.

    References:
        D. Ulyanov, A. Vedaldi, V. Lempitsky, "Instance Normalization: The Missing Ingredient for Fast Stylization",
        2016, arXiv:1607.08022.
    """
    if x.device.type != "cpu" and not is_exporting() and is_channels_last(x):
        return channels_last_norm(x, weight, bias, eps, negative_slope)
    if x.device.type != "cpu" or is_recorded():
        plain = _recorded_norm(x, weight, bias, eps)
        return plain if negative_slope == 1.0 else F.leaky_relu(plain, negative_slope)
    if x.shape[2:].numel() < 2:
        raise ValueError(
            f"instance norm needs more than one voxel per sample, got shape {tuple(x.shape)}; "
            "enlarge the patch or take fewer stages."
        )
    if not x.is_contiguous() and not x.is_contiguous(memory_format=torch.channels_last_3d):
        x = x.contiguous()
    stats_type = torch.float64 if x.dtype == torch.float64 else torch.float32
    out: Tensor = _NormAct.apply(  # type: ignore[no-untyped-call]
        x, weight.to(stats_type), bias.to(stats_type), eps, negative_slope
    )
    return out


def _recorded_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Normalises by the operator that exporters and compilers know."""
    if torch.onnx.is_in_onnx_export():
        # Tracing torch's own norm in open shapes, to end at this operator, would take two fifths of an export's time.
        inputs, name = (x, weight, bias), "InstanceNormalization"
        return torch.onnx.ops.symbolic(name, inputs, {"epsilon": eps}, dtype=x.dtype, shape=x.shape)
    return F.instance_norm(x, weight=weight, bias=bias, eps=eps)


def is_channels_last(x: Tensor) -> bool:
    """Tells whether features lie in channels_last_3d and in no other format that torch would take before it."""
    return x.is_contiguous(memory_format=torch.channels_last_3d) and not x.is_contiguous()


def channels_last_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, negative_slope: float) -> Tensor:
    """Returns what `instance_norm` does, by elementary operators that keep channels_last_3d on any device.

    Each operator passes over memory by itself: the statistics, the product and sum, the activation, and for bfloat16
    the copies to float32 and back. A compiler can fuse them.
    """
    variance, mean = torch.var_mean(x.float(), (2, 3, 4), unbiased=False, keepdim=True)
    shape = (1, -1, 1, 1, 1)
    scale = weight.float().view(shape) * torch.rsqrt(variance + eps)
    out = torch.addcmul(bias.float().view(shape) - mean * scale, x.float(), scale)
    return (out if negative_slope == 1.0 else F.leaky_relu(out, negative_slope)).to(x.dtype)


class InstanceNorm3d(nn.Module):
    """Affine instance normalisation with an optional leaky ReLU behind it, fused.

    Holds `weight` and `bias` under the names of `torch.nn.InstanceNorm3d(affine=True)` and no running statistics.

    Args:
        num_features: Number of channels.
        negative_slope: Slope of the leaky ReLU below zero; 1 leaves the ReLU out.
        eps: Added to the variance.
    """

    def __init__(self, num_features: int, negative_slope: float = 1.0, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.negative_slope = negative_slope
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalises features of shape (B, C, X, Y, Z)."""
        return instance_norm(x, self.weight, self.bias, self.eps, self.negative_slope)

    def extra_repr(self) -> str:
        """Describes the layer as torch's own layers do."""
        return f"{len(self.weight)}, negative_slope={self.negative_slope}, eps={self.eps}"
