"""Convolutions that always run on a CPU's fast kernels, in training and in inference.

torch 2.13 gives a float32 convolution of one sample to a slow kernel of its own where the filter is at most 3 wide and
C x X x Y is at most 20,480, and a 1x1 of fewer than 16 samples wherever one thread runs (`use_mkldnn` in
aten/src/ATen/native/Convolution.cpp; https://github.com/pytorch/pytorch/issues/46675 is the background). oneDNN
makes whole networks about twice to 3.6 times as fast there (docs/results/kernels.md), so it gets what torch would
withhold from it.

torch.compile cannot trace this: torch's operator of oneDNN tells no shapes without data. A network that is compiled for
a CPU therefore runs on the convolutions that torch chooses, slow ones among them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.flop_counter import conv_flop_count, register_flop_formula

Triple = tuple[int, int, int]
ONE: Triple = (1, 1, 1)
NONE: Triple = (0, 0, 0)
MEMORY_FORMATS = {"channels_last_3d": torch.channels_last_3d, "contiguous": torch.contiguous_format}


def is_exporting() -> bool:
    """Tells whether the forward pass is being exported, for other engines, or traced; compiling it is neither."""
    return bool(torch.compiler.is_exporting() or torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


def is_recorded() -> bool:
    """Tells whether the forward pass is being exported, traced or compiled, and so may hold torch's operators alone."""
    return is_exporting() or torch.compiler.is_compiling()


@register_flop_formula(torch.ops.aten.mkldnn_convolution)
def _flop(x_shape: list[int], weight_shape: list[int], *_: Any, out_shape: list[int], **__: Any) -> int:
    """Returns the FLOP of a convolution by oneDNN, which torch's own counter does not know."""
    return conv_flop_count(x_shape, weight_shape, out_shape)


class _OneDnn(torch.autograd.Function):
    """A convolution by oneDNN, forwards and backwards.

    torch chooses the kernel of a backward pass anew. A 1x1 goes backwards by two products of matrices. Any other one
    is handed over in oneDNN's own layout, for which torch never takes its slow kernel, at the cost of two copies.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Triple, padding: Triple) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        out: Tensor = torch.ops.aten.mkldnn_convolution(x, weight, bias, padding, stride, ONE, 1)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        grad_x: Tensor | None = None
        grad_weight: Tensor | None = None
        if tuple(weight.shape[2:]) == ctx.stride == ONE and ctx.padding == NONE:
            rows = grad.permute(0, 2, 3, 4, 1)
            if needs_x:
                grad_x = (rows @ weight.flatten(1)).permute(0, 4, 1, 2, 3)
            if needs_weight:
                features = x.permute(0, 2, 3, 4, 1).flatten(0, 3)
                grad_weight = (rows.flatten(0, 3).T @ features).reshape(weight.shape)
        else:
            mask = [needs_x, needs_weight, False]
            grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
                grad.to_mkldnn(), x.to_mkldnn(), weight, None, ctx.stride, ctx.padding, ONE, False, NONE, 1, mask
            )
            grad_x = grad_x.to_dense() if grad_x is not None else None
        return grad_x, grad_weight, grad.sum((0, 2, 3, 4)) if needs_bias else None, None, None


def conv3d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Triple = ONE, padding: Triple = NONE
) -> Tensor:
    """Convolves as `torch.nn.functional.conv3d` does, never by torch's slow kernel on a CPU.

    Args:
        x: Features, shape (B, C_in, X, Y, Z).
        weight: Kernel, shape (C_out, C_in, kX, kY, kZ).
        bias: Shape (C_out,); None adds nothing.
        stride: Voxels per axis.
        padding: Zeros on either side, per axis.

    Returns:
        Features, shape (B, C_out, X', Y', Z').
    """
    if _is_slow(x, weight, stride, padding, transposed=False):
        out: Tensor = _OneDnn.apply(x, weight, bias, stride, padding)  # type: ignore[no-untyped-call]
        return out
    return F.conv3d(x, weight, bias, stride, padding)


def _is_slow(x: Tensor, weight: Tensor, stride: Triple, padding: Triple, *, transposed: bool) -> bool:
    """Tells whether torch would take a slow kernel where oneDNN has a fast one."""
    # Neither exporters nor compilers know what oneDNN does here. Autocast would leave it in float32, and torch's own
    # choice is right there.
    if x.device.type != "cpu" or is_recorded() or torch.is_autocast_enabled("cpu"):
        return False
    if not (x.dtype == weight.dtype == torch.float32 and torch.backends.mkldnn.is_available()):  # type: ignore[no-untyped-call]
        return False
    kinds = torch._C._ConvBackend  # type: ignore[attr-defined]
    choice = torch._C._select_conv_backend(x, weight, None, stride, padding, ONE, transposed, NONE, 1)
    return bool(choice == (kinds.SlowTranspose3d if transposed else kinds.Slow3d))


class Conv3d(nn.Conv3d):
    """`torch.nn.Conv3d` by `conv3d`; dilation, groups and padding by other values than zeros are torch's own."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        plain = self.dilation == ONE and self.groups == 1 and self.padding_mode == "zeros"
        if not plain or isinstance(self.padding, str):
            out: Tensor = super()._conv_forward(input, weight, bias)
            return out
        return conv3d(input, weight, bias, self.stride, self.padding)  # type: ignore[arg-type]


class ConvTranspose3d(nn.ConvTranspose3d):
    """`torch.nn.ConvTranspose3d`, by a 1x1 convolution and a shuffle where torch would take a slow kernel.

    Where kernel and stride are equal no two outputs share an input, so each input voxel makes a block of `stride`
    output voxels by itself.
    """

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Enlarges features by the transposed convolution.

        Args:
            input: Features, shape (B, C_in, X, Y, Z).
            output_size: Voxels of the output per axis, as in torch; None for the input's times the stride.

        Returns:
            Features, shape (B, C_out, X * stride, Y * stride, Z * stride).
        """
        blocks = self.kernel_size == self.stride and self.padding == self.output_padding == NONE
        plain = blocks and self.dilation == ONE and self.groups == 1 and output_size is None
        if not plain or not _is_slow(input, self.weight, self.stride, NONE, transposed=True):  # type: ignore[arg-type]
            out: Tensor = super().forward(input, output_size)
            return out
        # A block's voxels follow one another in the channels of the 1x1, each with its own channels side by side.
        weight = self.weight.permute(2, 3, 4, 1, 0).reshape(-1, self.in_channels, 1, 1, 1)
        x = conv3d(input, weight).permute(0, 2, 3, 4, 1)
        b, *shape = x.shape[:4]
        x = x.reshape(b, *shape, *self.stride, self.out_channels).permute(0, 1, 4, 2, 5, 3, 6, 7)
        large = [n * s for n, s in zip(shape, self.stride, strict=True)]
        x = x.reshape(b, *large, self.out_channels).permute(0, 4, 1, 2, 3)
        return x if self.bias is None else x + self.bias[:, None, None, None]


def use_fast_kernels(network: nn.Module) -> nn.Module:
    """Gives every 3-D convolution of a network that others built the kernels of this module, in place.

    Weights stay the same objects. Subclasses of torch's layers are left as they are.
    """
    for module in network.modules():
        if type(module) is nn.Conv3d:
            module.__class__ = Conv3d
        elif type(module) is nn.ConvTranspose3d:
            module.__class__ = ConvTranspose3d
    return network
