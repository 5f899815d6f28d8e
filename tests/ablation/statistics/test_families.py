"""The simulation of whole studies: draws of the stated spread, Holm's procedure, tests that keep the rate or do not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats
from statsmodels.stats.multitest import multipletests

from seg.ablation.statistics.errors import _inverse_trigamma, moderated_runs, own_runs, pooled_runs
from seg.ablation.statistics.families import Family, draw_family
from seg.ablation.statistics.verdicts import family_error, format_families, holm, validate_family


@pytest.mark.parametrize("heavy", [False, True])
def test_differences_have_the_stated_spread(heavy: bool) -> None:
    family = Family(variants=4, seeds=300, patients=300, run_sd=0.01, inferior=1, inferior_run_sd=0.03, heavy=heavy)
    (drawn,) = draw_family(family, np.random.default_rng(0))
    runs = drawn.mean(axis=3).std(axis=2).mean(axis=0)
    # A network brings half of the variance of a difference; the means over patients add next to nothing.
    assert runs[0] == pytest.approx(0.01 / np.sqrt(2), rel=0.2)
    assert runs[1] == pytest.approx(0.03 / np.sqrt(2), rel=0.2)
    rest = drawn - drawn.mean(axis=3, keepdims=True) - drawn.mean(axis=2, keepdims=True)
    assert rest.std(axis=(2, 3)).mean() == pytest.approx(0.0075 / np.sqrt(2), rel=0.1)


def test_holm_is_that_of_statsmodels() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        p_values = rng.beta(0.2, 4.0, size=12)
        assert (holm(p_values) == multipletests(p_values, alpha=0.025, method="holm")[0]).all()


def test_the_inverse_is_one() -> None:
    for value in (0.01, 0.3, 2.0, 40.0):
        assert special.polygamma(1, _inverse_trigamma(value)) == pytest.approx(value)


def test_errors_have_closed_forms() -> None:
    # Runs differ by 3 units, and nothing else does: the error of the mean of three runs is theirs.
    tables = np.repeat(np.array([[1.0, 4.0, 7.0], [2.0, 5.0, 8.0], [0.0, 3.0, 6.0]])[:, :, None], 4, axis=2)
    for errors in (own_runs, pooled_runs):
        error, freedom = errors([tables])
        assert error == pytest.approx(np.full(3, 3 / np.sqrt(3)))
        assert freedom == pytest.approx(np.full(3, 2.0))
    # Mean squares that are all the same have one in common: it stays, with the degrees of freedom that others may lend.
    error, freedom = moderated_runs([tables])
    assert error == pytest.approx(np.full(3, 3 / np.sqrt(3)))
    assert freedom == pytest.approx(np.full(3, 6.0))


def test_a_variant_of_few_runs_borrows_from_the_others() -> None:
    rng = np.random.default_rng(2)
    tables = rng.normal(0, 0.01, (12, 3, 1)) + rng.normal(0, 0.001, (12, 3, 40))
    own, own_freedom = own_runs([tables])
    error, freedom = moderated_runs([tables])
    assert np.ptp(np.log(error)) < np.ptp(np.log(own))
    assert (freedom > own_freedom).all()
    assert stats.spearmanr(error, own).statistic == pytest.approx(1.0)


def test_the_test_in_use_keeps_the_rate_where_pooling_does_not() -> None:
    found = {one.test: one for one in validate_family(Family(classes=1), repeats=200)}
    # Expected 0.002 and 0.10; the bounds lie three standard errors away.
    assert found["own runs"].error <= 0.02
    assert found["pooled"].error > 0.03
    assert found["own runs"].power < found["pooled"].power < found["moderated"].power


def test_the_test_in_use_keeps_the_rate_over_folds_that_differ() -> None:
    found = validate_family(Family(variants=6, classes=1, folds=2, fold_sd=0.004), repeats=100)
    assert {one.test for one in found} == {"own runs", "pooled"}
    # A test that takes runs and patients for all there is passes an inferior variant in a fifth of such studies.
    assert found[0].error <= 0.05


def test_what_others_lend_does_not_hold_for_a_variant_whose_runs_differ_more() -> None:
    family = Family(classes=1, run_sd=0.0005, inferior=3, inferior_run_sd=0.006)
    found = {one.test: one.error for one in validate_family(family, repeats=200)}
    # Expected 0.01 and 0.12.
    assert found["own runs"] <= 0.035
    assert found["moderated"] > 0.05


def test_verdicts_from_scores_keep_the_rate() -> None:
    # Expected 0.01 or less: three of 20 have a probability of one in a thousand.
    assert family_error(Family(variants=3, patients=10), repeats=20) <= 0.1


def test_what_loses_nothing_and_hardly_varies_passes() -> None:
    family = Family(variants=3, patients=10, run_sd=1e-6, patient_sd=1e-6, residual_sd=1e-6)
    assert {one.power for one in validate_family(family, repeats=2)} == {1.0}


def test_the_table_has_a_row_for_each_family() -> None:
    families = (Family(variants=2, classes=1), Family(variants=2, classes=1, inferior=1, heavy=True))
    text = format_families([one for family in families for one in validate_family(family, repeats=2)])
    lines = text.splitlines()
    assert lines[0].startswith("| study | passes an inferior one, own runs |")
    assert lines[2].startswith("| 2 variants, classes 1, 3 x 40, run 0.0015 |")
    assert lines[3].startswith("| 2 variants, classes 1, 3 x 40, run 0.0015; 1 inferior, heavy tails |")
    assert len({line.count("|") for line in lines}) == 1
