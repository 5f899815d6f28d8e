"""Verdicts: the order of the words, the bound that decides, single runs that change the word; the recommendation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from scipy import stats

from seg.ablation.statistics import Comparison, Trials, Verdict, judge, paired, recommend
from tests.ablation.statistics.studies import run_of

BASE = np.array([[0.8, 0.7, 0.9, 0.6], [0.5, 0.6, 0.7, 0.8]])
MARGIN = 0.005


def trials_of(**shifts: list[tuple[float, float]]) -> Trials:
    """Makes trials whose variants differ from the baseline by a shift of each class, a pair of shifts for each seed."""
    trials = {
        name: {(0, seed): run_of(BASE + np.array(shift)[:, None]) for seed, shift in enumerate(by_seed)}
        for name, by_seed in shifts.items()
    }
    runs = max(len(by_seed) for by_seed in shifts.values())
    return {"baseline": {(0, seed): run_of(BASE) for seed in range(runs)}, **trials}


def judged(trials: Trials, **failed: list[tuple[int, int]]) -> dict[str, Verdict]:
    comparisons = paired(trials, "baseline", margin=MARGIN)
    return {one.variant: one for one in judge(trials, "baseline", comparisons, failed)}


def around(mean: float, spread: float) -> list[float]:
    return [mean - spread, mean, mean + spread]


def both(values: list[float]) -> list[tuple[float, float]]:
    return [(value, value) for value in values]


def test_the_bound_of_a_safe_variant_is_that_of_its_worst_class() -> None:
    shifts = list(zip(around(0.0, 1e-4), around(-0.001, 2e-4), strict=True))
    found = judged(trials_of(v=shifts))["v"]
    assert (found.word, found.together, found.class_name) == ("safe", "safe", "b")
    # Equal patients: the error is that of three runs alone, with two degrees of freedom.
    error = 2e-4 / np.sqrt(3)
    assert found.bound == pytest.approx(-0.001 - stats.t.isf(0.025, 2) * error)
    assert (found.level, found.failed, found.changing) == (0.025, (), ())


def test_a_loss_has_the_upper_end_of_the_interval_for_its_bound() -> None:
    found = judged(trials_of(v=list(zip(around(0.0, 1e-3), around(-0.1, 1e-3), strict=True))))["v"]
    assert (found.word, found.class_name) == ("costs", "b")
    assert found.bound == pytest.approx(-0.1 + stats.t.isf(0.025, 2) * 1e-3 / np.sqrt(3))
    assert found.level == 0.025


def test_a_small_loss_within_the_margin_is_safe_since_that_is_asked_first() -> None:
    assert judged(trials_of(v=both(around(-0.002, 1e-5))))["v"].word == "safe"


def test_wide_intervals_and_two_runs_leave_it_undecided() -> None:
    assert judged(trials_of(v=both(around(0.0, 0.02))))["v"].word == "undecided"
    assert judged(trials_of(v=both([0.0, 1e-5])))["v"].word == "undecided"
    assert judged(trials_of(v=both([-0.1, -0.1])))["v"].word == "undecided"


def test_a_class_without_a_test_leaves_it_undecided_and_without_a_bound() -> None:
    gap = BASE.copy()
    gap[1] = np.nan
    trials = {name: {(0, seed): run_of(gap) for seed in range(3)} for name in ("baseline", "v")}
    found = judged(trials)["v"]
    assert (found.word, found.bound, found.class_name) == ("undecided", None, "")


def test_a_failed_run_makes_unstable_what_the_others_call_safe() -> None:
    trials = trials_of(v=both(around(0.0, 1e-4)), w=both(around(0.0, 1e-4)))
    found = judged(trials, v=[(0, 3)])
    assert (found["v"].word, found["v"].together, found["v"].failed) == ("unstable", "safe", ((0, 3),))
    assert found["w"].word == "safe"


def test_a_run_far_below_the_others_has_failed() -> None:
    found = judged(trials_of(v=both([0.0, -0.06, 0.001]), w=both([0.0, -0.04, 0.001])))
    assert (found["v"].word, found["v"].failed) == ("unstable", ((0, 1),))
    assert (found["w"].word, found["w"].failed) == ("undecided", ())
    # A fold that is hard for the baseline too is no failure.
    hard = trials_of(v=both([0.0, 0.0, 0.0]))
    hard = {name: {**by_pair, (0, 1): run_of(BASE - 0.2)} for name, by_pair in hard.items()}
    assert judged(hard)["v"].failed == ()


def test_a_run_whose_leaving_out_changes_the_word_is_named() -> None:
    values = [-0.001, -0.001, -0.001, -0.001, -0.007]
    found = judged(trials_of(v=both(values)))["v"]
    mean, error = np.mean(values), stats.sem(values)
    half = stats.t.isf(0.025, 4) * error
    means = [np.mean(values[:k] + values[k + 1 :]) for k in range(5)]

    def word(value: float) -> str:
        return "safe" if value - half > -MARGIN else "costs" if value + half < 0 else "undecided"

    expected = tuple((0, k) for k, value in enumerate(means) if word(value) != word(mean))
    assert (word(mean), expected) == ("undecided", ((0, 4),))
    assert (found.word, found.together, found.changing) == ("unstable", "undecided", expected)


def test_safe_is_what_the_corrected_test_passes_and_its_bound_says_so() -> None:
    rng = np.random.default_rng(3)
    shifts: Mapping[str, list[tuple[float, float]]] = {
        f"v{number}": [tuple(rng.normal(-0.001, 4e-3 * number / 6, 2)) for _ in range(4)] for number in range(8)
    }
    trials = trials_of(**shifts)
    comparisons: dict[str, Comparison] = {one.variant: one for one in paired(trials, "baseline", margin=MARGIN)}
    found = judged(trials)
    assert {one.non_inferior for one in comparisons.values()} == {True, False}
    for name, verdict in found.items():
        assert (verdict.together == "safe") == comparisons[name].non_inferior
        if verdict.together != "costs":
            assert verdict.bound is not None
            assert (verdict.bound > -MARGIN) == (verdict.together == "safe")


MACS = {"baseline": 1000, "wide": 900, "thin": 250, "lost": 100}
LATENCY = {"baseline": 20.0, "wide": 10.0, "thin": 12.0, "lost": 1.0}


@pytest.mark.parametrize(
    ("shifts", "latency", "macs", "expected"),
    [
        ({"wide": 0.0, "thin": -0.001, "lost": -0.1}, LATENCY, MACS, ("wide", "thin", 2.0)),
        ({"lost": -0.1}, LATENCY, MACS, (None, None, None)),
        ({"wide": 0.0, "thin": 0.0}, {"wide": 25.0, "baseline": 20.0}, MACS, ("wide", "thin", 0.8)),
        ({"thin": 0.0}, {}, {}, (None, None, None)),
        ({"thin": 0.0}, {"thin": 12.0}, MACS, ("thin", "thin", None)),
    ],
)
def test_the_fastest_and_the_narrowest_that_lose_nothing_are_recommended(
    shifts: dict[str, float], latency: dict[str, float], macs: dict[str, int], expected: tuple[object, ...]
) -> None:
    trials = trials_of(**{name: both([shift] * 3) for name, shift in shifts.items()})
    found = recommend(paired(trials, "baseline", margin=MARGIN), latency, macs, "baseline")
    assert (found.fastest, found.narrowest, found.speedup) == expected
