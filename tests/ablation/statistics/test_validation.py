"""Simulated studies: draws of the stated spread, methods that agree with others, intervals and verdicts in use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tests.ablation.statistics.validation import (
    METHODS,
    Design,
    Family,
    draw_family,
    family_error,
    format_families,
    format_outcomes,
    mean_squares,
    mixed_models,
    moderated_runs,
    own_runs,
    pooled_runs,
    simulate,
    t_over_patients,
    validate,
    validate_family,
)

ROOT = Path(__file__).parents[3]


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
    designs = (Design(patients=4), Design(patients=4, folds=2, seeds=1))
    text = format_outcomes([one for design in designs for one in validate(design, repeats=3, methods=methods)])
    assert text.count(f"| {designs[0].name} |") == 4
    assert text.count("| - | - |") == 4


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
    # Expected 0.01 or less: two of 6 have a probability of one in 700.
    assert family_error(Family(variants=2, patients=8), repeats=6) <= 0.2


def test_what_loses_nothing_and_hardly_varies_passes() -> None:
    family = Family(variants=3, patients=10, run_sd=1e-6, patient_sd=1e-6, residual_sd=1e-6)
    assert {one.power for one in validate_family(family, repeats=2)} == {1.0}


def test_the_table_has_a_row_for_each_family() -> None:
    families = (Family(variants=2, classes=1), Family(variants=2, classes=1, inferior=1, heavy=True))
    lines = format_families([one for each in families for one in validate_family(each, repeats=2)]).splitlines()
    assert [line.split(" | ")[0][2:] for line in lines[2:]] == [family.name for family in families]
    assert len({line.count("|") for line in lines}) == 1


@pytest.mark.parametrize(("arguments", "code"), [(["--repeats", "0"], 2), (["--help"], 0)])
def test_the_command_checks_its_arguments(arguments: list[str], code: int) -> None:
    command = [sys.executable, "-m", "tests.ablation.statistics.validation", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == code
