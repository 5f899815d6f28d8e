"""Convolution blocks shared by encoder and decoder, and their initial weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seg.networks.conv import ONE, Conv3d, Triple
from seg.networks.norm import InstanceNorm3d

SLOPE = 0.01  # of every leaky ReLU, as in nnU-Net


def total_stride(strides: Iterable[Triple]) -> Triple:
    """Returns how many voxels of the image make one voxel of the last stage, along X, Y and Z."""
    x, y, z = (prod(axis) for axis in zip(*strides, strict=True))
    return x, y, z


class FactoredConv3d(nn.Module):
    """An unbiased convolution between two linear 1x1, either of which may be absent.

    A convolution of low rank on either side: the kernel works on few channels, whatever the maps around it hold.
    Nothing stands between the three, so they fold into one kernel.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Kernel per axis, odd.
        stride: Voxels per axis.
        padding: Zeros on either side, per axis.
        ranks: Channels of the 1x1 before and behind; 0 where there is none.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Triple,
        stride: Triple,
        padding: Triple,
        ranks: tuple[int, int],
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        read, written = ranks[0] or in_channels, ranks[1] or out_channels
        self.before = Conv3d(in_channels, read, 1, bias=False) if ranks[0] else nn.Identity()
        self.conv = Conv3d(read, written, kernel_size, stride, padding, bias=False)
        self.behind = Conv3d(written, out_channels, 1, bias=False) if ranks[1] else nn.Identity()

    def forward(self, x: Tensor, *, reduced: bool = False) -> Tensor:
        """Applies the 1x1 before the kernel, the kernel and the 1x1 behind it.

        Args:
            x: Features, shape (B, C_in, X, Y, Z).
            reduced: Whether the 1x1 before the kernel was applied to `x` already, so that C_in is its width.

        Returns:
            Features, shape (B, C_out, X / stride, Y / stride, Z / stride).
        """
        out: Tensor = self.behind(self.conv(x if reduced else self.before(x)))
        return out


class ConvNormAct(nn.Module):
    """Unbiased convolution, instance norm and leaky ReLU, whose slope 1 leaves it out.

    Kernels are odd, in voxels per axis; the input is padded with zeros to keep the grid. `ranks` are the channels of
    a linear 1x1 before and behind the kernel, 0 where there is none.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Triple,
        stride: Triple = ONE,
        negative_slope: float = SLOPE,
        ranks: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__()
        x, y, z = (k // 2 for k in kernel_size)
        # The norm takes any constant away again, so a bias would be a dead parameter.
        self.conv: Conv3d | FactoredConv3d
        if any(ranks):
            self.conv = FactoredConv3d(in_channels, out_channels, kernel_size, stride, (x, y, z), ranks)
        else:
            self.conv = Conv3d(in_channels, out_channels, kernel_size, stride, (x, y, z), bias=False)
        self.norm = InstanceNorm3d(out_channels, negative_slope)

    def forward(self, x: Tensor, *, reduced: bool = False) -> Tensor:
        """Applies the convolution, the norm and the activation.

        Args:
            x: Features, shape (B, C_in, X, Y, Z).
            reduced: Whether the 1x1 before the kernel was applied to `x` already, so that C_in is its width.

        Returns:
            Features, shape (B, C_out, X / stride, Y / stride, Z / stride).
        """
        out: Tensor = self.norm(self.conv(x, reduced=True) if reduced else self.conv(x))
        return out


class ConvStage(nn.Sequential):
    """Two convolutions of odd kernels, the first of which may stride.

    Args:
        in_channels: Channels of the input.
        widths: Channels behind each convolution.
        kernel_size: Kernel of both per axis, odd.
        stride: Voxels per axis.
        ranks: Channels of the linear 1x1 before and behind each kernel, 0 where there is none.
    """

    def __init__(
        self,
        in_channels: int,
        widths: tuple[int, ...],
        kernel_size: Triple,
        stride: Triple = ONE,
        ranks: tuple[tuple[int, int], ...] = ((0, 0), (0, 0)),
    ) -> None:
        between, out_channels = widths
        first, second = ranks
        super().__init__(
            ConvNormAct(in_channels, between, kernel_size, stride, ranks=first),
            ConvNormAct(between, out_channels, kernel_size, ranks=second),
        )

    @property
    def reduce(self) -> nn.Conv3d | None:
        """The 1x1 convolution that the stage starts with; None if it starts with a full kernel."""
        first = self[0].conv
        return first.before if isinstance(first, FactoredConv3d) and isinstance(first.before, nn.Conv3d) else None

    def forward(self, x: Tensor, *, reduced: bool = False) -> Tensor:
        """Applies both convolutions, each with its norm and activation.

        Args:
            x: Features, shape (B, C_in, X, Y, Z).
            reduced: Whether the 1x1 before the first kernel was applied to `x` already, so that C_in is its width.

        Returns:
            Features, shape (B, C_out, X / stride, Y / stride, Z / stride).
        """
        first, second = self
        out: Tensor = second(first(x, reduced=reduced))
        return out


class ResidualStage(nn.Module):
    """Two convolutions whose input is added before the last activation.

    The input is projected by a normalised, strided 1x1 convolution where its width or grid differs.

    References:
        K. He et al., "Deep Residual Learning for Image Recognition", 2015, arXiv:1512.03385.
    """

    def __init__(
        self,
        in_channels: int,
        widths: tuple[int, ...],
        kernel_size: Triple,
        stride: Triple = ONE,
        ranks: tuple[tuple[int, int], ...] = ((0, 0), (0, 0)),
    ) -> None:
        super().__init__()
        self.convs = ConvStage(in_channels, widths, kernel_size, stride, ranks)
        out_channels = widths[-1]
        last = self.convs[-1]
        assert isinstance(last, ConvNormAct)
        last.norm.negative_slope = 1.0  # the activation comes after the sum
        needed = in_channels != out_channels or tuple(stride) != ONE
        self.project = ConvNormAct(in_channels, out_channels, ONE, stride, 1.0) if needed else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Adds the input, projected where needed, to the output of both convolutions, and applies the activation.

        Args:
            x: Features, shape (B, C_in, X, Y, Z).

        Returns:
            Features, shape (B, C_out, X / stride, Y / stride, Z / stride).
        """
        return F.leaky_relu(self.convs(x) + self.project(x), SLOPE)


def draw_weights(module: nn.Module) -> None:
    """Draws a convolution's weights from He's normal distribution and sets its bias to 0, as nnU-Net does.

    A module of another kind is left as it is.
    """
    if isinstance(module, (nn.Conv3d, nn.ConvTranspose3d)):
        nn.init.kaiming_normal_(module.weight, a=SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def initialise(network: nn.Module, seed: int) -> None:
    """Draws the weights of all convolutions in place; biases are set to 0, and norms keep their constants.

    Every weight has a random stream of its own, named after the seed and the parameter, so variants of a network
    start from equal weights in all parameters that they have in common.

    References:
        He, Zhang, Ren, Sun. Delving deep into rectifiers. ICCV 2015. arXiv:1502.01852. Normal distribution, fan in,
        gain of a leaky ReLU of slope 0.01.
    """
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
            stream = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
            fresh = torch.empty(parameter.shape)
            nn.init.kaiming_normal_(fresh, a=SLOPE, generator=stream)
            with torch.no_grad():
                parameter.copy_(fresh)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
