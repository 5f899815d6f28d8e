"""Random streams: every draw is a function of the seed, a purpose and a position."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch


class Stream(IntEnum):
    """Purpose of a stream; streams of different purposes are independent."""

    ORDER = 0
    PATCH = 1
    AUGMENTATION = 2


def generator(seed: int, stream: Stream, position: int) -> np.random.Generator:
    """Returns a NumPy generator for one purpose and position."""
    return np.random.default_rng([seed, int(stream), position])


def torch_generator(seed: int, stream: Stream, position: int) -> torch.Generator:
    """Returns a torch CPU generator for one purpose and position."""
    state = np.random.SeedSequence([seed, int(stream), position]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state & np.uint64(2**63 - 1)))
