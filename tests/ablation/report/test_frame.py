"""The table of estimates: numbers against the records, closed forms and SciPy."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from seg.ablation.plan import VariantPlan
from seg.ablation.reading import unescaped
from seg.ablation.report.analysis import analyse
from seg.ablation.report.frame import COLUMNS, estimates, to_csv
from seg.ablation.report.preservation import find_controls, find_predictions
from seg.ablation.store import read_results
from tests.ablation.report.conftest import dice, value
from tests.ablation.report.places import CHANNELS
from tests.ablation.report.studies import CONTRASTS, VARIANTS, Made, make_study

CPU = "Test Processor, 2 threads, bf16, channels_last_3d"


def numbers(row: dict[str, str]) -> list[float]:
    return [float(row[key]) for key in ("value", "low", "high")]


@pytest.mark.parametrize("variant", [row[0] for row in VARIANTS])
def test_dice_and_differences_agree_with_the_records(whole: Path, variant: str) -> None:
    own, base = dice(whole, variant), dice(whole, "baseline")
    assert float(value(whole, variant, "dice")["value"]) == pytest.approx(own.mean())
    for index in (1, 2):
        row = value(whole, variant, "dice", class_index=str(index))
        assert float(row["value"]) == pytest.approx(own[..., index - 1].mean())
        if variant != "baseline":
            row = value(whole, variant, "dice_difference", class_index=str(index))
            assert float(row["value"]) == pytest.approx((own - base)[..., index - 1].mean())
            assert float(row["low"]) < float(row["value"]) < float(row["high"])
            assert [row[key] for key in ("interval", "num_patients", "num_runs")] == ["ci95", "12", "3"]


def test_a_missing_trial_takes_its_pair_out_of_its_own_comparison_alone(partial: Path) -> None:
    own, base = dice(partial, "flat_16", (0, 1)), dice(partial, "baseline", (0, 1))
    row = value(partial, "flat_16", "dice_difference")
    assert (float(row["value"]), row["num_runs"]) == (pytest.approx((own - base).mean()), "2")
    assert value(partial, "decoder_1-2", "dice_difference")["num_runs"] == "3"


def test_speed_and_size_agree_with_the_records(whole: Path) -> None:
    row = value(whole, "decoder_1-2", "latency_ms", device=CPU)
    assert numbers(row) == pytest.approx([121, 121 * 0.98, 121 * 1.03])
    assert (row["interval"], row["unit"]) == ("iqr", "ms")
    assert float(value(whole, "decoder_1-2", "prediction_ratio", device=CPU)["value"]) == pytest.approx(230 / 171)
    assert float(value(whole, "decoder_1-2", "macs")["value"]) == 9_100_000_000
    assert float(value(whole, "skip_1-4", "preservation_narrow", place="skip_1")["value"]) == 16


def test_a_measure_that_nobody_knows_is_an_estimate_all_the_same(tmp_path: Path) -> None:
    path = make_study(tmp_path, Made(devices=("cpu",))) / "speed.json"
    content = json.loads(path.read_text())
    content["devices"][0]["variants"][0]["energy_j"] = 7.5
    path.write_text(json.dumps(content))
    frame = estimates(analyse(read_results(tmp_path)))
    own = frame[frame.metric == "energy_j"].set_index("variant")
    assert own.value["baseline"] == 7.5
    assert own.note["skip_1-4"] == "not measured"


def test_what_was_not_measured_says_so(partial: Path) -> None:
    for metric in ("dice", "dice_difference", "p_holm", "non_inferior", "convergence_area", "generalisation_gap_dice"):
        row = value(partial, "skip_1-16", metric)
        assert (row["value"], row["note"]) == ("", "not measured")
    row = value(partial, "flat_16", "latency_ms", device="Test GPU, bf16, channels_last_3d")
    assert (row["value"], row["note"]) == ("", "not measured")


def test_distances_are_left_out_where_spacing_is_nominal(tmp_path: Path) -> None:
    path = make_study(tmp_path, Made(devices=())) / "study.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"nominal_spacing": True}))
    frame = estimates(analyse(read_results(tmp_path)))
    distances = frame[frame.metric.str.contains("hd95|nsd")]
    assert set(distances.note) == {"left out"}
    assert distances[["value", "low", "high"]].isna().all(axis=None)
    assert frame[frame.metric == "dice_difference"].value.notna().all()


def test_contrasts_are_differences_of_their_two_variants(whole: Path) -> None:
    for variant, against in CONTRASTS:
        lost = dice(whole, variant) - dice(whole, against)
        row = value(whole, variant, "contrast_dice_difference", against=against)
        assert float(row["value"]) == pytest.approx(lost.mean())
        assert float(row["low"]) < lost.mean() < float(row["high"])
        for index in (1, 2):
            row = value(whole, variant, "contrast_dice_difference", against=against, class_index=str(index))
            assert float(row["value"]) == pytest.approx(lost[..., index - 1].mean())


def test_contrasts_of_missing_trials_are_not_measured(partial: Path) -> None:
    (row,) = [value(partial, "skip_1-16", "contrast_dice_difference", against="skip_1-4")]
    assert row["note"] == "not measured"


def test_gaps_to_training_are_paired(whole: Path) -> None:
    # The gap is the records' training less held-out Dice, mean over classes.
    exact = value(whole, "skip_1-4", "generalisation_gap_dice_difference")
    assert numbers(exact) == pytest.approx([0.004] * 3)
    row = value(whole, "skip_1-16", "generalisation_gap_dice_difference")
    values = 0.008 + 0.001 * np.arange(3)
    reach = stats.ttest_1samp(values, 0).confidence_interval()
    assert numbers(row) == pytest.approx([values.mean(), reach.low, reach.high])


@pytest.mark.parametrize("where", ["skip", "decoder", "stage_1"])
def test_the_law_of_a_path_or_a_stage_agrees_with_scipy(whole: Path, where: str) -> None:
    kept, lost = [], []
    for name in (row[0] for row in VARIANTS[1:]):
        for seed in range(3):
            record = json.loads((whole / "trials" / f"{name}.fold_0.seed_{seed}" / "preservation.json").read_text())
            loss = float(np.mean(dice(whole, "baseline", (seed,)) - dice(whole, name, (seed,))))
            here = [e for e in record["bottlenecks"] if where in (e["path"], f"stage_{e['stage']}")]
            kept += [entry["r2"] for entry in here]
            lost += [loss] * len(here)
    for kind, correlation in (("spearman", stats.spearmanr), ("pearson", stats.pearsonr)):
        found = value(whole, "", f"law_r2_{kind}", place=where)
        assert float(found["value"]) == pytest.approx(correlation(kept, lost).statistic)
    assert float(value(whole, "", "law_r2_num_points", place=where)["value"]) == len(kept)


def test_a_control_has_all_other_changes_and_no_bottleneck(whole: Path) -> None:
    study = read_results(whole).study
    skip, flat, slow = {"network.skip_bottleneck.ratio": 0.25}, {"network.channels": [16, 16]}, {"training.steps": 9}
    changes = {"baseline": {}, "skip": skip, "flat": flat, "flat_skip": flat | skip, "slow_skip": slow | skip}
    variants = tuple(VariantPlan(name=name, changes=own) for name, own in changes.items())
    assert find_controls(study.model_copy(update={"variants": variants})) == {
        "baseline": "baseline",
        "skip": "baseline",
        "flat": "flat",
        "flat_skip": "flat",
        "slow_skip": "baseline",
    }


def test_predicted_widths_are_the_first_that_keep_95_percent(whole: Path) -> None:
    for width in analyse(read_results(whole)).predictions:
        stage = int(width.name[-1])
        decay = 1 / (4 + 4 * stage)
        wide = CHANNELS[stage] * (1 if width.name.startswith("skip") else 2)

        def kept(channels: int, decay: float = decay, wide: int = wide) -> float:
            # A geometric series: the spectrum falls by the same factor from channel to channel.
            return (1 - math.exp(-decay * channels)) / (1 - math.exp(-decay * wide))

        assert kept(width.widths[0] - 1) < 0.95 <= kept(width.widths[0])
        assert width.found == round(CHANNELS[stage] / (16 if width.name.startswith("skip") else 2))


def test_a_variant_made_from_a_prediction_and_another_plan_are_no_findings(tmp_path: Path) -> None:
    make_study(tmp_path)
    widths = {width.name: width.widths[0] for width in analyse(read_results(tmp_path)).predictions}
    for seed in range(3):
        path = tmp_path / "trials" / f"skip_1-4_decoder_1-4.fold_0.seed_{seed}" / "preservation.json"
        content = json.loads(path.read_text())
        for place in content["bottlenecks"]:
            place["narrow"] = widths[place["name"]]
        path.write_text(json.dumps(content))
    # Another trial of the baseline spreads its variance evenly over the channels of one skip.
    path = tmp_path / "trials" / "baseline.fold_0.seed_2" / "preservation.json"
    content = json.loads(path.read_text())
    (place,) = (place for place in content["bottlenecks"] if place["name"] == "skip_0")
    place["r2_by_width"] = [(width + 1) / place["wide"] for width in range(place["wide"])]
    path.write_text(json.dumps(content))
    results = read_results(tmp_path)
    names = {row[0] for row in VARIANTS}
    first = find_predictions(results, names)[0]
    assert (first.widths[0], first.widths[2]) == (widths["skip_0"], math.ceil(0.95 * CHANNELS[0]))
    assert {width.variant for width in find_predictions(results, names)} == {"skip_1-16", "decoder_1-4"}
    variants = tuple(
        plan.model_copy(update={"changes": {**plan.changes, "network.channels": [1]}})
        if plan.name == "skip_1-16"
        else plan
        for plan in results.study.variants
    )
    results.study.model_copy()
    other = results.__class__(**{**vars(results), "study": results.study.model_copy(update={"variants": variants})})
    assert {width.variant for width in find_predictions(other, names)} == {"skip_1-4", "decoder_1-4"}
    assert [width.tried for width in find_predictions(other, names)[:3]] == [channels // 4 for channels in CHANNELS]


def test_steps_before_the_first_validation_are_an_upper_bound(tmp_path: Path) -> None:
    make_study(tmp_path, Made(devices=()))
    for log in tmp_path.glob("trials/skip_1-4.*/metrics.csv"):
        head, *rows = log.read_text().splitlines()
        log.write_text("\n".join([head, *rows[6:]]) + "\n")  # the first of them is at step 700, long after the rise
    frame = estimates(analyse(read_results(tmp_path)))
    own = frame[frame.variant == "skip_1-4"].set_index("metric")
    steps = own.loc["convergence_steps_to_own"]
    assert (steps.value, steps.high, steps.interval) == (700, 700, "at_most")
    assert own.loc["convergence_steps_to_baseline_ratio"].note == "not measured"


def test_intervals_of_dice_stay_where_dice_can_be(tmp_path: Path) -> None:
    # A seed adds 0.3 to the Dice of a variant, give or take: the t interval over three of them leaves the range.
    analysis = analyse(read_results(make_study(tmp_path, Made(noise=0.3, devices=()))))
    ends = [effect.ci95 for effects in analysis.dice.values() if (effect := effects[0]).ci95]
    assert all(0 <= low < high <= 1 for low, high in ends)
    assert any(high == 1 for _, high in ends)


def test_texts_that_a_spreadsheet_would_run_are_escaped_and_numbers_are_not(whole: Path) -> None:
    frame = estimates(analyse(read_results(whole)))
    hostile = ["=1+1", "+x", "-x", "@x", "'=x", "\tx", "plain"]
    frame = pd.concat([frame.head(7).assign(class_name=hostile, value=-1.5, low=-2.0)])
    rows = list(csv.DictReader(io.StringIO(to_csv(frame))))
    assert [unescaped(row["class_name"]) for row in rows] == hostile
    assert not any(row["class_name"].startswith(("=", "+", "-", "@", "\t")) for row in rows)
    assert {(row["value"], row["low"]) for row in rows} == {("-1.5", "-2.0")}


def test_the_table_has_every_number_of_the_analysis(whole: Path) -> None:
    analysis = analyse(read_results(whole))
    frame = pd.read_csv(whole / "results.csv")
    assert list(frame.columns) == COLUMNS
    assert analysis.ranks is not None
    ranks = frame[frame.metric == "rank_probability"]
    assert ranks.groupby("variant").value.sum().tolist() == pytest.approx([1.0] * len(VARIANTS))
    assert value(whole, "", "rank_kendall_tau")["value"] == str(analysis.ranks.mean_tau)
    fastest = frame[frame.metric == "recommended_fastest"]
    assert fastest.variant.tolist() == [found.fastest for found in analysis.recommendations]
    assert not frame.duplicated(["variant", "metric", "against", "class_index", "place", "device"]).any()
