"""The table of estimates: numbers against the records, closed forms and SciPy."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from seg.ablation.plan import VariantPlan
from seg.ablation.report.analysis import analyse
from seg.ablation.report.frame import COLUMNS, estimates, to_csv
from seg.ablation.report.preservation import find_controls
from seg.ablation.store import read_results
from seg.files import unescaped_cell
from tests.ablation.report.studies import CONTRASTS, VARIANTS, Made, change, dice, make_study, value

CPU = "Test Processor, 2 threads, bf16, channels_last_3d"
NAMES = [row.name for row in VARIANTS]


def estimates_of(folder: Path) -> pd.DataFrame:
    return estimates(analyse(read_results(folder)))


@pytest.mark.parametrize("variant", NAMES)
def test_dice_and_differences_agree_with_the_records(whole: Path, variant: str) -> None:
    own, base = dice(whole, variant), dice(whole, "baseline")
    assert value(whole, variant, "dice")["value"] == pytest.approx(own.mean())
    for index in (1, 2):
        found = value(whole, variant, "dice", class_index=index)["value"]
        assert found == pytest.approx(own[..., index - 1].mean())
        if variant != "baseline":
            row = value(whole, variant, "dice_difference", class_index=index)
            assert row["value"] == pytest.approx((own - base)[..., index - 1].mean())
            assert row["low"] < row["value"] < row["high"]
            assert (row["interval"], row["num_patients"], row["num_runs"]) == ("ci95", 12, 3)


def test_a_missing_trial_takes_its_pair_out_of_its_own_comparison_alone(partial: Path) -> None:
    own, base = dice(partial, "flat_16", (0, 1)), dice(partial, "baseline", (0, 1))
    row = value(partial, "flat_16", "dice_difference")
    assert (row["value"], row["num_runs"]) == (pytest.approx((own - base).mean()), 2)
    assert value(partial, "decoder_1-2", "dice_difference")["num_runs"] == 3


def test_speed_and_size_agree_with_the_records(whole: Path) -> None:
    row = value(whole, "decoder_1-2", "latency_ms", device=CPU)
    assert row[["value", "low", "high"]].tolist() == pytest.approx([121, 121 * 0.98, 121 * 1.03])
    assert (row["interval"], row["unit"]) == ("iqr", "ms")
    assert value(whole, "decoder_1-2", "prediction_ratio", device=CPU)["value"] == pytest.approx(230 / 171)
    assert value(whole, "decoder_1-2", "macs")["value"] == 9_100_000_000
    assert value(whole, "skip_1-4", "preservation_narrow", place="skip_1")["value"] == 16


def test_a_measure_that_nobody_knows_is_an_estimate_all_the_same(tmp_path: Path) -> None:
    make_study(tmp_path, Made(devices=("cpu",)))
    change(tmp_path / "speed.json", lambda content: content["devices"][0]["variants"][0].update(energy_j=7.5))
    frame = estimates_of(tmp_path)
    own = frame[frame.metric == "energy_j"].set_index("variant")
    assert own.value["baseline"] == 7.5
    assert own.note["skip_1-4"] == "not measured"


def test_engines_and_processors_of_one_name_are_devices_of_their_own(tmp_path: Path) -> None:
    make_study(tmp_path, Made(devices=("cpu",) * 3))
    sets = [["avx2"], ["avx2"], ["avx2", "avx512_f", "avx512_vnni"]]
    engines = ["torch", "openvino", "openvino"]

    def differ(content: dict[str, Any]) -> None:
        for number, (device, own, engine) in enumerate(zip(content["devices"], sets, engines, strict=True)):
            device.update(engine=engine, precision="fp32", environment={"instruction_sets": own})
            device["variants"][0]["latency_ms"] = {"median": 100.0 + number, "q1": 99.0, "q3": 110.0}

    change(tmp_path / "speed.json", differ)
    frame = estimates_of(tmp_path)
    for number, name in enumerate(
        (
            "Test Processor (AVX2), 2 threads, fp32, channels_last_3d",
            "Test Processor (AVX2), 2 threads, fp32, openvino",
            "Test Processor (AVX-512 VNNI), 2 threads, fp32, openvino",
        )
    ):
        own = frame[(frame.variant == "baseline") & (frame.metric == "latency_ms") & (frame.device == name)]
        assert own.value.tolist() == [100 + number]


def test_what_was_not_measured_says_so(partial: Path) -> None:
    metrics = ("dice", "dice_difference", "p_holm", "non_inferior", "convergence_area", "generalisation_gap_dice")
    rows = [value(partial, "skip_1-16", metric) for metric in metrics]
    rows.append(value(partial, "flat_16", "latency_ms", device="Test GPU, bf16, channels_last_3d"))
    rows.append(value(partial, "skip_1-16", "contrast_dice_difference"))
    assert all(math.isnan(row["value"]) and row["note"] == "not measured" for row in rows)


def test_distances_are_left_out_where_spacing_is_nominal(tmp_path: Path) -> None:
    make_study(tmp_path, Made(devices=()))
    change(tmp_path / "study.json", lambda plan: plan.update(nominal_spacing=True))
    frame = estimates_of(tmp_path)
    distances = frame[frame.metric.str.contains("hd95|nsd")]
    assert set(distances.note) == {"left out"}
    assert distances[["value", "low", "high"]].isna().all(axis=None)
    assert frame[frame.metric == "dice_difference"].value.notna().all()


@pytest.mark.parametrize(("variant", "against"), CONTRASTS)
def test_contrasts_are_differences_of_their_two_variants(whole: Path, variant: str, against: str) -> None:
    lost = dice(whole, variant) - dice(whole, against)
    row = value(whole, variant, "contrast_dice_difference")
    assert (row["value"], row["against"]) == (pytest.approx(lost.mean()), against)
    assert row["low"] < lost.mean() < row["high"]
    for index in (1, 2):
        row = value(whole, variant, "contrast_dice_difference", class_index=index)
        assert row["value"] == pytest.approx(lost[..., index - 1].mean())


def test_gaps_to_training_are_paired(whole: Path) -> None:
    # The gap is the records' training less held-out Dice, mean over classes.
    values = 0.008 + 0.001 * np.arange(3)
    reach = stats.ttest_1samp(values, 0).confidence_interval()
    for variant, expected in (("skip_1-4", [0.004] * 3), ("skip_1-16", [values.mean(), reach.low, reach.high])):
        row = value(whole, variant, "generalisation_gap_dice_difference")
        assert row[["value", "low", "high"]].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("where", ["skip", "decoder", "stage_1", "worst"])
def test_the_law_agrees_with_scipy(whole: Path, where: str) -> None:
    kept, lost = [], []
    for name in NAMES[1:]:
        for seed in range(3):
            record = json.loads((whole / "trials" / f"{name}.fold_0.seed_{seed}" / "preservation.json").read_text())
            places = record["bottlenecks"]
            here = [one["r2"] for one in places if where in (one["path"], f"stage_{one['stage']}")]
            here = [min(one["r2"] for one in places)] if where == "worst" and places else here
            kept += here
            lost += [float(np.mean(dice(whole, "baseline", (seed,)) - dice(whole, name, (seed,))))] * len(here)
    for kind, correlation in (("spearman", stats.spearmanr), ("pearson", stats.pearsonr)):
        found = value(whole, "", f"law_r2_{kind}", place=where)["value"]
        assert found == pytest.approx(correlation(kept, lost).statistic)
    assert value(whole, "", "law_r2_num_points", place=where)["value"] == len(kept)


def test_a_control_has_all_other_changes_and_no_bottleneck(whole: Path) -> None:
    skip, flat, slow = {"network.skip_bottleneck.ratio": 0.25}, {"network.channels": [16, 16]}, {"training.steps": 9}
    changes = {"baseline": {}, "skip": skip, "flat": flat, "flat_skip": flat | skip, "slow_skip": slow | skip}
    variants = tuple(VariantPlan(name=name, changes=own) for name, own in changes.items())
    controls = find_controls(read_results(whole).study.model_copy(update={"variants": variants}))
    assert list(controls.values()) == ["baseline", "baseline", "flat", "flat", "baseline"]


def test_steps_before_the_first_validation_are_an_upper_bound(tmp_path: Path) -> None:
    make_study(tmp_path, Made(devices=()))
    for log in tmp_path.glob("trials/skip_1-4.*/metrics.csv"):
        pd.read_csv(log)[6:].to_csv(log, index=False)  # the first is at step 700, long after the rise
    frame = estimates_of(tmp_path)
    own = frame[frame.variant == "skip_1-4"].set_index("metric")
    steps = own.loc["convergence_steps_to_own"]
    assert (steps.value, steps.high, steps.interval) == (700, 700, "at_most")
    assert own.loc["convergence_steps_to_baseline_ratio"].note == "not measured"


def test_intervals_of_dice_stay_where_dice_can_be(tmp_path: Path) -> None:
    # A seed adds 0.3 to the Dice of a variant, give or take: the t interval over three of them leaves the range.
    frame = estimates_of(make_study(tmp_path, Made(noise=0.3, devices=())))
    ends = frame[frame.metric == "dice"]
    assert ends.low.min() >= 0
    assert ends.high.max() == 1


def test_texts_that_a_spreadsheet_would_run_are_escaped_and_numbers_are_not(whole: Path) -> None:
    hostile = ["=1+1", "+x", "-x", "@x", "'=x", "\tx", "plain"]
    frame = estimates_of(whole).head(7).assign(class_name=hostile, value=-1.5, low=-2.0)
    rows = list(csv.DictReader(io.StringIO(to_csv(frame))))
    assert [unescaped_cell(row["class_name"]) for row in rows] == hostile
    assert not any(row["class_name"].startswith(("=", "+", "-", "@", "\t")) for row in rows)
    assert {(row["value"], row["low"]) for row in rows} == {("-1.5", "-2.0")}


def test_the_table_has_every_number_of_the_analysis(whole: Path) -> None:
    analysis = analyse(read_results(whole))
    frame = pd.read_csv(whole / "results.csv")
    assert list(frame.columns) == COLUMNS
    assert analysis.ranks is not None
    ranks = frame[frame.metric == "rank_probability"]
    assert ranks.groupby("variant").value.sum().tolist() == pytest.approx([1.0] * len(VARIANTS))
    assert value(whole, "", "rank_kendall_tau")["value"] == pytest.approx(analysis.ranks.mean_tau)
    fastest = frame[frame.metric == "recommended_fastest"]
    assert fastest.variant.tolist() == [found.fastest for found in analysis.recommendations]
    assert not frame.duplicated(["variant", "metric", "against", "class_index", "place", "device"]).any()
