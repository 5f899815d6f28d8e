"""Small, fast 3-D U-Nets for medical image segmentation, and the ablation of their 1x1 bottlenecks."""

__version__ = "0.1.0"
