"""Networks: a U-Net with optional 1x1 bottlenecks, and what it costs."""

from seg.networks.bottleneck import Bottleneck
from seg.networks.complexity import Complexity, StageCost, complexity
from seg.networks.norm import InstanceNorm3d
from seg.networks.plan import Options, Plan
from seg.networks.registry import get_network
from seg.networks.unet import UNet

__all__ = [
    "Bottleneck",
    "Complexity",
    "InstanceNorm3d",
    "Options",
    "Plan",
    "StageCost",
    "UNet",
    "complexity",
    "get_network",
]
