"""Intensities on a common scale."""

from __future__ import annotations

from torch import Tensor

from seg.config import CtConfig, DataConfig
from seg.errors import ConfigError


def normalize(image: Tensor, modes: tuple[str, ...], ct: CtConfig | None) -> None:
    """Brings the intensities of each channel to a common scale, in place.

    ``zscore`` subtracts the volume's mean and divides by its standard deviation, so that equal voxels become 0; ``ct``
    clips to a fixed window and applies the data set's mean and standard deviation; ``none`` leaves values alone.

    Args:
        image: Volume f32 (C, X, Y, Z).
        modes: One mode per channel, or one for all.
        ct: Window of the channels in mode ``ct``.
    """
    for channel, values in enumerate(image):
        mode = modes[channel if len(modes) > 1 else 0]
        if mode == "zscore":
            # A single voxel has no standard deviation.
            deviation = values.std().clamp_min(1e-8) if values.numel() > 1 else 1.0
            values.sub_(values.mean()).div_(deviation)
        elif mode == "ct" and ct is not None:
            values.clamp_(ct.lower[channel], ct.upper[channel])
            values.sub_(ct.mean[channel]).div_(ct.std[channel])


def check_channels(config: DataConfig, channels: int) -> None:
    """Checks that normalisation says what to do with every channel, and with no other.

    Args:
        config: Modes and windows, which obey the rules of a configuration.
        channels: Channels of the data set.

    Raises:
        ConfigError: The number of modes or of windows does not fit; both are named.
    """
    found = []
    modes = len(config.normalization)
    if modes not in (1, channels):
        found.append(
            f"data.normalization must name one mode for all channels or one for each of the data set's {channels}, "
            f"got {modes}: {', '.join(config.normalization)}; correct it or channel_names of the data set."
        )
    if config.ct is not None and len(config.ct.lower) != channels:
        found.append(
            f"data.ct must have one value for each of the data set's {channels} channels, got {len(config.ct.lower)}; "
            "scripts/plan.py finds them."
        )
    if found:
        raise ConfigError(found)
