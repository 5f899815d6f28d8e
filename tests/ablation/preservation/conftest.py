"""Features in memory, and their moments as streamed in chunks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from seg.ablation.preservation.moments import FeatureWidths, Moments, Summary


@pytest.fixture(scope="session")
def summarise() -> Callable[..., Summary]:
    """Gives the function that streams features (n, C), (n, K) and labels (n,) in uneven chunks."""

    def stream(wide, narrow=None, labels=None, classes=2, chunk=37):
        n = len(wide)
        labels = np.zeros(n, dtype=np.int64) if labels is None else labels
        layout = FeatureWidths(wide=wide.shape[1], narrow=0 if narrow is None else narrow.shape[1], classes=classes)
        moments = Moments(layout.size, torch.device("cpu"))
        for first in range(0, n, chunk):
            part = slice(first, first + chunk)
            x, t = torch.from_numpy(wide[part]), torch.from_numpy(labels[part])
            y = None if narrow is None else torch.from_numpy(narrow[part])
            moments.add(layout.rows(x, y, t))
        return Summary.of(layout, moments)

    return stream


@pytest.fixture
def mixed() -> tuple[np.ndarray, np.ndarray]:
    """Correlated wide features (300, 7) and a non-linear narrow code of them (300, 3)."""
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(300, 7)) @ rng.normal(size=(7, 7)) + 3
    narrow = np.maximum(wide @ rng.normal(size=(7, 3)), 0) + 0.1 * rng.normal(size=(300, 3))
    return wide, narrow
