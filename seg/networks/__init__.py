"""Networks: a U-Net with optional 1x1 bottlenecks, and what it costs."""

from seg.networks.complexity import Complexity, StageCost, complexity
from seg.networks.norm import InstanceNorm3d
from seg.networks.unet import UNet, network_from_config

__all__ = ["Complexity", "InstanceNorm3d", "StageCost", "UNet", "complexity", "network_from_config"]
