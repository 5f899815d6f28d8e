"""Holm's procedure: statsmodels, a closed form, ties and no test at all."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from seg.ablation.statistics.holm import holm_adjusted, holm_levels

SEEDS = range(5)


@pytest.mark.parametrize("seed", SEEDS)
def test_adjusted_p_values_are_those_of_statsmodels(seed: int) -> None:
    p_values = np.random.default_rng(seed).beta(0.2, 4.0, size=40)
    assert holm_adjusted(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_adjusted_p_values_have_a_closed_form() -> None:
    # 0.01 * 3; 0.02 * 2 = 0.04; 0.03 * 1 is raised to the value before it.
    assert holm_adjusted([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm_adjusted([0.01, 0.01, 0.5]) == pytest.approx([0.03, 0.03, 0.5])
    assert holm_adjusted([0.6, 0.6]).tolist() == [1.0, 1.0]
    assert holm_adjusted([]).size == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_levels_pass_what_adjusted_p_values_pass(seed: int) -> None:
    p_values = np.random.default_rng(seed).beta(0.3, 6.0, size=9)
    levels = holm_levels({str(number): float(p) for number, p in enumerate(p_values)} | {"untested": None})
    passed = multipletests(p_values, alpha=0.025, method="holm")[0]
    assert [p <= levels[str(number)] for number, p in enumerate(p_values)] == passed.tolist()
    assert "untested" not in levels


def test_all_from_the_first_that_does_not_pass_are_tested_at_its_level() -> None:
    levels = holm_levels({"a": 0.02, "b": 0.001, "c": 0.021})
    assert levels == pytest.approx({"b": 0.025 / 3, "a": 0.025 / 2, "c": 0.025 / 2})
