"""The recommendation: the rule, and the words for each of its outcomes."""

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
    assert found.sentence == (
        "wide is the fastest variant whose Dice is not inferior to baseline in any class (margin 0.005); its latency "
        "is 10 ms, 2.00 times as fast. The narrowest such variant is thin, with 25 % of the multiply-accumulates."
    )


def test_none_where_all_are_inferior() -> None:
    found = recommend(compared(lost=-0.1), LATENCY, baseline="baseline", macs=MACS)
    assert (found.fastest, found.narrowest, found.speedup) == (None, None, None)
    assert found.sentence == (
        "Recommended: none. No variant was shown to be not inferior to baseline in every class (margin 0.005)."
    )


def test_what_was_not_measured_cannot_win_but_is_named() -> None:
    found = recommend(compared(wide=0.0, thin=0.0), {"wide": 25.0, "baseline": 20.0}, baseline="baseline", macs=MACS)
    assert (found.fastest, found.unmeasured) == ("wide", ("thin",))
    assert "0.80 times as fast, so baseline stays the faster choice." in found.sentence
    assert found.sentence.endswith("Not inferior, but of unmeasured speed: thin.")
    found = recommend(compared(thin=0.0), {}, baseline="baseline", macs={})
    assert (found.fastest, found.narrowest) == (None, None)
    assert found.sentence == "Recommended: none, as no latency was measured. Not inferior: thin."


def test_one_variant_can_be_both() -> None:
    found = recommend(compared(thin=0.0), {"thin": 12.0}, baseline="baseline", macs=MACS)
    assert found.speedup is None
    assert found.sentence == (
        "thin is the fastest variant whose Dice is not inferior to baseline in any class (margin 0.005); its speed was "
        "not compared with the baseline's. It is the narrowest such variant too."
    )
