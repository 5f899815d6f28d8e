"""Pictures of the hardest cases: which, drawn from what, and kept for a report that has only records."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from seg.ablation.report import worst, write_report
from seg.ablation.report.analysis import analyse
from seg.ablation.report.trials import read_records
from seg.ablation.report.worst import choose, kept_pictures, shown_variant, worst_cases
from seg.config import ExperimentConfig, dump_config
from seg.errors import RunError
from seg.evaluation.scores import read_cases
from tests.ablation.report.page import Page
from tests.ablation.report.studies import Made, lower, make_study

CASES = [f"case_{number:03d}" for number in range(12)]
LICENCE = "Data set: Test; licence: CC0 <1.0>; attribution: A. Author. Pictures are derived from it"


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run directories of two variants, with predictions and the data set that they name."""
    root = tmp_path_factory.mktemp("data")
    label = np.zeros((12, 12, 12), np.int16)
    label[3:7, 4:8, 4:8], label[7:9, 4:8, 4:8] = 1, 2
    image = np.random.default_rng(0).normal(size=label.shape).astype(np.float32)
    for case in CASES:
        save(root / "imagesTr" / f"{case}.nii.gz", image)
        save(root / "labelsTr" / f"{case}.nii.gz", label)
    pairs = [{"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"} for case in CASES]
    description = {
        "name": "Test",
        "licence": "CC0 <1.0>",
        "reference": "A. Author",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "anterior", "2": "posterior"},
        "training": pairs,
        "test": [],
    }
    (root / "dataset.json").write_text(json.dumps(description))
    folder = tmp_path_factory.mktemp("runs")
    config = ExperimentConfig(name="test")
    config = replace(config, data=replace(config.data, root=str(root)))
    for variant in ("baseline", "decoder_1-2"):
        run_dir = folder / variant / "fold_0_seed_0"
        run_dir.mkdir(parents=True)
        (run_dir / "config.yaml").write_text(dump_config(config))
        for case in CASES:
            save(run_dir / "predictions" / f"{case}.nii.gz", np.roll(label, 1, axis=0))
    return folder


def means(folder: Path, variant: str) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for seed in range(3):
        for score in read_cases(folder / "trials" / f"{variant}.fold_0.seed_{seed}"):
            values.setdefault(score.case_id, []).append(score.scores.dice)
    return {case: float(np.mean(found)) for case, found in values.items()}


def test_the_hardest_cases_and_the_one_that_loses_most_are_chosen(whole: Path) -> None:
    analysis = analyse(read_records(whole))
    assert shown_variant(analysis) == "decoder_1-2"
    base, own = means(whole, "baseline"), means(whole, "decoder_1-2")
    hardest = sorted(base, key=base.__getitem__)[:2]
    lost = sorted((case for case in base if case not in hardest), key=lambda case: own[case] - base[case])[:1]
    chosen = choose(analysis, "decoder_1-2")
    assert [one.case_id for one in chosen] == hardest + lost
    assert {one.pair for one in chosen} == {(0, 0)}


def test_a_case_is_shown_with_predictions_that_both_have_a_dice(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    hardest = choose(analyse(read_records(study)), "decoder_1-2")[0].case_id
    path = study / "trials" / "decoder_1-2.fold_0.seed_0" / "cases.csv"
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    for row in rows:
        if row["case_id"] == hardest:  # both masks empty in every class
            row["dice"] = "nan"
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(text.getvalue())
    chosen = choose(analyse(read_records(study)), "decoder_1-2")[0]
    assert (chosen.case_id, chosen.pair) == (hardest, (0, 1))
    assert all(math.isfinite(value) for dice in chosen.dice for value in dice.values())


def test_the_data_of_a_run_are_read_once(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make_study(tmp_path / "study")
    read: list[Path] = []
    original = worst._read_data
    monkeypatch.setattr(worst, "_read_data", lambda run_dir: read.append(run_dir) or original(run_dir))
    worst_cases(analyse(read_records(study)), study, runs)
    assert len(read) == len(set(read)) == 2


def test_without_a_recommendation_the_narrowest_variant_is_shown(tmp_path: Path) -> None:
    losses = {"skip_1-4": 0.02, "skip_1-16": 0.02, "decoder_1-2": 0.02}
    assert shown_variant(analyse(read_records(make_study(tmp_path, Made(losses=losses))))) == "flat_16"


def test_a_variant_or_a_run_that_failed_to_learn_is_not_shown(tmp_path: Path) -> None:
    losses = {"skip_1-4": 0.02, "skip_1-16": 0.02, "decoder_1-2": 0.02}
    study = make_study(tmp_path, Made(losses=losses))
    lower(study, "flat_16.fold_0.seed_0", 0.3)
    analysis = analyse(read_records(study))
    assert shown_variant(analysis) == "skip_1-4_decoder_1-4"  # of the others the one of fewest operations
    assert {one.pair for one in choose(analysis, "flat_16")} == {(0, 1)}


def test_pictures_are_drawn_with_their_licence_and_kept_for_records_alone(runs: Path, tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", Made(preserved=False, devices=()))
    write_report(study, runs_dir=runs)
    names = [f"worst_{number}.png" for number in (1, 2, 3)]
    contents = [(study / "figures" / name).read_bytes() for name in names]
    assert all(content.startswith(b"\x89PNG") for content in contents)
    page = Page(study / "report.html")
    assert page.text.count(LICENCE) == 1
    assert sum(picture["src"].startswith("data:image/png") for picture in page.all("img")) == 3
    assert all(f"](figures/{name})" in (study / "report.md").read_text() for name in names)
    # The runs are gone: the pictures stay as they are, with their licence; those whose file is gone are left out.
    analysis = analyse(read_records(study))
    panels, words = worst_cases(analysis, study, study / "runs")
    assert [panel.content for panel in panels] == contents
    assert LICENCE in words
    (study / "figures" / "worst_2.png").unlink()
    assert [panel.file for panel in worst_cases(analysis, study, study / "runs")[0]] == [names[0], names[2]]


def test_without_runs_a_sentence_stands_for_the_pictures(whole: Path) -> None:
    assert (
        "Pictures of cases are left out: they need the run directories and the data, which were not at hand when this "
        "report was written."
    ) in Page(whole / "report.html").text


def test_a_missing_prediction_is_announced(runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    part = Path(shutil.copytree(runs, tmp_path / "runs"))
    shutil.rmtree(part / "decoder_1-2" / "fold_0_seed_0" / "predictions")
    study = make_study(tmp_path / "study")
    assert worst_cases(analyse(read_records(study)), study, part)[0] == ()
    assert "needs its label and its prediction, got no such files; restore them." in caplog.text


def test_a_newer_list_of_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "worst.json").write_text('{"schema_version": 2}')
    with pytest.raises(RunError, match=r"worst.json: schema version must be at most 1, got 2; .* update seg\.$"):
        kept_pictures(tmp_path)
