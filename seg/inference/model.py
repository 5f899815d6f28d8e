"""A trained network and how to apply it to windows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from seg.config import ExperimentConfig
from seg.inference.arrays import HOST, Array, Device, flipped, in_single, to_numpy
from seg.inference.windows import Network, Triple, Windows, whole_window

if TYPE_CHECKING:
    import torch

HELD_WIDTHS = 12
"""Values that a pass through a U-Net holds at once for each voxel, in channels of its first stage: 7 to 12 were 
measured on windows of 64 and 96 voxels along an edge."""


def processor() -> torch.device:
    """Returns torch's name of the processor."""
    import torch

    return torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Model:
    """A network in evaluation mode on its device, and its windows.

    Attributes:
        network: From windows (B, C, X, Y, Z) to logits (B, K, X, Y, Z).
        window: Window size (X, Y, Z) in voxels.
        overlap: Share of a window that its neighbour covers again, in [0, 1).
        blend: ``gaussian`` or ``constant``.
        batch: Windows per forward pass, >= 1.
        mirror_axes: Spatial axes (0 is X) along whose mirrored copies logits are averaged, 2 per axis.
        multiple: Number of voxels, per axis, that windows are a multiple of: the network's total stride.
        whole_up_to: Volumes of up to this many voxels, padded to the multiple, are one window; 0 turns it off.
        width: Channels at full resolution.
        device: Where the network lies; a network on :data:`HOST` takes and gives arrays of NumPy, others tensors.
        precision: ``fp32``, ``bf16``, or ``int8`` of a network that was quantised.
    """

    network: Network
    window: Triple
    overlap: float = 0.5
    blend: str = "gaussian"
    batch: int = 1
    mirror_axes: tuple[int, ...] = ()
    multiple: Triple = (1, 1, 1)
    whole_up_to: int = 0
    width: int = 1
    device: Device = field(default_factory=processor)
    precision: str = "fp32"

    def windows(self, shape: Sequence[int]) -> Windows:
        """Lays this model's windows over a volume of the shape (X, Y, Z)."""
        whole = whole_window(shape, self.multiple)
        return Windows.over(shape, whole if math.prod(whole) <= self.whole_up_to else self.window, self.overlap)

    def pass_bytes(self, shape: Sequence[int], num_classes: int) -> int:
        """Estimates the memory of a pass over a volume of the shape (X, Y, Z), without its parameters."""
        windows = self.windows(shape)
        batch = min(self.batch, math.prod(map(len, windows.starts)))
        inner = HELD_WIDTHS * self.width * (2 if self.precision == "bf16" else 4)
        return batch * math.prod(windows.size) * (inner + 4 * 2 * num_classes)

    def logits(self, windows: Array) -> Array:
        """Returns logits f32 (B, K, X, Y, Z) of windows (B, C, X, Y, Z), on the model's device."""
        if self.device == HOST:
            return mirrored_logits(self.network, to_numpy(windows), self.mirror_axes)
        import torch

        with torch.inference_mode(), autocast(self.device, self.precision):
            tensor = torch.from_numpy(windows) if isinstance(windows, np.ndarray) else windows
            if self.device.type == "cuda" and tensor.device.type == "cpu":
                tensor = tensor.pin_memory()  # so that the next ones are cut while these are copied
            return mirrored_logits(self.network, tensor.to(self.device, non_blocking=True), self.mirror_axes)


def model_from_config(
    network: Network, config: ExperimentConfig, *, device: Device, precision: str, tta: bool | None = None
) -> Model:
    """Builds a model of a network in evaluation mode on the device, from the experiment that it was trained in.

    With ``tta``, logits are averaged over mirrored copies along the axes that training mirrored; None is as the
    experiment says.
    """
    inference = config.inference
    strides = config.network.strides
    x, y, z = (math.prod(stride[axis] for stride in strides) for axis in range(3))
    return Model(
        network=network,
        window=config.window,
        overlap=inference.overlap,
        blend=inference.blend,
        batch=inference.batch,
        mirror_axes=mirrored_axes(config, tta=tta),
        multiple=(x, y, z),
        whole_up_to=inference.whole_up_to,
        width=config.network.channels[0],
        device=device,
        precision=precision,
    )


def mirrored_axes(config: ExperimentConfig, *, tta: bool | None = None) -> tuple[int, ...]:
    """Returns the axes along whose mirrored copies logits are averaged; see :func:`model_from_config`."""
    return config.augmentation.spatial.mirror_axes if (config.inference.tta if tta is None else tta) else ()


def named_axes(axes: Sequence[int]) -> str:
    """Names axes along which images are mirrored, for a certificate."""
    return ", ".join("XYZ"[axis] for axis in axes) or "none"


def autocast(device: Device, precision: str) -> AbstractContextManager[object]:
    """Returns the context in which a network of torch computes with the given precision."""
    import torch

    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()


def mirrored_logits(network: Network, windows: Array, axes: Sequence[int]) -> Array:
    """Returns logits f32 (B, K, X, Y, Z), averaged over mirrored copies along spatial axes in every combination."""
    dims = [2 + axis for axis in axes]
    total = in_single(network(windows))
    for count in range(1, len(dims) + 1):
        for some in itertools.combinations(dims, count):
            total = total + flipped(in_single(network(flipped(windows, some))), some)
    return total / 2 ** len(dims) if dims else total
