"""The law of paths and stages, against correlations that SciPy takes over the records."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from seg.ablation.report.analysis import analyse
from seg.ablation.report.laws import Law, find_controls
from seg.ablation.report.study import VariantRecord, read_study
from seg.ablation.report.tables_preserved import result_sentences
from seg.ablation.report.trials import read_records
from seg.ablation.statistics import Correlation
from tests.ablation.report.page import Page
from tests.ablation.report.studies import VARIANTS
from tests.ablation.report.test_report import dice, value


@pytest.mark.parametrize("where", ["skip", "decoder", "stage_1"])
def test_the_law_of_a_path_or_a_stage_agrees_with_the_records(whole: Path, where: str) -> None:
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
    (entry,) = [
        law
        for law in json.loads((whole / "results.json").read_text())["law"]
        if (law["measure"], law["where"]) == ("r2", where)
    ]
    assert entry["num_points"] == len(kept)


def test_the_page_shows_the_law_of_each_path_and_stage(whole: Path) -> None:
    (table,) = [table for table in Page(whole / "report.html").tables if table[0][1:3] == ["Skips", "Decoder"]]
    assert table[0] == ["Measure", "Skips", "Decoder", "Stage 0", "Stage 1", "Stage 2"]
    cells = {row[0]: row[1:] for row in table[1:]}
    number = f"{float(value(whole, '', 'law_r2_spearman', place='skip')['value']):+.2f}".replace("-", "\N{MINUS SIGN}")
    # Three variants narrow the skips: too few to resample.
    assert cells["R² of linear reconstruction"][0] == f"{number}|no interval; 27 points"
    assert cells["channels amplified"] == [f"does not vary|{n} points" for n in (27, 27, 18, 18, 18)]


def test_a_control_has_all_other_changes_and_no_bottleneck(whole: Path) -> None:
    study = read_study(whole)
    skip, flat, slow = {"network.skip_bottleneck.ratio": 0.25}, {"network.channels": [16, 16]}, {"training.steps": 9}
    changes = {"baseline": {}, "skip": skip, "flat": flat, "flat_skip": flat | skip, "slow_skip": slow | skip}
    made = [VariantRecord(name=name, changes=one, parameters=1, macs=1) for name, one in changes.items()]
    assert find_controls(replace(study, variants=tuple(made))) == {
        "baseline": "baseline",
        "skip": "baseline",
        "flat": "flat",
        "flat_skip": "flat",
        "slow_skip": "baseline",
    }


def test_the_page_shows_what_a_measure_tells_beyond_the_width(whole: Path) -> None:
    heads = [f"Spearman given the width, {path}" for path in ("skips", "decoder")]
    (table,) = [table for table in Page(whole / "report.html").tables if heads[0] in table[0]]
    assert table[0][3:5] == heads
    cells = {row[0]: row[3:5] for row in table[1:]}
    assert cells["channels kept"] == ["\N{EN DASH}"] * 2
    for cell, place in zip(cells["probe Dice lost"], ("skip", "decoder"), strict=True):
        partial = value(whole, "", "law_probe_dice_lost_partial", place=place)
        number = round(float(partial["value"]), 2)
        assert cell.startswith(f"{number:+.2f}".replace("-", "\N{MINUS SIGN}") if number else "0.00")


def correlation(spearman: float, reach: float | None, partial: float, left: float | None) -> Correlation:
    """Makes a correlation whose intervals reach so far to either side."""
    ends = [
        None if half is None else (middle - half, middle + half)
        for middle, half in ((spearman, reach), (partial, left))
    ]
    return Correlation(
        spearman=spearman,
        spearman_ci95=ends[0],
        pearson=spearman,
        pearson_ci95=ends[0],
        partial=partial,
        partial_ci95=ends[1],
        num_points=9,
        num_clusters=6,
    )


def test_a_sentence_says_what_the_measures_show(whole: Path) -> None:
    analysis = analyse(read_records(whole))

    def said(**found: Correlation) -> str:
        named = [name.rpartition("_") for name in found]
        laws = [
            Law(measure=measure, where=where, correlation=one, num_points=9)
            for (measure, _, where), one in zip(named, found.values(), strict=True)
        ]
        (sentence,) = result_sentences(replace(analysis, laws=tuple(laws)))
        return sentence.replace("\N{MINUS SIGN}", "-")

    kept = "Position was kept exactly at 18 of 18 bottlenecks that were checked."
    uncorrected = "Intervals (95 %) are uncorrected for the number of measures."
    clear, unclear = correlation(-0.6, 0.2, -0.3, 0.1), correlation(-0.1, 0.2, 0.1, 0.2)
    assert said(ratio_worst=clear, r2_worst=unclear, r2_skip=clear, cka_skip=unclear, r2_decoder=unclear) == (
        f"{kept} With the Dice lost go, width and path not taken out (Spearman): channels kept (-0.60). Beyond the "
        "width, within each path, these are shown to go with the loss: R² of linear reconstruction (-0.30, -0.40 to "
        f"-0.20) in the skips; no measure in the decoder. {uncorrected}"
    )
    assert said(r2_worst=unclear, r2_skip=unclear, r2_decoder=unclear) == (
        f"{kept} No measure is shown to go with the Dice lost. Beyond the width, within each path, no measure is shown "
        f"to go with the loss. {uncorrected}"
    )
    assert said(r2_worst=correlation(-0.6, None, -0.3, None)) == kept
