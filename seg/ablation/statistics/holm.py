"""Holm's procedure: several tests of which none may pass wrongly, except with the chance `TAIL`.

References:
    S. Holm, A simple sequentially rejective multiple test procedure, 1979, doi:10.2307/4615733.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from seg.ablation.statistics.effects import TAIL


def holm_adjusted(p_values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Adjusts p-values of several tests by Holm's procedure: a test passes where its adjusted one is at most `TAIL`.

    The smallest of m p-values is multiplied by m, the next by m - 1, and so on. None is less than that of a smaller
    p-value, and none is above 1.

    Args:
        p_values: P-values in [0, 1], shape (tests,).

    Returns:
        The adjusted p-values, in the same order.
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values)
    adjusted = np.empty_like(values)
    adjusted[order] = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)).clip(max=1.0)
    return adjusted


def holm_levels(p_values: Mapping[str, float | None]) -> dict[str, float]:
    """Returns the level of each variant by Holm's procedure: a variant passes where its p-value is at most its level.

    The smallest of m p-values is tested at `TAIL` / m, the next at `TAIL` / (m - 1), and so on until the first that
    does not pass; all from there on are tested at its level. The same variants pass as by adjusted p-values.

    Args:
        p_values: P-value by variant; None where a variant could not be tested.

    Returns:
        Levels of the variants with a p-value.
    """
    tested = sorted((p, name) for name, p in p_values.items() if p is not None)
    levels: dict[str, float] = {}
    left, failing = len(tested), False
    for p, name in tested:
        levels[name] = TAIL / left
        failing = failing or p > levels[name]
        left -= not failing
    return levels
