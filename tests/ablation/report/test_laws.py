"""The law of paths and stages, against correlations that SciPy takes over the records."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

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
    assert cells["directions amplified"] == [f"does not vary|{n} points" for n in (27, 27, 18, 18, 18)]
