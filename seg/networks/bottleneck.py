"""The 1x1 bottleneck: its blocks, and the cheaper forms that compute the same function."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from seg.config import BottleneckConfig
from seg.networks.blocks import SLOPE, ConvNormAct
from seg.networks.conv import ONE, Conv3d, Triple, conv3d
from seg.networks.norm import InstanceNorm3d


def stage_ratios(bottleneck: BottleneckConfig, levels: int) -> tuple[float, ...]:
    """Returns the ratio of each of the `levels` stages above the bottom, from full resolution down."""
    return bottleneck.ratio if isinstance(bottleneck.ratio, tuple) else (bottleneck.ratio,) * levels


def width(channels: int, ratio: float) -> int:
    """Returns the channels of a bottleneck in a stage of `channels` channels: their product with the ratio, >= 1."""
    return max(1, round(ratio * channels))


def projects_back(ratio: float, merge: str) -> bool:
    """Tells whether a skip bottleneck needs a second 1x1, which leads back to the width of its stage."""
    return ratio > 1 or (merge == "add" and ratio < 1)


class Pointwise(nn.Sequential):
    """The norm and activation behind a 1x1 convolution, either of which may be absent."""

    def __init__(self, channels: int, spec: BottleneckConfig) -> None:
        super().__init__()
        leaky_norm = spec.norm and spec.activation == "leaky_relu"
        if spec.norm:
            self.append(InstanceNorm3d(channels, SLOPE if leaky_norm else 1.0))
        if spec.activation == "leaky_relu" and not leaky_norm:
            self.append(nn.LeakyReLU(SLOPE))
        elif spec.activation == "relu":
            self.append(nn.ReLU())
        elif spec.activation == "prelu":
            self.append(nn.PReLU(channels))
        elif spec.activation == "sigmoid":
            self.append(nn.Sigmoid())


class SkipBottleneck(nn.Module):
    """A 1x1 in a skip: to K = width(C, ratio) channels, with a second one back to C where that is needed.

    Args:
        channels: Channels C of the stage.
        spec: Activation and norm.
        ratio: Ratio of this stage.
        merge: `concat` takes a narrow skip as it is, `add` needs it at the width of its stage.

    Attributes:
        out_channels: Channels handed to the decoder.
    """

    def __init__(self, channels: int, spec: BottleneckConfig, ratio: float, merge: str) -> None:
        super().__init__()
        inner = width(channels, ratio)
        self.reduce = Conv3d(channels, inner, 1, bias=not spec.norm)
        self.pointwise = Pointwise(inner, spec)
        back = projects_back(ratio, merge)
        self.project = Conv3d(inner, channels, 1) if back else nn.Identity()
        self.out_channels = channels if back else inner

    def forward(self, x: Tensor) -> Tensor:
        """Applies the 1x1 convolutions of the skip, voxel by voxel.

        Args:
            x: Features of the encoder, shape (B, C, X, Y, Z).

        Returns:
            Features for the decoder, shape (B, out_channels, X, Y, Z).
        """
        out: Tensor = self.project(self.pointwise(self.reduce(x)))
        return out


class DecoderBottleneck(nn.Module):
    """A decoder stage of 1x1 to K channels, one full kernel at that width, and 1x1 back to C.

    The activation and norm of the specification follow the reducing 1x1; the two convolutions behind it always have
    their instance norm and leaky ReLU. `norm=True, activation="leaky_relu"` is ResNet's form.

    Args:
        in_channels: Channels of the merged input.
        widths: Channels behind the reducing 1x1, the full kernel and the expanding 1x1: K, K and C, as a rule.
        kernel_size: Kernel of the middle convolution per axis, odd.
        spec: Activation and norm behind the reducing 1x1.
        ranks: Channels of a linear 1x1 before and behind the full kernel, 0 where there is none.

    References:
        K. He et al., "Deep Residual Learning for Image Recognition", 2015, arXiv:1512.03385. Deviations: no addition
        of the input, instance norm, leaky ReLU.
    """

    def __init__(
        self,
        in_channels: int,
        widths: tuple[int, ...],
        kernel_size: Triple,
        spec: BottleneckConfig,
        ranks: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__()
        reduced, between, channels = widths
        self.reduce = Conv3d(in_channels, reduced, 1, bias=not spec.norm)
        self.pointwise = Pointwise(reduced, spec)
        self.conv = ConvNormAct(reduced, between, kernel_size, ranks=ranks)
        self.expand = ConvNormAct(between, channels, ONE)

    def forward(self, x: Tensor, *, reduced: bool = False) -> Tensor:
        """Reduces merged features by a 1x1, applies the full kernel, and expands them by another 1x1.

        Args:
            x: Merged features, shape (B, C_in, X, Y, Z).
            reduced: Whether the reducing 1x1 was applied to `x` already, so that its shape is (B, K, X, Y, Z).

        Returns:
            Features, shape (B, C, X, Y, Z).
        """
        x = x if reduced else self.reduce(x)
        out: Tensor = self.expand(self.conv(self.pointwise(x)))
        return out


def interpolate(x: Tensor, scale: Triple) -> Tensor:
    """Enlarges (B, C, X, Y, Z) trilinearly by whole factors; scale 1 on every axis returns `x` itself."""
    if tuple(scale) == ONE:
        return x
    return F.interpolate(x, scale_factor=tuple(float(s) for s in scale), mode="trilinear", align_corners=False)


def reduce_pair(up: Tensor, skip: Tensor, weight: Tensor, bias: Tensor | None, scale: Triple) -> Tensor:
    """Applies a 1x1 convolution to the concatenation of an upsampled tensor and a skip without building either.

    W [a; b] = W1 a + W2 b, and W1 commutes with the interpolation, which is the same linear map on every channel;
    so W1 works at the lower resolution and the interpolation on fewer channels. Equal in exact arithmetic.

    Args:
        up: Lower features, shape (B, C1, X / scale, Y / scale, Z / scale).
        skip: Skip features, shape (B, C2, X, Y, Z).
        weight: Weight of the 1x1, shape (K, C1 + C2, 1, 1, 1).
        bias: Bias of the 1x1, shape (K,); None where it has none.
        scale: Whole interpolation factor per axis.

    Returns:
        Features, shape (B, K, X, Y, Z).
    """
    split = up.shape[1]
    return interpolate(conv3d(up, weight[:, :split]), scale) + conv3d(skip, weight[:, split:], bias)
