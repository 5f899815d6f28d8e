"""Convolution blocks shared by encoder and decoder."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from seg.networks.norm import InstanceNorm3d
from seg.networks.plan import ONE, Triple

SLOPE = 0.01  # of every leaky ReLU, as in nnU-Net


class ConvNormAct(nn.Module):
    """Unbiased convolution, instance norm and leaky ReLU.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Kernel per axis in voxels, odd; the input is padded with zeros to keep the grid.
        stride: Stride per axis in voxels.
        negative_slope: Slope of the leaky ReLU; 1 leaves it out.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Triple,
        stride: Triple = ONE,
        negative_slope: float = SLOPE,
    ) -> None:
        super().__init__()
        x, y, z = (k // 2 for k in kernel_size)
        # The norm takes any constant away again, so a bias would be a dead parameter.
        self.conv = nn.Conv3d(in_channels, out_channels, kernel_size, stride, (x, y, z), bias=False)
        self.norm = InstanceNorm3d(out_channels, negative_slope)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, X, Y, Z) to (B, C_out, X / stride, Y / stride, Z / stride)."""
        out: Tensor = self.norm(self.conv(x))
        return out


class ConvStage(nn.Sequential):
    """Two convolutions, the first of which may stride.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of both convolutions.
        kernel_size: Kernel per axis in voxels, odd.
        stride: Stride of the first convolution per axis.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Triple, stride: Triple = ONE) -> None:
        super().__init__(
            ConvNormAct(in_channels, out_channels, kernel_size, stride),
            ConvNormAct(out_channels, out_channels, kernel_size),
        )


class ResidualStage(nn.Module):
    """Two convolutions whose input is added before the last activation.

    The input is projected by a normalised, strided 1x1 convolution where its width or grid differs.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of both convolutions.
        kernel_size: Kernel per axis in voxels, odd.
        stride: Stride of the first convolution per axis.

    References:
        K. He et al., "Deep Residual Learning for Image Recognition", 2015, arXiv:1512.03385.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Triple, stride: Triple = ONE) -> None:
        super().__init__()
        self.convs = ConvStage(in_channels, out_channels, kernel_size, stride)
        last = self.convs[-1]
        assert isinstance(last, ConvNormAct)
        last.norm.negative_slope = 1.0  # the activation comes after the sum
        needed = in_channels != out_channels or tuple(stride) != ONE
        self.project = ConvNormAct(in_channels, out_channels, ONE, stride, 1.0) if needed else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, X, Y, Z) to (B, C_out, X / stride, Y / stride, Z / stride)."""
        return F.leaky_relu(self.convs(x) + self.project(x), SLOPE)


def draw_weights(module: nn.Module) -> None:
    """Draw convolution weights from He's normal distribution and set their biases to 0, as nnU-Net does."""
    if isinstance(module, (nn.Conv3d, nn.ConvTranspose3d)):
        nn.init.kaiming_normal_(module.weight, a=SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
