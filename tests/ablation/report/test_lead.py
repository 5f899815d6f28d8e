"""The first sentence: what is recommended, or why nothing is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from seg.ablation.report.analysis import analyse
from seg.ablation.report.lead import lead, missing_sentence, per_device
from seg.ablation.report.trials import read_records
from tests.ablation.report.studies import VARIANTS, Made, make_study

NAMES = [row[0] for row in VARIANTS]
CPU = "Test Processor, 2 threads, bf16, channels_last_3d"
LATENCY = {row[0]: row[6] for row in VARIANTS}


def said(folder: Path, made: Made) -> str:
    return lead(analyse(read_records(make_study(folder, made))))


def test_the_fastest_variant_that_loses_nothing_is_recommended(whole: Path) -> None:
    analysis = analyse(read_records(whole))
    assert lead(analysis) == (
        "decoder_1-2 is the fastest variant whose Dice is not inferior to baseline in any class (margin 0.005); on "
        "Test GPU, bf16, channels_last_3d it is 1.49 times as fast in the network alone (batch 1; end to end not "
        "measured) and needs 0.789 times the memory; it is the narrowest such variant too, with 48 % of the "
        "multiply-accumulates. Also not inferior: skip_1-4 and skip_1-16."
    )
    ratio, memory = (180 + 50) / (121 + 50), (100 + 121) / (100 + 180)
    assert per_device(analysis) == (
        f"On {CPU}: decoder_1-2 is the fastest variant whose Dice is not inferior to baseline in any class (margin "
        f"0.005); it is {ratio:.2f} times as fast end to end (1.49 times in the network alone, batch 1) and needs "
        f"{memory:.3f} times the memory; it is the narrowest such variant too, with 48 % of the multiply-accumulates. "
        "Also not inferior: skip_1-4 and skip_1-16.",
    )
    assert missing_sentence(analysis) == ""


def test_the_narrowest_is_named_beside_the_fastest(tmp_path: Path) -> None:
    make_study(tmp_path, Made(devices=("cpu",)))
    speed = json.loads((tmp_path / "speed.json").read_text())
    skip = next(entry for entry in speed["devices"][0]["variants"] if entry["name"] == "skip_1-4")
    skip["latency_ms"] = {"median": 50.0, "q1": 49.0, "q3": 51.0}
    skip["latency_ratio"] = {"median": 3.6, "q1": 3.5, "q3": 3.7}
    skip["prediction_ratio"] = None
    (tmp_path / "speed.json").write_text(json.dumps(speed))
    assert lead(analyse(read_records(tmp_path))) == (
        f"skip_1-4 is the fastest variant whose Dice is not inferior to baseline in any class (margin 0.005); on {CPU} "
        "it is 3.60 times as fast in the network alone (batch 1; end to end not measured) and needs 0.921 times the "
        "memory; the narrowest such variant is decoder_1-2, with 48 % of the multiply-accumulates. "
        "Also not inferior: skip_1-16."
    )


def test_a_variant_slower_than_the_baseline_is_not_sold_as_a_gain(tmp_path: Path) -> None:
    made = Made(devices=("cpu",), losses={name: 0.02 for name in NAMES[1:] if name != "decoder_1-2"})
    make_study(tmp_path, made)
    speed = json.loads((tmp_path / "speed.json").read_text())
    slow = next(entry for entry in speed["devices"][0]["variants"] if entry["name"] == "decoder_1-2")
    slow["latency_ms"] = {"median": 200.0, "q1": 199.0, "q3": 201.0}
    slow["latency_ratio"] = {"median": 0.5, "q1": 0.4, "q3": 0.6}
    (tmp_path / "speed.json").write_text(json.dumps(speed))
    assert lead(analyse(read_records(tmp_path))).endswith(
        "No such variant is faster than baseline, which stays the better choice."
    )


def test_none_is_recommended_where_all_lose(tmp_path: Path) -> None:
    assert said(tmp_path, Made(losses=dict.fromkeys(NAMES[1:], 0.02))) == (
        "None is recommended: no variant was shown to be not inferior to baseline in every class (margin 0.005)."
    )


def test_none_is_recommended_without_a_latency(tmp_path: Path) -> None:
    assert said(tmp_path, Made(devices=())) == (
        "None is recommended, as latency was not measured; the Dice of skip_1-4, skip_1-16 and decoder_1-2 is not "
        "inferior to baseline in any class (margin 0.005)."
    )


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_fewer_than_three_runs_recommend_nothing(tmp_path: Path, seeds: tuple[int, ...]) -> None:
    assert said(tmp_path, Made(seeds=seeds)) == (
        "None is recommended: it takes 3 training runs of a variant and of the baseline to tell what other seeds would "
        "show (margin 0.005)."
    )


def test_an_incomplete_study_says_so(partial: Path) -> None:
    analysis = analyse(read_records(partial))
    assert lead(analysis).endswith("Provisional: 5 of 21 trials are missing.")
    assert missing_sentence(analysis) == (
        "Missing: skip_1-16.fold_0.seed_0 (not run), skip_1-16.fold_0.seed_1 (not run), decoder_1-4.fold_0.seed_1 "
        "(failed: RuntimeError: out of memory), skip_1-16.fold_0.seed_2 (not run), flat_16.fold_0.seed_2 (not run)."
    )


def test_many_missing_trials_are_not_all_named(tmp_path: Path) -> None:
    absent = tuple(f"{name}.fold_0.seed_{seed}" for name in NAMES[3:] for seed in range(3))
    analysis = analyse(read_records(make_study(tmp_path, Made(absent=absent))))
    assert missing_sentence(analysis).endswith(
        "decoder_1-4.fold_0.seed_1 (not run), and 6 more, see the list of trials."
    )


@pytest.mark.parametrize("status", ["absent", "failed"])
def test_without_a_baseline_there_is_nothing_to_compare(tmp_path: Path, status: str) -> None:
    trials = tuple(f"baseline.fold_0.seed_{seed}" for seed in range(3))
    assert said(tmp_path, Made(**{status: trials})) == (
        "None is recommended: the baseline baseline has no finished trial to compare with (3 of 21 trials are missing)."
    )


def test_a_study_that_has_not_begun_has_a_first_sentence(tmp_path: Path) -> None:
    absent = tuple(f"{name}.fold_0.seed_{seed}" for name in NAMES for seed in range(3))
    assert said(tmp_path, Made(absent=absent)).endswith("(21 of 21 trials are missing).")


def test_a_candidate_that_loses_dice_is_said_to(tmp_path: Path) -> None:
    make_study(tmp_path, Made(devices=("cpu",)))
    analysis = analyse(read_records(tmp_path))
    one = analysis.comparisons["decoder_1-2"]
    assert one.dice.effect is not None
    effect = replace(one.dice.effect, difference=-0.002, ci95=(-0.003, -0.001))
    changed = replace(one, dice=replace(one.dice, effect=effect))
    said = lead(replace(analysis, comparisons={**analysis.comparisons, "decoder_1-2": changed}))
    assert said.endswith(
        " Its Dice falls, within the margin: \N{MINUS SIGN}0.0020 (\N{MINUS SIGN}0.0030 to \N{MINUS SIGN}0.0010). "
        "Also not inferior: skip_1-4 and skip_1-16."
    )
    assert "falls" not in lead(analysis)


def test_the_fastest_goes_by_paired_ratios(tmp_path: Path) -> None:
    make_study(tmp_path, Made(devices=("cpu",)))
    speed = json.loads((tmp_path / "speed.json").read_text())
    for entry in speed["devices"][0]["variants"]:
        if entry["name"] != "baseline":  # medians of a machine that slowed down while it timed the second
            slowed, ratio = (300.0, 1.2) if entry["name"] == "skip_1-4" else (10.0, 1.1)
            entry["latency_ms"] = {"median": slowed, "q1": slowed, "q3": slowed}
            entry["latency_ratio"] = {"median": ratio, "q1": ratio, "q3": ratio}
    (tmp_path / "speed.json").write_text(json.dumps(speed))
    assert lead(analyse(read_records(tmp_path))).startswith("skip_1-4 is the fastest ")
