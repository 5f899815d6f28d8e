"""Blocks of resampled scores: they cover a tile, and each of them stays within the memory it may take."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from seg.inference import resampling
from seg.inference.resampling import PLACE_BYTES, Resampling

SHEARED = np.array([[1, 0.2, 0, 5], [0, 1, 0.1, -3], [0, 0, 1, 0], [0, 0, 0, 1.0]])


@pytest.mark.parametrize("affine", [np.diag([0.5, 1, 1, 1]), SHEARED], ids=["straight", "sheared"])
def test_blocks_cover_a_tile_and_stay_within_their_memory(affine: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "BLOCK_BYTES", 100_000)
    target = (40, 20, 10)
    grids = Resampling((30, 20, 10), np.eye(4), target, affine)
    per_voxel = 4 * 3 + (0 if grids.straight else PLACE_BYTES)
    covered = np.zeros(target, int)
    counts = []
    for tile in grids.tiles(([0, 15, 30], [0, 20], [0, 10])):
        for block in grids.blocks(tile, torch.zeros(3, *(part.stop - part.start for part in tile.source))):
            covered[block.target] += 1
            counts.append(math.prod(part.stop - part.start for part in block.target))
    assert (covered == 1).all()
    assert max(counts) * per_voxel <= 100_000
    assert max(counts) * per_voxel > 50_000  # no smaller than they need to be
