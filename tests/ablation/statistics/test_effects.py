"""Effects: statsmodels' REML, textbook intervals, coverage of a known truth, refusals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import mixedlm

from seg.ablation.statistics import estimate_effect
from seg.errors import RunError


def differences(rng: np.random.Generator, runs: int, patients: int, run_sd: float = 0.002) -> np.ndarray:
    return (
        rng.normal(0, run_sd, (runs, 1)) + rng.normal(0, 0.008, (1, patients)) + rng.normal(0, 0.006, (runs, patients))
    )


@pytest.mark.parametrize(("runs", "patients", "folds"), [(3, 40, 1), (4, 9, 1), (3, 10, 2)])
def test_components_and_standard_error_are_those_of_reml(runs: int, patients: int, folds: int) -> None:
    rng = np.random.default_rng(0)
    tables = [differences(rng, runs, patients, run_sd=0.01) for _ in range(folds)]
    # Equal fold means leave no fold effect; statsmodels' model has none.
    tables = [table - table.mean() + 0.003 for table in tables]
    rows = pd.DataFrame(
        [
            {"fold": fold, "run": run, "patient": patient, "value": 100 * value}
            for fold, table in enumerate(tables)
            for (run, patient), value in np.ndenumerate(table)
        ]
    )
    model = mixedlm(
        "value ~ 1", rows, groups="fold", vc_formula={"run": "0 + C(run)", "patient": "0 + C(patient)"}, re_formula="0"
    )
    fitted = model.fit(reml=True)
    patient_sd, run_sd = np.sqrt(fitted.vcomp)  # in the order of the names
    found = estimate_effect(tables)
    assert found.components is not None
    if folds == 1:
        assert found.components.run == pytest.approx(run_sd / 100, rel=1e-3)
        assert found.components.patient == pytest.approx(patient_sd / 100, rel=1e-3)
        assert found.components.residual == pytest.approx(np.sqrt(fitted.scale) / 100, rel=1e-3)
        assert found.standard_error == pytest.approx(fitted.bse["Intercept"] / 100, rel=1e-3)
    assert found.difference == pytest.approx(fitted.params["Intercept"] / 100)


def test_a_single_run_gives_the_t_interval_over_patients_and_says_so() -> None:
    values = np.random.default_rng(1).normal(0.01, 0.02, 12)
    found = estimate_effect([values[None]], margin=0.005)
    expected = stats.ttest_1samp(values, -0.005, alternative="greater")
    assert found.ci95 == pytest.approx(tuple(stats.ttest_1samp(values, 0).confidence_interval()))
    assert found.p_noninferior == pytest.approx(expected.pvalue)
    assert (found.num_patients, found.num_runs) == (12, 1)
    assert found.components is not None
    assert (found.components.run, found.components.residual, found.components.fold) == (None, None, None)


def test_folds_of_one_run_give_the_t_interval_over_their_means() -> None:
    rng = np.random.default_rng(2)
    tables = [rng.normal(mean, 0.001, (1, 20)) for mean in (0.0, 0.01, 0.03, 0.02)]
    found = estimate_effect(tables)
    expected = stats.ttest_1samp([table.mean() for table in tables], 0).confidence_interval()
    assert found.ci95 == pytest.approx(tuple(expected))
    assert found.degrees_of_freedom == 3


@pytest.mark.parametrize("runs", [1, 3])
def test_several_folds_have_the_interval_of_their_means(runs: int) -> None:
    rng = np.random.default_rng(8)
    tables = [differences(rng, runs, 20) for _ in range(3)]
    found = estimate_effect(tables)
    assert found.ci95 == pytest.approx(
        tuple(stats.ttest_1samp([one.mean() for one in tables], 0).confidence_interval())
    )
    assert found.degrees_of_freedom == pytest.approx(2)


def test_folds_that_happen_to_agree_do_not_pass_for_that() -> None:
    rng = np.random.default_rng(9)
    tables = [table - table.mean() for table in (differences(rng, 3, 20) for _ in range(3))]
    assert estimate_effect(tables).ci95 == pytest.approx((0, 0), abs=1e-12)
    # The test has the error of runs and patients within folds, with the two degrees of freedom of three folds.
    apart = [estimate_effect([table]).test_error for table in tables]
    found = estimate_effect(tables, margin=0.005)
    assert found.test_error == pytest.approx(np.sqrt(np.square(apart).mean() / 3), rel=0.1)
    assert found.p_noninferior == pytest.approx(stats.t.sf(0.005 / found.test_error, 2))


def test_folds_of_different_size_have_the_variance_of_their_weighted_mean() -> None:
    # A pure effect of folds: the squared error of the weighted mean is what the spread is to tell, on average.
    rng, sizes = np.random.default_rng(10), (10, 40, 80)
    means = rng.normal(0, 0.01, (4000, 3))
    weights = np.array(sizes) / sum(sizes)
    found = [
        estimate_effect([np.full((1, n), mean) for n, mean in zip(sizes, row, strict=True)]) for row in means[:1500]
    ]
    squared = np.mean([(one.standard_error or 0.0) ** 2 for one in found])
    assert squared == pytest.approx(np.var(means @ weights), rel=0.15)
    assert found[0].degrees_of_freedom is not None
    assert 1 < found[0].degrees_of_freedom < 2


def test_runs_that_differ_most_have_their_own_degrees_of_freedom() -> None:
    # Patients are all alike, so the interval is that of three runs.
    runs = np.array([0.01, 0.02, 0.06])
    found = estimate_effect([np.repeat(runs[:, None], 30, axis=1)])
    assert found.ci95 == pytest.approx(tuple(stats.ttest_1samp(runs, 0).confidence_interval()))
    assert found.degrees_of_freedom == pytest.approx(2)


def test_runs_that_do_not_differ_count_with_the_residual_but_not_in_the_test() -> None:
    table = differences(np.random.default_rng(6), 3, 12)
    table += table.mean() - table.mean(axis=1, keepdims=True)
    # Runs of one mean say nothing beyond their patients: the error is that of the patients' means.
    found = estimate_effect([table])
    assert (found.standard_error, found.test_error) == pytest.approx((stats.sem(table.mean(axis=0)),) * 2)
    # Neither do patients of one mean: three measurements of each of twelve, with twelve means to be estimated.
    table -= table.mean(axis=0)
    found = estimate_effect([table], margin=0.005)
    squares = np.square(table).sum()
    assert (found.degrees_of_freedom, found.test_freedom) == pytest.approx((24, 2))
    assert found.standard_error == pytest.approx(np.sqrt(squares / 24 / 36))
    assert found.test_error == pytest.approx(np.sqrt(squares / 22 / 36))
    assert found.p_noninferior == pytest.approx(stats.t.sf(0.005 / np.sqrt(squares / 22 / 36), 2))


def test_runs_that_differ_are_not_pooled() -> None:
    found = estimate_effect([differences(np.random.default_rng(7), 3, 12, run_sd=0.02)])
    assert (found.test_error, found.test_freedom) == (found.standard_error, found.degrees_of_freedom)


def test_a_constant_shift_has_an_interval_of_no_width() -> None:
    found = estimate_effect([np.full((3, 5), 0.25)], margin=0.5)
    assert (found.difference, found.ci95, found.p_noninferior) == (0.25, (0.25, 0.25), 0.0)
    assert estimate_effect([np.full((3, 5), -0.5)], margin=0.5).p_noninferior == 1.0


def test_the_order_of_runs_patients_and_folds_is_of_no_weight() -> None:
    rng = np.random.default_rng(3)
    tables = [differences(rng, 3, 7), differences(rng, 2, 9)]
    shuffled = [rng.permutation(rng.permutation(table, axis=0), axis=1) for table in reversed(tables)]
    one, two = estimate_effect(tables), estimate_effect(shuffled)
    assert one.ci95 == pytest.approx(two.ci95)
    assert one.difference == pytest.approx(np.mean(np.concatenate([table.mean(axis=0) for table in tables])))


def test_interval_and_test_agree() -> None:
    rng = np.random.default_rng(4)
    for _ in range(50):
        found = estimate_effect([differences(rng, 3, 10)], margin=0.003)
        assert found.ci95 is not None
        assert found.p_noninferior is not None
        assert (found.ci95[0] > -0.003) == (found.p_noninferior < 0.025)


def test_one_patient_has_a_difference_without_an_interval() -> None:
    found = estimate_effect([np.array([[0.1], [0.3]])], margin=0.01)
    assert (found.difference, found.ci95, found.p_noninferior) == (pytest.approx(0.2), None, None)


@pytest.mark.parametrize("folds", [1, 5])
def test_the_interval_covers_a_known_truth(folds: int) -> None:
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(400):
        low, high = estimate_effect([differences(rng, 3, 20) for _ in range(folds)]).ci95 or (1.0, 1.0)
        hits += low <= 0 <= high
    # Four standard errors below 0.95; a bootstrap of three seeds lies below that.
    assert hits / 400 >= 0.906


def test_a_margin_that_is_none_is_refused() -> None:
    with pytest.raises(RunError) as caught:
        estimate_effect([np.ones((2, 2))], margin=0)
    assert [(problem.path, problem.value) for problem in caught.value.problems] == [("margin", "0")]
