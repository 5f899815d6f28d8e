"""Comparisons: closed forms, Holm by hand, what is missing or infinite, refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from seg.ablation.statistics import Comparison, paired
from seg.errors import RunError
from seg.evaluation.scores import CaseScore
from tests.ablation.statistics.studies import noise, run_of

BASE = np.array([[0.8, 0.7, 0.9, 0.6], [0.5, 0.6, 0.7, 0.8]])
SEEDS = (0, 1, 2)


def study(shifts: dict[str, float]) -> dict[str, dict[tuple[int, int], list[CaseScore]]]:
    """A baseline, and variants that lie apart from it by their shift and a little noise."""
    base = np.full((2, 20), 0.8)
    trials = {"baseline": {(0, seed): run_of(base + noise(seed)) for seed in SEEDS}}
    for number, (name, shift) in enumerate(shifts.items(), start=1):
        trials[name] = {(0, seed): run_of(base + shift + noise(100 * number + seed)) for seed in SEEDS}
    return trials


def mean(found: Comparison) -> float | None:
    return found.dice.difference if found.dice else None


def test_a_constant_shift_is_found_in_every_class_and_seed() -> None:
    shift = np.array([[0.01], [0.03]])
    trials = {
        "baseline": {(0, seed): run_of(BASE, hd95_mm=BASE, nsd=BASE) for seed in SEEDS},
        "narrow": {(0, seed): run_of(BASE + shift, hd95_mm=BASE + 1, nsd=BASE - 0.1) for seed in SEEDS},
    }
    (found,) = paired(trials, "baseline", margin=0.005)
    assert (found.variant, found.margin) == ("narrow", 0.005)
    assert mean(found) == pytest.approx(0.02)
    assert found.dice.ci95 == pytest.approx((0.02, 0.02))
    assert [one.dice.difference for one in found.by_class if one.dice] == pytest.approx([0.01, 0.03])
    assert [(one.index, one.name) for one in found.by_class] == [(1, "a"), (2, "b")]
    hd95, nsd = found.others["hd95_mm"], found.others["nsd"]
    assert hd95 is not None
    assert nsd is not None
    assert hd95.difference == pytest.approx(1)
    assert hd95.p_noninferior is None
    assert nsd.difference == pytest.approx(-0.1)
    assert found.by_seed == pytest.approx(dict.fromkeys(SEEDS, 0.02))
    assert (found.dice.num_patients, found.num_folds, found.missing) == (4, 1, ())
    assert found.non_inferior


def test_one_class_beyond_the_margin_is_enough_to_fail() -> None:
    lost = np.array([[0.05], [-0.02]])
    trials = {
        "baseline": {(0, seed): run_of(BASE) for seed in SEEDS},
        "uneven": {(0, seed): run_of(BASE + lost) for seed in SEEDS},
    }
    (found,) = paired(trials, "baseline", margin=0.005)
    assert mean(found) == pytest.approx(0.015)
    assert found.p_noninferior == 1.0
    assert not found.non_inferior


def test_holm_multiplies_the_sorted_p_values_and_keeps_them_rising() -> None:
    found = paired(study({"a": 0.01, "b": -0.002, "c": -0.004, "d": -0.02}), "baseline", margin=0.005)
    raw = {one.variant: one.p_noninferior for one in found}
    running, expected = 0.0, {}
    for position, name in enumerate(sorted(raw, key=lambda name: raw[name] or 0.0)):
        running = max(running, min(1.0, (len(raw) - position) * (raw[name] or 0.0)))
        expected[name] = running
    assert {one.variant: one.p_holm for one in found} == pytest.approx(expected)
    # Variant b lies 0.003 above the margin with a standard error of 0.001, which three runs cannot prove, although its
    # intervals, which pool runs and residual, lie above the margin.
    assert [one.variant for one in found if one.non_inferior] == ["a"]
    b = next(one for one in found if one.variant == "b")
    assert all(each.dice and each.dice.ci95 and each.dice.ci95[0] > -0.005 for each in b.by_class)
    for one in found:
        assert one.p_noninferior == max(each.p_noninferior or 0.0 for each in one.by_class)


def test_a_missing_trial_narrows_the_comparison_to_what_both_have() -> None:
    trials = study({"a": 0.01, "b": 0.01, "c": 0.01})
    del trials["a"][0, 1]
    del trials["baseline"][0, 2]
    trials["c"] = {(0, 2): trials["c"][0, 2]}
    one, two, none = paired(trials, "baseline", margin=0.005)
    assert (sorted(one.by_seed), one.missing) == ([0], ((0, 1), (0, 2)))
    assert (sorted(two.by_seed), two.missing) == ([0, 1], ((0, 2),))
    assert (none.dice, none.num_folds, none.p_holm, none.non_inferior) == (None, 0, None, False)


@pytest.mark.parametrize(("seeds", "p"), [((0,), 1e-6), ((0, 1), 0.025)])
def test_one_run_or_two_are_never_enough(seeds: tuple[int, ...], p: float) -> None:
    trials = {name: {(0, seed): runs[0, seed] for seed in seeds} for name, runs in study({"a": 0.02}).items()}
    (found,) = paired(trials, "baseline", margin=0.005)
    assert found.p_holm is not None
    assert found.p_holm < p
    assert not found.non_inferior


def test_the_case_of_an_infinite_distance_is_left_out_of_every_seed() -> None:
    far = np.ones((2, 4))
    lost = far.copy()
    lost[0, 1] = np.inf
    trials = {
        "baseline": {(0, seed): run_of(BASE, hd95_mm=far) for seed in SEEDS},
        "a": {(0, seed): run_of(BASE, hd95_mm=lost if seed == 1 else far + 2) for seed in SEEDS},
    }
    (found,) = paired(trials, "baseline", margin=0.005)
    first, second = (one.others["hd95_mm"] for one in found.by_class)
    assert first is not None
    assert second is not None
    assert (first.num_patients, second.num_patients) == (3, 4)
    # Seed 1 is not worse: (2 + 0 + 2) / 3.
    assert first.difference == pytest.approx(4 / 3)


def test_invented_structures_are_lost_dice() -> None:
    # Half of the cases have no reference of the class: the baseline finds nothing there, the variant always something.
    right = np.full((1, 20), 0.8)
    right[0, :10] = np.nan
    invents = np.where(np.isnan(right), 0.0, right)
    trials = {
        "baseline": {(0, seed): run_of(right, nsd=right) for seed in SEEDS},
        "a": {(0, seed): run_of(invents, nsd=invents) for seed in SEEDS},
    }
    (found,) = paired(trials, "baseline", margin=0.005)
    (one,) = found.by_class
    assert one.dice is not None
    assert (nsd := one.others["nsd"]) is not None
    assert (mean(found), one.dice.difference, nsd.difference) == pytest.approx((-0.5,) * 3)
    assert not found.non_inferior
    # The other way round it gains as much; one run that invents is a third of it.
    (found,) = paired({"a": trials["a"], "baseline": trials["baseline"]}, "a", margin=0.005)
    assert mean(found) == pytest.approx(0.5)
    trials["a"] |= {(0, seed): trials["baseline"][0, seed] for seed in (1, 2)}
    (found,) = paired(trials, "baseline", margin=0.005)
    assert mean(found) == pytest.approx(-0.5 / 3)


def test_a_surface_that_one_side_did_not_measure_is_left_out() -> None:
    nsd = np.full((1, 20), 0.9)
    unknown = nsd.copy()
    unknown[0, :5] = np.nan  # the Dice beside it is known, so it is not a structure that was rightly not found
    trials = {
        "baseline": {(0, seed): run_of(nsd, nsd=nsd) for seed in SEEDS},
        "a": {(0, seed): run_of(nsd, nsd=unknown) for seed in SEEDS},
    }
    (found,) = paired(trials, "baseline", margin=0.005)
    assert (one := found.by_class[0].others["nsd"]) is not None
    assert (one.num_patients, one.difference) == (15, pytest.approx(0))


def test_a_class_that_a_case_lacks_is_left_out_and_one_that_all_lack_cannot_be_tested() -> None:
    some, none = BASE.copy(), BASE.copy()
    some[1, 0] = np.nan
    none[1] = np.nan
    (found,) = paired(
        {"baseline": {(0, s): run_of(some) for s in SEEDS}, "a": {(0, s): run_of(some + 0.1) for s in SEEDS}},
        "baseline",
        margin=0.005,
    )
    assert [one.dice.num_patients for one in found.by_class if one.dice] == [4, 3]
    assert (mean(found), found.non_inferior) == (pytest.approx(0.1), True)
    (found,) = paired(
        {"baseline": {(0, s): run_of(none) for s in SEEDS}, "a": {(0, s): run_of(none + 0.1) for s in SEEDS}},
        "baseline",
        margin=0.005,
    )
    assert (mean(found), found.p_noninferior, found.non_inferior) == (pytest.approx(0.1), None, False)


def test_cases_of_one_patient_count_as_one() -> None:
    def same_patient(run: list[CaseScore]) -> list[CaseScore]:
        return [replace(one, patient="x" if one.case_id in ("f0_c0", "f0_c1") else one.case_id) for one in run]

    change = np.array([[0.1, 0.3, 0.0, 0.4], [0.1, 0.3, 0.0, 0.4]])
    trials = {
        "baseline": {(0, s): same_patient(run_of(BASE)) for s in SEEDS},
        "a": {(0, s): same_patient(run_of(BASE + change)) for s in SEEDS},
    }
    (found,) = paired(trials, "baseline", margin=0.005)
    assert found.dice is not None
    assert (found.dice.num_patients, mean(found)) == (3, pytest.approx((0.2 + 0.0 + 0.4) / 3))


@pytest.mark.parametrize(
    ("runs", "where", "kind", "value"),
    [
        ({(0, 0): run_of(BASE[:, :3])}, "a.fold_0.seed_0", "cases", "f0_c3"),
        ({(0, 0): run_of(BASE[:1])}, "a.fold_0.seed_0", "classes", "1 a"),
        ({(1, 0): run_of(BASE)}, "fold 1", "patients", "f0_p0, f0_p1, f0_p2"),
        ({(0, 0): run_of(BASE)[:-1]}, "a.fold_0.seed_0", "records", "7"),
    ],
    ids=["cases", "classes", "patients", "records"],
)
def test_runs_that_cannot_be_paired_are_refused(
    runs: dict[tuple[int, int], list[CaseScore]], where: str, kind: str, value: str
) -> None:
    with pytest.raises(RunError) as caught:
        paired({"baseline": {(0, 0): run_of(BASE)}, "a": runs}, "baseline", margin=0.005)
    (problem,) = caught.value.problems
    assert (problem.path, problem.kind, value in problem.value) == (where, kind, True)


def test_a_baseline_without_a_run_is_refused() -> None:
    with pytest.raises(RunError) as caught:
        paired({"baseline": {}, "a": {(0, 0): run_of(BASE)}}, "baseline", margin=0.005)
    assert [(problem.path, problem.kind) for problem in caught.value.problems] == [("baseline", "baseline")]


def test_an_interval_stays_within_what_can_be() -> None:
    trials = study({"a": 0.0})
    for pair, scores in trials["a"].items():
        trials["a"][pair] = [replace(one, scores=replace(one.scores, dice=0.9 * (pair[1] == 0))) for one in scores]
    (found,) = paired(trials, "baseline", margin=0.005)
    assert found.dice is not None
    assert found.dice.ci95 is not None
    half = stats.t.isf(0.025, found.dice.degrees_of_freedom) * found.dice.standard_error
    assert found.dice.difference - half < -1
    assert found.dice.ci95 == (-1.0, pytest.approx(min(1.0, found.dice.difference + half)))
