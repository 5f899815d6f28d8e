"""Closed forms against least squares in memory, known covariances, and what must not change a figure."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seg.ablation.preservation import measures


def r2_in_memory(wide, narrow):
    """Explained share of variance by ordinary least squares with an intercept."""
    design = np.column_stack([narrow, np.ones(len(narrow))])
    left = wide - design @ np.linalg.lstsq(design, wide, rcond=None)[0]
    return 1 - np.square(left).sum() / np.square(wide - wide.mean(0)).sum()


def r2(summary):
    return measures.reconstruction_r2(
        *(summary.covariance_of(a, b) for a, b in (("wide", "wide"), ("wide", "narrow"), ("narrow", "narrow")))
    )


def test_r2_is_least_squares(mixed, summarise):
    assert r2(summarise(*mixed)) == pytest.approx(r2_in_memory(*mixed), rel=1e-10)


def test_r2_of_known_covariances():
    # x = (s, s + e) with unit s and e of variance v; y = s explains 1 + 1 of 2 + v.
    for v in (0.0, 0.5, 3.0):
        wide = np.array([[1.0, 1.0], [1.0, 1.0 + v]])
        value = measures.reconstruction_r2(wide, np.array([[1.0], [1.0]]), np.array([[1.0]]))
        assert value == pytest.approx(2 / (2 + v))
    # y = s + noise of variance 3: a quarter of that.
    value = measures.reconstruction_r2(np.eye(1), np.ones((1, 1)), np.array([[4.0]]))
    assert value == pytest.approx(0.25)


def test_r2_changes_under_no_invertible_affine_map_of_the_narrow(mixed, summarise):
    wide, narrow = mixed
    rng = np.random.default_rng(3)
    before = r2(summarise(wide, narrow))
    mapped = narrow @ (rng.normal(size=(3, 3)) * [1e3, 1, 1e-2]) - 5
    assert r2(summarise(wide, mapped)) == pytest.approx(before, rel=1e-8)
    assert r2(summarise(wide, narrow[:, [0, 1, 2, 0, 2]])) == pytest.approx(before, rel=1e-8)  # repeated channels
    assert r2(summarise(wide, np.column_stack([narrow, np.full(300, 2.5)]))) == pytest.approx(before, rel=1e-8)
    assert r2(summarise(wide, narrow[:, :2])) < before - 1e-3


def test_an_invertible_map_loses_nothing(mixed, summarise):
    wide, _ = mixed
    assert r2(summarise(wide, wide @ np.random.default_rng(4).normal(size=(7, 7)) + 1)) == pytest.approx(1, abs=1e-10)
    assert r2(summarise(wide, np.zeros((300, 2)))) == 0


def test_principal_components_attain_the_ceiling(mixed, summarise):
    wide, _ = mixed
    ceiling = measures.r2_by_width(measures.spectrum(np.cov(wide, rowvar=False, ddof=0)))
    _, _, axes = np.linalg.svd(wide - wide.mean(0))
    for width in range(1, 8):
        assert r2(summarise(wide, wide @ axes[:width].T)) == pytest.approx(ceiling[width - 1], rel=1e-9)
    assert ceiling[-1] == pytest.approx(1)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), width=st.integers(1, 5), power=st.sampled_from([1, 2, 3]))
def test_no_code_exceeds_the_ceiling_of_its_width(summarise, seed, width, power):
    rng = np.random.default_rng(seed)
    wide = rng.normal(size=(60, 6)) @ rng.normal(size=(6, 6))
    code = (wide @ rng.normal(size=(6, width))) ** power
    summary = summarise(wide, code)
    ceiling = measures.r2_by_width(measures.spectrum(summary.covariance_of("wide", "wide")))
    assert r2(summary) <= ceiling[width - 1] + 1e-9


def test_ranks_of_known_spectra():
    for k in (1, 3, 8):
        values = np.concatenate([np.full(k, 2.5), np.zeros(8 - k)])
        assert measures.effective_rank(values) == pytest.approx(k)
        assert measures.participation_ratio(values) == pytest.approx(k)
    # Shares 1/2, 1/4, 1/4: entropy 1.5 bit; sum of squares 3/8.
    values = np.array([2.0, 1.0, 1.0])
    assert measures.effective_rank(values) == pytest.approx(2**1.5)
    assert measures.participation_ratio(values) == pytest.approx(8 / 3)
    np.testing.assert_allclose(measures.r2_by_width(values), [0.5, 0.75, 1.0])


def test_spectrum_is_descending_and_turns_with_the_features():
    rng = np.random.default_rng(5)
    turn, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    np.testing.assert_allclose(
        measures.spectrum(turn @ np.diag([1.0, 9.0, 0.0, 4.0]) @ turn.T), [9, 4, 1, 0], atol=1e-12
    )
    assert (measures.spectrum(turn @ np.diag([1.0, 0.0, 0.0, 0.0]) @ turn.T) >= 0).all()


def test_features_that_do_not_vary_have_no_figures():
    nothing = np.zeros(3)
    assert math.isnan(measures.effective_rank(nothing))
    assert math.isnan(measures.participation_ratio(nothing))
    assert np.isnan(measures.r2_by_width(nothing)).all()
    assert math.isnan(measures.reconstruction_r2(np.zeros((3, 3)), np.zeros((3, 1)), np.ones((1, 1))))
    assert all(math.isnan(v) for v in measures.amplified_and_suppressed(np.ones((1, 3)), np.zeros((3, 3))))


def test_contributions_by_hand():
    # One output of independent unit channels: standardised weights are the weights over their norm.
    weight = np.array([[3.0, 1.0, 0.0, 0.0]])
    np.testing.assert_allclose(measures.contributions(weight, np.eye(4)), [3, 1, 0, 0])
    assert measures.amplified_and_suppressed(weight, np.eye(4)) == (0.25, 0.5)
    # Equal channels through equal weights: nobody stands out.
    assert measures.amplified_and_suppressed(np.ones((2, 4)), np.eye(4)) == (0.0, 0.0)


def test_contributions_do_not_see_scales():
    rng = np.random.default_rng(6)
    weight, root = rng.normal(size=(3, 5)), rng.normal(size=(5, 5))
    covariance = root @ root.T
    before = measures.contributions(weight, covariance)
    assert before.mean() == pytest.approx(1)
    scale = np.array([1e-3, 1.0, 5.0, 1e2, 0.3])
    rows = np.array([[100.0], [1.0], [-0.01]])
    after = measures.contributions(rows * weight / scale, covariance * np.outer(scale, scale))
    np.testing.assert_allclose(after, before)
    dead = measures.contributions(np.vstack([weight, np.zeros(5)]), covariance)
    np.testing.assert_allclose(dead, before)
