"""Networks: a U-Net with optional 1x1 bottlenecks, and what it costs."""

from seg.networks.complexity import Complexity, StageCost, complexity, map_elements, padded
from seg.networks.norm import InstanceNorm3d
from seg.networks.unet import UNet, network_from_config

__all__ = [
    "Complexity",
    "InstanceNorm3d",
    "StageCost",
    "UNet",
    "complexity",
    "map_elements",
    "network_from_config",
    "padded",
]
