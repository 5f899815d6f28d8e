"""Records of what a place preserves, with the spectrum of a geometric series."""

from __future__ import annotations

from typing import Any

import numpy as np

CHANNELS = (32, 64, 128)


def place(path: str, stage: int, row: tuple[Any, ...], seed: int) -> dict[str, Any]:
    """Returns the record of one place; the row's second and third entry are the ratios of skips and decoder."""
    channels = CHANNELS[stage]
    wide = channels if path == "skip" else 2 * channels
    ratio = row[1] if path == "skip" else row[2]
    narrow = None if ratio is None else max(1, round(ratio * channels))
    spectrum = np.exp(-np.arange(wide) / (4 + 4 * stage))
    by_width = np.cumsum(spectrum) / spectrum.sum()
    ceiling = None if narrow is None else float(by_width[narrow - 1])
    shares = spectrum / spectrum.sum()
    return {
        "name": f"{path}_{stage}",
        "path": path,
        "stage": stage,
        "channels": channels,
        "voxels": 89600 // 8**stage,
        "wide": wide,
        "narrow": narrow,
        "r2": None if ceiling is None else ceiling * (0.97 - 0.002 * seed),
        "r2_pca": ceiling,
        "effective_rank": float(np.exp(-(shares * np.log(shares)).sum())),
        "participation_ratio": float(1 / (shares**2).sum()),
        "spectrum": spectrum.tolist(),
        "r2_by_width": by_width.tolist(),
        "cka": None if ceiling is None else 0.5 + 0.5 * ceiling,
        "probe_dice_wide": [0.8, 0.78],
        "probe_dice_narrow": None if ceiling is None else [0.8 * ceiling, 0.78 * ceiling],
        "amplified": None if ceiling is None else 0.2,
        "suppressed": None if ceiling is None else 0.3,
        "position_preserved": None if ceiling is None else True,
    }
