"""Rank stability: orders that are certain, a tie, the variance of resampled means."""

from __future__ import annotations

import numpy as np
import pytest

from seg.ablation.statistics import Trials, rank_stability
from seg.ablation.statistics.ranks import resampled_means
from seg.errors import RunError
from tests.ablation.statistics.studies import noise, run_of

BASE = np.array([[0.8, 0.7, 0.9, 0.6]])


def test_an_order_that_holds_for_every_patient_and_seed_is_certain() -> None:
    trials = {
        name: {(0, seed): run_of(BASE + shift) for seed in range(3)}
        for name, shift in {"baseline": 0.0, "better": 0.05, "worse": -0.05}.items()
    }
    found = rank_stability(trials, "baseline", samples=200)
    assert found.ranked == ("better", "baseline", "worse")
    assert found.probability == {"better": (1, 0, 0), "baseline": (0, 1, 0), "worse": (0, 0, 1)}
    assert found.kendall_tau == pytest.approx({(0, 1): 1.0, (0, 2): 1.0, (1, 2): 1.0})
    assert found.mean_tau == pytest.approx(1.0)


def test_equal_variants_share_their_ranks() -> None:
    trials = {name: {(0, seed): run_of(BASE) for seed in range(2)} for name in ("baseline", "same")}
    found = rank_stability(trials, "baseline", samples=4000)
    assert found.probability["same"] == pytest.approx((0.5, 0.5), abs=0.05)
    assert (found.kendall_tau, found.mean_tau) == ({}, None)


def test_seeds_that_disagree_have_a_tau_of_minus_one() -> None:
    shift = {"baseline": 0.0, "a": 0.01, "b": 0.02}
    trials = {
        name: {(0, s): run_of(BASE + (value if s else -value)) for s in range(2)} for name, value in shift.items()
    }
    assert rank_stability(trials, "baseline", samples=10).kendall_tau == {(0, 1): pytest.approx(-1)}


def test_a_variant_that_lacks_a_run_is_left_out_and_a_missing_dice_does_not_spread() -> None:
    gap = BASE.copy()
    gap[0, 0] = np.nan
    trials = {
        "baseline": {(fold, 0): run_of(BASE, fold) for fold in range(2)},
        "a": {(fold, 0): run_of(gap + 0.1, fold) for fold in range(2)},
        "short": {(0, 0): run_of(BASE)},
    }
    found = rank_stability(trials, "baseline", samples=50)
    assert found.ranked == ("a", "baseline")
    assert found.probability["a"] == (1.0, 0.0)


def test_resampled_means_have_the_variance_of_the_mean() -> None:
    # Runs alone vary: the variance of their mean is that of three values over three.
    runs = np.array([0.0, 0.01, 0.05])
    table = np.repeat(runs[None, :, None], 6, axis=2)
    means = resampled_means([table], 40_000, np.random.default_rng(0))
    assert means.var() == pytest.approx(runs.var(ddof=1) / 3, rel=0.05)


@pytest.mark.parametrize("trials", [{"baseline": {(0, 0): run_of(noise(0) * np.nan)}}, {}])
def test_an_empty_ranking_is_refused(trials: Trials) -> None:
    with pytest.raises(RunError):
        rank_stability(trials, "baseline")
