"""The first sentence: what is recommended, or why nothing is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from seg.ablation.report.analysis import analyse
from seg.ablation.report.lead import grounds, headline, lead, missing_sentence, per_device
from seg.ablation.report.trials import read_records
from tests.ablation.report.studies import VARIANTS, Made, make_study

NAMES = [row[0] for row in VARIANTS]
CPU = "Test Processor, 2 threads, bf16"


def said(folder: Path, made: Made) -> str:
    return lead(analyse(read_records(make_study(folder, made))))


BLOCK = "each decoder stage's two 3x3 convolutions become 1x1 - 3x3 - 1x1 at 1/2 of the stage's channels"
SHOWN = "Among the variants shown to lose less than 0.005 Dice in every class"
NO_PAIR = "No narrower pair of skip and decoder bottlenecks was shown to be safe."


def test_what_to_build_is_said_with_what_it_buys(whole: Path) -> None:
    analysis = analyse(read_records(whole))
    assert headline(analysis) == f"Use decoder_1-2: {BLOCK}."
    rest = (
        f"decoder_1-2 is the narrowest decoder shown to be safe. {NO_PAIR} Also shown, but slower than decoder_1-2: "
        "skip_1-4."
    )
    assert grounds(analysis) == (
        f"{SHOWN} it is the fastest: 1.49 times as fast as the baseline in the network alone (Test GPU, bf16; from "
        "file to file not measured), with 48 % of the multiply-accumulates and 0.79 times the inference memory. The "
        f"narrowest skip shown to be safe keeps 1/16 of the channels (skip_1-16, 1.16 times as fast). {rest}"
    )
    assert lead(analysis) == f"{headline(analysis)} {grounds(analysis)}"
    ratio = (180 + 50) / (121 + 50)
    skip = (180 + 50) / (155 + 50)
    assert per_device(analysis) == (
        f"On {CPU}: use decoder_1-2: {BLOCK}. {SHOWN} it is the fastest: {ratio:.2f} times as fast as the baseline "
        f"from file to file (quartiles {0.98 * ratio:.2f}\N{EN DASH}{1.03 * ratio:.2f}) and 1.49 times in the network "
        "alone, with 48 % of the multiply-accumulates and 0.79 times the inference memory. The narrowest skip shown to "
        f"be safe keeps 1/16 of the channels (skip_1-16, {skip:.2f} times as fast). {rest}",
    )
    assert missing_sentence(analysis) == ""


def speeds(folder: Path, **medians: dict[str, float]) -> None:
    """Sets measures of variants on the first device of a study, by the variant's name with underscores for dashes."""
    speed = json.loads((folder / "speed.json").read_text())
    for entry in speed["devices"][0]["variants"]:
        for key, value in medians.get(entry["name"].replace("-", "_"), {}).items():
            entry[key] = {"median": value, "q1": 0.9 * value, "q3": 1.1 * value}
    (folder / "speed.json").write_text(json.dumps(speed))


def test_a_variant_that_is_faster_from_file_to_file_is_not_hidden(tmp_path: Path) -> None:
    make_study(tmp_path, Made(devices=("cpu",)))
    speeds(
        tmp_path,
        skip_1_4={"latency_ms": 50.0, "latency_ratio": 3.6, "prediction_ratio": 1.1},
        decoder_1_2={"prediction_ratio": 1.2},
    )
    assert lead(analyse(read_records(tmp_path))) == (
        f"Use skip_1-4: skips keep 1/4 of the channels. {SHOWN} it is the fastest in the network alone: 1.10 times as "
        f"fast as the baseline from file to file (quartiles 0.99\N{EN DASH}1.21) and 3.60 times in the network alone "
        f"({CPU}), with 83 % of the multiply-accumulates and 0.92 times the inference memory. The narrowest skip shown "
        "to be safe keeps 1/16 of the channels (skip_1-16, 1.12 times as fast). The narrowest decoder shown to be safe "
        f"keeps 1/2 of the channels (decoder_1-2, 1.20 times as fast). {NO_PAIR}"
    )


def test_nothing_is_called_narrowest_where_nothing_is_narrowed(tmp_path: Path) -> None:
    losses = dict.fromkeys(NAMES[1:], 0.02) | {"flat_16": 0.0, "decoder_1-2": 0.0}
    make_study(tmp_path, Made(devices=("cpu",), losses=losses, noise=0.0001))
    change(tmp_path, "flat_16", {"network.channels": [16, 16, 16]})
    change(tmp_path, "decoder_1-2", {"network.decoder_bottleneck": {"ratio": 1.0}})
    said = lead(analyse(read_records(tmp_path)))
    assert said.startswith("Use flat_16: 16 channels at every stage. ")
    assert said.endswith(
        "No narrower skip, no narrower decoder and no narrower pair of skip and decoder bottlenecks was shown to be "
        "safe. Also shown, but slower than flat_16: decoder_1-2."
    )
    assert "narrowest" not in said
    # Fewest multiply-accumulates are called just that.
    speeds(tmp_path, decoder_1_2={"latency_ms": 10.0, "latency_ratio": 18.0})
    assert "Fewest multiply-accumulates among those shown: flat_16, with 16 % of the baseline's." in lead(
        analyse(read_records(tmp_path))
    )


def change(folder: Path, name: str, changes: dict[str, object]) -> None:
    """Makes a variant differ from the baseline in other fields."""
    content = json.loads((folder / "study.json").read_text())
    next(one for one in content["variants"] if one["name"] == name)["changes"] = changes
    (folder / "study.json").write_text(json.dumps(content))


def test_a_variant_slower_than_the_baseline_is_not_sold_as_a_gain(tmp_path: Path) -> None:
    make_study(tmp_path, Made(devices=("cpu",), losses={name: 0.02 for name in NAMES[1:] if name != "decoder_1-2"}))
    speeds(tmp_path, decoder_1_2={"latency_ms": 200.0, "latency_ratio": 0.5, "prediction_ratio": 0.8})
    analysis = analyse(read_records(tmp_path))
    assert (
        headline(analysis)
        == "Keep the baseline: no variant shown to lose less than 0.005 Dice in every class is faster."
    )
    assert grounds(analysis).startswith(
        f"{SHOWN} decoder_1-2 is the fastest: 0.80 times as fast as the baseline from file"
    )


def test_a_gain_in_the_network_alone_is_said_to_be_no_more(tmp_path: Path) -> None:
    make_study(tmp_path, Made(devices=("cpu",)))
    speeds(tmp_path, decoder_1_2={"prediction_ratio": 0.97})
    assert " From file to file it gains nothing. " in lead(analyse(read_records(tmp_path)))


def test_none_is_recommended_where_all_lose(tmp_path: Path) -> None:
    assert said(tmp_path, Made(losses=dict.fromkeys(NAMES[1:], 0.02))) == (
        "No variant is recommended: none was shown to lose less than 0.005 Dice in every class."
    )


def test_what_more_runs_could_decide_is_named(tmp_path: Path) -> None:
    analysis = analyse(read_records(make_study(tmp_path, Made(devices=("cpu",)))))
    undecided = {name: replace(one, non_inferior=False) for name, one in analysis.comparisons.items()}
    (one,) = analysis.recommendations
    nothing = replace(one, candidates=(), fastest=None, narrowest=None)
    assert lead(replace(analysis, comparisons=undecided, recommendations=(nothing,))) == (
        "No variant is recommended: none was shown to lose less than 0.005 Dice in every class. Nearest: skip_1-4, "
        "skip_1-16 and decoder_1-2, with 95 % intervals (uncorrected) within that margin in every class; more training "
        "runs could show it."
    )


def test_none_is_recommended_without_a_latency(tmp_path: Path) -> None:
    assert said(tmp_path, Made(devices=())) == (
        "No variant is recommended: latency was not measured, so the fastest of those shown to lose less than 0.005 "
        "Dice in every class is not known. They are skip_1-4, skip_1-16 and decoder_1-2."
    )


@pytest.mark.parametrize(("seeds", "runs"), [((0,), "one"), ((0, 1), "two")])
def test_fewer_than_three_runs_recommend_nothing(tmp_path: Path, seeds: tuple[int, ...], runs: str) -> None:
    assert said(tmp_path, Made(seeds=seeds)) == (
        f"No recommendation: at least three training runs per variant are needed, and this study has {runs}."
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
        "No recommendation: the baseline has no finished trial to compare with (3 of 21 trials are missing)."
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
    minus = "\N{MINUS SIGN}"
    assert (
        f" Its mean Dice falls, within the margin: {minus}0.0020 ({minus}0.0030 to {minus}0.0010). The narrowest"
        in said
    )
    assert "falls" not in lead(analysis)


def test_the_fastest_goes_by_paired_ratios(tmp_path: Path) -> None:
    make_study(tmp_path, Made(devices=("cpu",)))
    # Medians of a machine that slowed down while it timed one of them.
    others = {"latency_ms": 10.0, "latency_ratio": 1.1}
    slowed = {"latency_ms": 300.0, "latency_ratio": 1.2}
    speeds(tmp_path, **{name.replace("-", "_"): others for name in NAMES[1:]} | {"skip_1_4": slowed})
    assert headline(analyse(read_records(tmp_path))) == "Use skip_1-4: skips keep 1/4 of the channels."
