"""The recommendation: the rule, for each of its outcomes."""

from __future__ import annotations

import numpy as np

from seg.ablation.statistics import paired, recommend
from tests.ablation.statistics.studies import run_of

BASE = np.array([[0.8, 0.7, 0.9, 0.6]])
MACS = {"baseline": 1000, "wide": 900, "thin": 250, "lost": 100}
LATENCY = {"baseline": 20.0, "wide": 10.0, "thin": 12.0, "lost": 1.0}


def compared(**shifts: float) -> tuple:
    trials = {
        name: {(0, seed): run_of(BASE + shift) for seed in range(3)}
        for name, shift in {"baseline": 0.0, **shifts}.items()
    }
    return paired(trials, "baseline", margin=0.005)


def test_the_fastest_of_those_not_inferior_is_named_and_the_narrowest_beside_it() -> None:
    found = recommend(compared(wide=0.0, thin=-0.001, lost=-0.1), LATENCY, baseline="baseline", macs=MACS)
    assert (found.fastest, found.narrowest, found.candidates) == ("wide", "thin", ("wide", "thin"))
    assert (found.latency_ms, found.speedup, found.macs_ratio) == (10.0, 2.0, 0.25)


def test_none_where_all_are_inferior() -> None:
    found = recommend(compared(lost=-0.1), LATENCY, baseline="baseline", macs=MACS)
    assert (found.fastest, found.narrowest, found.speedup) == (None, None, None)


def test_what_was_not_measured_cannot_win_but_is_named() -> None:
    found = recommend(compared(wide=0.0, thin=0.0), {"wide": 25.0, "baseline": 20.0}, baseline="baseline", macs=MACS)
    assert (found.fastest, found.unmeasured, found.speedup) == ("wide", ("thin",), 0.8)
    found = recommend(compared(thin=0.0), {}, baseline="baseline", macs={})
    assert (found.fastest, found.narrowest) == (None, None)


def test_one_variant_can_be_both() -> None:
    found = recommend(compared(thin=0.0), {"thin": 12.0}, baseline="baseline", macs=MACS)
    assert (found.fastest, found.narrowest, found.speedup) == ("thin", "thin", None)
