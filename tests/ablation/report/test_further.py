"""Contrasts of two variants and gaps to training, against differences taken from the records and SciPy's intervals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from seg.ablation.report.study import read_study
from seg.errors import RunError
from tests.ablation.report.page import Page
from tests.ablation.report.studies import CONTRASTS, Made, make_study
from tests.ablation.report.test_report import dice, value


def contrasts(folder: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads((folder / "results.json").read_text())["contrasts"]
    return found


def test_a_contrast_is_the_difference_of_its_two_variants(whole: Path) -> None:
    found = contrasts(whole)
    assert [(one["variant"], one["against"]) for one in found] == list(CONTRASTS)
    for entry in found:
        lost = dice(whole, str(entry["variant"]), (0, 1, 2)) - dice(whole, str(entry["against"]), (0, 1, 2))
        assert entry["dice"]["difference"] == pytest.approx(lost.mean())  # type: ignore[index]
        low, high = entry["dice"]["ci95"]  # type: ignore[index]
        assert low < lost.mean() < high
        # The interval moves with the data: against the baseline it is another.
        assert value(whole, str(entry["variant"]), "dice_difference")["low"] != str(low)
        for index, name in enumerate(("anterior", "posterior")):
            assert entry["classes"][name]["difference"] == pytest.approx(lost[..., index].mean())  # type: ignore[index]


def test_the_page_shows_contrasts_with_work_and_speed(whole: Path) -> None:
    (table,) = [table for table in Page(whole / "report.html").tables if table[0][1:2] == ["Against"]]
    assert [row[:2] for row in table[1:]] == [list(names) for names in CONTRASTS]
    assert [row[-2] for row in table[1:]] == ["78 %", "95 %"]
    assert [row[-1] for row in table[1:]] == ["1.14", "1.02"]


def test_a_contrast_without_trials_is_not_measured(partial: Path) -> None:
    found = {str(one["variant"]): one for one in contrasts(partial)}
    assert found["skip_1-16"]["dice"] is None
    assert found["skip_1-4_decoder_1-4"]["dice"]["num_runs"] == 2  # type: ignore[index]
    (table,) = [table for table in Page(partial / "report.html").tables if table[0][1:2] == ["Against"]]
    assert table[2][2:5] == ["not measured"] * 3


def test_a_contrast_of_an_unknown_variant_is_refused(tmp_path: Path) -> None:
    make_study(tmp_path, Made(devices=()))
    path = tmp_path / "study.json"
    path.write_text(path.read_text().replace('"against": "skip_1-4"', '"against": "skip_1-5"'))
    with pytest.raises(RunError, match="contrasts must compare variants of the study, got skip_1-5; start the study"):
        read_study(tmp_path)


def test_gaps_are_paired(whole: Path) -> None:
    # Gaps are 0.03 and 0.004 more with each variant, of which the third and later have 0.001 more with each seed.
    exact = value(whole, "skip_1-4", "generalisation_gap_dice_difference")
    assert [float(exact[key]) for key in ("value", "low", "high")] == pytest.approx([0.004] * 3)
    row = value(whole, "skip_1-16", "generalisation_gap_dice_difference")
    values = 0.008 + 0.001 * np.arange(3)
    reach = stats.ttest_1samp(values, 0).confidence_interval()
    assert [float(row[key]) for key in ("value", "low", "high")] == pytest.approx(
        [values.mean(), reach.low, reach.high]
    )


def test_sentences_say_what_learns_faster_and_what_generalises_better(whole: Path) -> None:
    text = (whole / "report.md").read_text().replace("\\_", "_")
    assert (
        "Generalisation, by training less validation Dice against the baseline's: training Dice rose and validation "
        "Dice fell for skip_1-4, skip_1-16, decoder_1-2, decoder_1-4, skip_1-4_decoder_1-4 and flat_16 (95 % t "
        "intervals over runs, uncorrected, of 6 variants)."
    ) in text
    (said,) = [line for line in text.splitlines() if line.startswith("Learning, by the area under the curve")]
    # Curves are slower with each variant, by far more than runs differ.
    assert "below the baseline's for " in said
    assert "above" not in said
