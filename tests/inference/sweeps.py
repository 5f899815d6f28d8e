"""A network, images and options for sweeps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from seg.data.geometry import Geometry
from seg.data.prepare import UNCHANGED
from seg.inference.arrays import HOST
from seg.inference.segmentation import Prepared

STREAMED = 0.0
"""MiB of logits that may be held for the whole volume: a front alone is held, however small the volume."""


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


def in_numpy(models, case):
    """The same networks and image with arrays of NumPy outside the networks, as engines other than torch have them."""

    def forward(net):
        def run(windows):
            assert isinstance(windows, np.ndarray)
            with torch.no_grad():
                return net(torch.from_numpy(np.ascontiguousarray(windows))).numpy()

        return run

    others = [replace(model, network=forward(model.network), device=HOST) for model in models]
    return others, replace(case, image=case.image.numpy())


def prepared(volume, step=UNCHANGED, shape=None, affine=None):
    grid = Geometry(shape=shape or tuple(volume.shape[1:]), affine=np.eye(4) if affine is None else affine, header=None)
    return Prepared(image=volume, step=step, target=grid)
