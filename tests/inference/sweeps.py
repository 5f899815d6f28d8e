"""A network, images and options for sweeps."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from seg.data.prepare import UNCHANGED
from seg.inference.target import Grid, Options, Prepared

STREAMED = Options(resident_mib=0.0)
"""Holds no more than a front of logits, however small the volume."""


def network(classes=3, channels=2, seed=0):
    """A network whose output at a voxel depends on its neighbours and on the place in the window."""
    torch.manual_seed(seed)
    layers = nn.Sequential(
        nn.Conv3d(channels, 4, 3, padding=1), nn.InstanceNorm3d(4), nn.LeakyReLU(), nn.Conv3d(4, classes, 3, padding=1)
    )
    return layers.eval()


def image(*shape, channels=2):
    torch.manual_seed(1)
    return torch.randn(channels, *shape)


def on_own_grid(volume):
    return Prepared(volume, UNCHANGED, Grid(tuple(volume.shape[1:]), np.eye(4)))
