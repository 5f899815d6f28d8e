"""The simulation: draws of the stated spread, methods that agree with others, the intervals in use."""

from __future__ import annotations

import numpy as np
import pytest

from seg.ablation.statistics.methods import METHODS, mean_squares, mixed_models, t_over_patients
from seg.ablation.statistics.validation import Design, format_outcomes, simulate, validate


@pytest.mark.parametrize("heavy", [False, True])
def test_draws_have_the_stated_spread(heavy: bool) -> None:
    design = Design(folds=20, seeds=200, patients=200, fold_sd=0.1, run_sd=0.01, heavy=heavy)
    tables = np.array(simulate(design, np.random.default_rng(0)))
    runs = tables.mean(axis=2) - tables.mean(axis=(1, 2))[:, None]
    patients = tables.mean(axis=1) - tables.mean(axis=(1, 2))[:, None]
    assert tables.mean(axis=(1, 2)).std() == pytest.approx(0.1, rel=0.6)
    assert runs.std() == pytest.approx(0.01, rel=0.2)
    assert patients.std() == pytest.approx(0.008, rel=0.2)


def test_the_interval_in_use_covers_where_one_over_patients_does_not() -> None:
    methods = [one for one in METHODS if one.intervals in (mean_squares, t_over_patients)]
    found = {one.method: one for one in validate(Design(run_sd=0.003), repeats=500, methods=methods)}
    # Expected 0.93 and 0.78; the bounds lie four standard errors away.
    assert found["mean squares"].coverage > 0.88
    assert found["mean squares"].false_positive < 0.07
    assert found["t over patients"].coverage < 0.86


def test_pooling_helps_where_runs_hardly_differ() -> None:
    methods = [one for one in METHODS if one.intervals is mean_squares]
    found = {
        one.method: one
        for one in validate(Design(patient_sd=0.002, residual_sd=0.0075, run_sd=0.0), repeats=500, methods=methods)
    }
    # Expected 0.972 and 0.999, and half widths of 0.0016 and 0.0028; the bounds lie four standard errors away.
    assert 0.942 < found["mean squares"].coverage <= found["mean squares, strict"].coverage
    assert found["mean squares, strict"].coverage > 0.99
    assert found["mean squares"].half_width < 0.7 * found["mean squares, strict"].half_width


def test_the_mixed_model_gives_the_standard_error_in_use() -> None:
    # Balanced, with every component above 0: REML and mean squares agree, and the quantile is all that differs.
    tables = simulate(Design(run_sd=0.02), np.random.default_rng(1))
    rng = np.random.default_rng(0)
    low, high = mixed_models(tables, rng)["MixedLM, t with runs - folds"]
    own_low, own_high = mean_squares(tables, rng)["mean squares"]
    assert low + high == pytest.approx(own_low + own_high)
    assert 1 < (high - low) / (own_high - own_low) < 1.05


def test_the_tables_have_a_row_for_each_design_and_a_dash_for_what_is_missing() -> None:
    methods = [one for one in METHODS if one.intervals in (mean_squares, mixed_models)]
    outcomes = [
        one
        for design in (Design(patients=4), Design(patients=4, folds=2, seeds=1))
        for one in validate(design, repeats=3, methods=methods)
    ]
    text = format_outcomes(outcomes)
    assert text.count("| 3 x 4 x 1, run 0.0015 |") == 4
    assert text.count("| - | - |") == 4
    assert text.startswith("**Coverage of the 95 % interval, %**\n\n| seeds x patients x folds | mean squares")
