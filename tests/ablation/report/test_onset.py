"""Where narrowing starts to cost: verdicts for made-up differences of made-up variants."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from seg.ablation.report import onset as module
from seg.ablation.report.analysis import analyse
from seg.ablation.report.onset import TITLE, onset, unreliable
from seg.ablation.report.trials import read_records
from tests.ablation.report.studies import Made, make_study

SKIP, DECODER = "network.skip_bottleneck", "network.decoder_bottleneck"
Found = tuple[float, tuple[float, float]]
LOSS: Found = (-0.0032, (-0.0052, -0.0013))
NONE: Found = (-0.0005, (-0.002, 0.001))
LOST, UNCLEAR = "-0.0032, -0.0052 to -0.0013", "-0.0005, -0.0020 to +0.0010"
UNDECIDED = f"undecided ({UNCLEAR}): a loss of up to 0.0020 is not excluded"


def effect(found: Found | None, runs: int = 3) -> Any:
    if found is None:
        return SimpleNamespace(effect=None)
    return SimpleNamespace(effect=SimpleNamespace(difference=found[0], ci95=found[1], over_runs=True, num_runs=runs))


def compared(name: str, mean: Found | None, *, safe: bool = False, runs: int = 3, **classes: Found) -> Any:
    """Makes the comparison of one variant, with its differences in classes."""
    by_class = tuple(SimpleNamespace(name=each, dice=effect(found, runs)) for each, found in classes.items())
    return SimpleNamespace(variant=name, dice=effect(mean, runs), by_class=by_class, non_inferior=safe)


def sentences(changes: dict[str, dict[str, Any]], *found: Any, apart: dict[tuple[str, str], Any] | None = None) -> Any:
    """Gives what is said of variants with these changes and comparisons."""
    records = [SimpleNamespace(name=name, changes=one) for name, one in changes.items()]
    study = SimpleNamespace(variants=records, margin=0.005)
    analysis: Any = SimpleNamespace(
        records=SimpleNamespace(study=study, trials={}),
        baseline="baseline",
        comparisons={one.variant: one for one in found},
        contrast_with=lambda *names: (apart or {}).get(names),
    )
    return tuple(sentence.replace("\N{MINUS SIGN}", "-") for sentence in onset(analysis))


def skips(*ratios: float, **others: Any) -> dict[str, dict[str, Any]]:
    return {str(ratio): {SKIP: {"ratio": ratio, **others}} for ratio in ratios}


def test_each_width_has_a_verdict_from_the_widest_down() -> None:
    head, said = sentences(
        skips(0.125, 0.5, 0.25),
        compared("0.5", NONE, safe=True),
        compared("0.25", LOSS),
        compared("0.125", NONE),
    )
    assert said == (
        f"Skips: the widest ratio with a shown loss is 1/4. 1/2: within the margin ({UNCLEAR}). 1/4: a loss is shown "
        f"({LOST}). 1/8: {UNDECIDED}."
    )
    assert head == (
        "Differences in mean Dice with 95 % intervals, uncorrected for the number of widths. Within the margin: shown "
        "to lose less than 0.005 in every class, by the corrected test. A loss is shown: the interval of mean Dice, or "
        "of a class that is named, lies below 0; it may be smaller than the margin. Undecided: neither of the two."
    )


def test_absence_of_evidence_is_not_called_no_loss() -> None:
    assert sentences(skips(0.5), compared("0.5", (-0.1, (-0.2, 0.0))))[1] == (
        "Skips: no loss is shown at any width tried, which does not show that there is none. 1/2: undecided (-0.1000, "
        "-0.2000 to 0.0000): a loss of up to 0.2000 is not excluded."
    )


def test_a_class_that_alone_shows_a_loss_is_named() -> None:
    one = compared("0.25", NONE, front=LOSS, right_part=NONE, left_part=LOSS)
    assert sentences(skips(0.25), one)[1] == (
        f"Skips: the widest ratio with a shown loss is 1/4. 1/4: a loss is shown in front ({LOST}) and left part "
        f"({LOST}), in mean Dice undecided ({UNCLEAR})."
    )
    many = compared("0.25", NONE, a=LOSS, b=LOSS, c=LOSS, d=LOSS)
    assert f"a loss is shown in a, b, c and d, in mean Dice undecided ({UNCLEAR})." in sentences(skips(0.25), many)[1]
    # A loss that is shown may lie within the margin, in the mean or in a class.
    safe = sentences(skips(0.5, 0.25), compared("0.5", LOSS, safe=True), compared("0.25", NONE, safe=True, front=LOSS))
    assert f"1/2: within the margin, though a loss is shown ({LOST})." in safe[1]
    assert f"1/4: a loss is shown in front ({LOST}), in mean Dice within the margin ({UNCLEAR})." in safe[1]


def test_decoders_are_read_against_that_of_full_width_and_the_baseline() -> None:
    changes = {name: {DECODER: {"ratio": ratio}} for name, ratio in (("full", 1.0), ("half", 0.5), ("quarter", 0.25))}
    found = (compared("full", NONE, safe=True), compared("half", NONE), compared("quarter", LOSS))
    apart = {("half", "full"): compared("half", LOSS), ("quarter", "full"): compared("quarter", LOSS)}
    assert sentences(changes, *found, apart=apart)[1] == (
        f"Decoder: the widest ratio with a shown loss is 1/2. 1 (full): within the margin ({UNCLEAR}). 1/2: against "
        f"full a loss is shown ({LOST}); against the baseline {UNDECIDED}. 1/4: a loss is shown against full ({LOST}) "
        f"and against the baseline ({LOST})."
    )
    # Without the variant of full width, or its trials, the baseline is what there is.
    assert f"1/2: {UNDECIDED}. 1/4: a loss is shown ({LOST})." in sentences(changes, *found)[1]


def test_both_together_are_read_against_the_baseline() -> None:
    changes = {
        "a": {DECODER: {"ratio": 0.25, "norm": True}, SKIP: {"ratio": 0.25}},
        "b": {DECODER: {"ratio": 0.25, "norm": True}},
        "c": {f"{SKIP}.ratio": 0.25},
    }
    found = sentences(changes, compared("a", LOSS), compared("b", NONE), compared("c", NONE))
    assert [sentence.split(":")[0] for sentence in found[1:]] == ["Skips", "Decoder", "Both together"]
    assert found[3] == f"Both together: the widest ratio with a shown loss is 1/4. 1/4: a loss is shown ({LOST})."


def test_a_collapsed_run_is_no_recovery(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "unreliable", lambda name, _: "Dice by run: ..." if name == "0.125" else "")
    wide: Found = (-0.1706, (-0.7635, 0.4223))
    assert sentences(skips(0.25, 0.125), compared("0.25", LOSS), compared("0.125", wide))[1].endswith(
        "1/8: training is unreliable (Dice by run: ...); the mean says little (-0.1706, -0.7635 to +0.4223)."
    )
    in_class = sentences(skips(0.125), compared("0.125", wide, front=LOSS))[1]
    assert in_class.endswith(
        f"1/8: training is unreliable (Dice by run: ...); a loss is shown in front ({LOST}), in mean Dice undecided "
        "(-0.1706, -0.7635 to +0.4223)."
    )


@pytest.mark.parametrize(
    ("dice", "said"),
    [
        ((0.90, 0.89, 0.70), "Dice by run: seed 0 0.9000, seed 1 0.8900, seed 2 0.7000"),
        ((0.90, 0.89, 0.86), ""),
        ((0.90, 0.84, 0.70), "Dice by run: seed 0 0.9000, seed 1 0.8400, seed 2 0.7000"),
        ((0.90, 0.89), ""),
    ],
)
def test_a_run_far_below_the_others_makes_training_unreliable(
    dice: tuple[float, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {("narrow", 0, seed): value for seed, value in enumerate(dice)}
    base = {("baseline", 0, seed): 0.9 for seed in range(3)}
    monkeypatch.setattr(module, "trial_dice", lambda _: found | base)
    analysis: Any = SimpleNamespace(records=None, baseline="baseline")
    assert unreliable("narrow", analysis) == said
    # Where the baseline's run of that seed is as low, the seed is what is bad.
    monkeypatch.setattr(module, "trial_dice", lambda _: found | base | {("baseline", 0, 2): 0.7})
    assert unreliable("narrow", analysis) == ""


def test_only_one_ratio_alone_makes_a_family() -> None:
    ignored = {
        "nothing": {},
        "plan": {"network.channels": [16, 16]},
        "plan and skip": {"network.channels": [16, 16], SKIP: {"ratio": 0.25}},
        "list": {SKIP: {"ratio": [0.5, 0.25]}},
        "expanded": {SKIP: {"ratio": 2.0}},
        "taken away": {SKIP: None},
        "two ratios": {SKIP: {"ratio": 0.5}, DECODER: {"ratio": 0.25}},
    }
    assert sentences(ignored, *(compared(name, LOSS) for name in ignored)) == ()
    # Of two settings the one with more ratios counts, wherever it stands.
    changes = {"relu": {SKIP: {"ratio": 0.25, "activation": "relu"}}, **skips(0.5, 0.125), **ignored}
    said = sentences(changes, compared("relu", LOSS), compared("0.5", NONE), compared("0.125", NONE))
    assert said[1].endswith(f"1/2: {UNDECIDED}. 1/8: {UNDECIDED}.")


def test_what_was_not_run_says_so() -> None:
    assert sentences(skips(0.5, 0.25), compared("0.5", None), compared("0.25", NONE))[1].endswith(
        f"1/2: not measured. 1/4: {UNDECIDED}."
    )
    assert sentences(skips(0.5), compared("0.5", None), compared("other", NONE))[1] == "Skips: not measured."


def test_below_three_runs_nothing_is_said(tmp_path: Path) -> None:
    for seeds, runs in (((0,), "one"), ((0, 1), "two")):
        folder = make_study(tmp_path / runs, Made(seeds=seeds))
        assert onset(analyse(read_records(folder))) == (
            f"This is not said: at least three training runs per variant are needed, and this study has {runs}.",
        )


def test_the_report_says_where_records_begin_to_lose(whole: Path) -> None:
    said = json.loads((whole / "results.json").read_text())["sentence_of_onset"]
    assert "Decoder: the widest ratio with a shown loss is 1/4. 1/2: within the margin (" in said
    page = (whole / "report.html").read_text().replace("<wbr>", "")
    assert TITLE in page
    assert all(sentence in page for sentence in onset(analyse(read_records(whole))))


def test_a_comparison_with_full_width_that_is_not_named_is_made(tmp_path: Path) -> None:
    content = json.loads((make_study(tmp_path) / "study.json").read_text())
    next(one for one in content["variants"] if one["name"] == "flat_16")["changes"] = {f"{DECODER}.ratio": 1.0}
    (tmp_path / "study.json").write_text(json.dumps(content))
    analysis = analyse(read_records(tmp_path))
    assert [(one.variant, one.against) for one in analysis.against_full_width] == [
        ("decoder_1-2", "flat_16"),
        ("decoder_1-4", "flat_16"),
    ]
    found = analysis.contrast_with("decoder_1-2", "flat_16")
    own, other = (analysis.mean_dice[name].difference for name in ("decoder_1-2", "flat_16"))
    assert found is not None
    assert found.difference == pytest.approx(own - other)
    assert "1/2: against flat_16 " in onset(analysis)[2]
