"""Blocks of resampled scores: they cover a tile, and each of them stays within the memory it may take."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from seg.inference import resampling
from seg.inference.resampling import Resampling


def test_blocks_cover_a_tile_and_stay_within_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "BLOCK_BYTES", 20_000)
    target = (40, 20, 10)
    grids = Resampling((20, 20, 10), target, (Fraction(2), Fraction(1), Fraction(1)))
    covered = np.zeros(target, int)
    counts = []
    for tile in grids.tiles(([0, 7, 20], [0, 20], [0, 10])):
        for block in grids.blocks(tile, torch.zeros(3, *(part.stop - part.start for part in tile.source))):
            covered[block.target] += 1
            counts.append(math.prod(part.stop - part.start for part in block.target))
    assert (covered == 1).all()
    assert 10_000 < max(counts) * 4 * 3 <= 20_000  # no smaller than they need to be
