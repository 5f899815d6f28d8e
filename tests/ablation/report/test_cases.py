"""Differences by case, and pictures of the hardest: which, drawn from what, and kept for a report without runs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

from seg.ablation.report import write_report
from seg.ablation.report.analysis import Analysis, analyse
from seg.ablation.report.cases import case_differences, case_pictures, chosen_cases, kept_pictures, shown_variant
from seg.ablation.store import read_results
from seg.config import ExperimentConfig, dump_config
from seg.errors import RunError
from tests.ablation.report.studies import Made, change, change_cases, dice, make_study
from tests.pages import Page

CASES = [f"case_{number:03d}" for number in range(12)]
LICENCE = "Data set: Test; licence: CC0 <1.0>; attribution: A. Author."
LOSSES = {"skip_1-4": 0.02, "skip_1-16": 0.02, "decoder_1-2": 0.02}


def analysis_of(folder: Path) -> Analysis:
    return analyse(read_results(folder))


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


def test_differences_by_case_agree_with_the_records(whole: Path) -> None:
    frame = case_differences(analysis_of(whole), "decoder_1-2").set_index("case").sort_index()
    base, own = (dice(whole, name).mean(axis=(0, 2)) for name in ("baseline", "decoder_1-2"))
    assert list(frame.index) == CASES
    assert frame.baseline.to_numpy() == pytest.approx(base)
    assert frame.difference.to_numpy() == pytest.approx(own - base)


def test_the_hardest_case_and_the_largest_losses_are_chosen(whole: Path) -> None:
    analysis = analysis_of(whole)
    assert shown_variant(analysis) == "decoder_1-2"
    base, own = (dice(whole, name).mean(axis=(0, 2)) for name in ("baseline", "decoder_1-2"))
    hardest = CASES[int(base.argmin())]
    lost = [CASES[index] for index in (own - base).argsort() if CASES[index] != hardest][:2]
    assert list(chosen_cases(case_differences(analysis, "decoder_1-2"))) == [hardest, *lost]


def test_without_a_recommendation_the_narrowest_that_trained_is_shown(tmp_path: Path) -> None:
    study = make_study(tmp_path, Made(losses=LOSSES, preserved=False, devices=()))
    assert shown_variant(analysis_of(study)) == "flat_16"
    change_cases(study, "flat_16.fold_0.seed_0", lambda table: table.__setitem__("dice", table["dice"] - 0.3))
    assert shown_variant(analysis_of(study)) == "skip_1-4_decoder_1-4"  # of the others the fewest operations


def test_pictures_are_drawn_with_their_licence_and_kept_for_a_report_without_runs(runs: Path, tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", Made(preserved=False, devices=()))
    write_report(study, runs_dir=runs)
    names = [f"worst_{number}.png" for number in (1, 2, 3)]
    contents = [(study / "figures" / name).read_bytes() for name in names]
    assert all(content.startswith(b"\x89PNG") for content in contents)
    text = (study / "report.html").read_text()
    page = Page(text)
    assert page.text.count(LICENCE) == 1
    assert sum(picture["src"].startswith("data:image/webp;base64,") for picture in page.all("img")) == 3
    # Every drawn case is linked from the table of differences.
    ids = {attributes.get("id") for attributes in page.all("figure")}
    links = [one["href"][1:] for one in page.all("a") if one["href"].startswith("#photo")]
    assert sorted(links) == sorted(str(name) for name in ids if str(name).startswith("photo"))
    assert all(f"](figures/{name})" in (study / "report.md").read_text() for name in names)
    write_report(study)  # the runs are gone
    assert (study / "report.html").read_text() == text
    (study / "figures" / "worst_2.png").unlink()
    assert [picture.file for picture in kept_pictures(study)] == [names[0], names[2]]


def test_a_run_where_the_case_has_no_dice_or_that_failed_is_not_shown(runs: Path, tmp_path: Path) -> None:
    study = make_study(tmp_path, Made(preserved=False, devices=()))
    case = next(iter(chosen_cases(case_differences(analysis_of(study), "decoder_1-2"))))

    def empty(table: pd.DataFrame) -> None:  # both masks, in every class
        table.loc[table.case_id == case, "dice"] = np.nan

    change_cases(study, "decoder_1-2.fold_0.seed_0", empty)
    # Seed 1 is the first that scored the case, and there are no runs of it.
    assert case_pictures(analysis_of(study), "decoder_1-2", study, runs) == ()


def test_pictures_that_may_not_be_published_are_left_out(runs: Path, tmp_path: Path) -> None:
    study = make_study(tmp_path, Made(preserved=False, devices=()))
    change(study / "study.json", lambda plan: plan.update(pictures=False))
    write_report(study, runs_dir=runs)
    page = Page((study / "report.html").read_text())
    assert not page.all("img")
    assert "CC-BY-SA 4.0" in page.text[page.text.index("Pictures of cases are left out") :][:90]


def test_a_missing_prediction_is_announced(runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    part = Path(shutil.copytree(runs, tmp_path / "runs"))
    shutil.rmtree(part / "decoder_1-2" / "fold_0_seed_0" / "predictions")
    study = make_study(tmp_path / "study", Made(preserved=False, devices=()))
    assert case_pictures(analysis_of(study), "decoder_1-2", study, part) == ()
    assert str(part) in caplog.text


@pytest.mark.parametrize("file", ["../secret.png", "/etc/passwd", "worst_1.svg", "link"])
def test_a_list_of_pictures_that_leads_out_of_the_study_is_refused(tmp_path: Path, file: str) -> None:
    figures = tmp_path / "study" / "figures"
    figures.mkdir(parents=True)
    (tmp_path / "study" / "secret.png").write_bytes(b"secret")
    if file == "link":
        file = "worst_1.png"
        (figures / file).symlink_to(tmp_path / "study" / "secret.png")
    content = {"schema_version": 1, "pictures": [{"file": file, "alt": "", "source": ""}]}
    (figures / "worst.json").write_text(json.dumps(content))
    with pytest.raises(RunError) as caught:
        kept_pictures(tmp_path / "study")
    (problem,) = caught.value.problems
    assert (problem.kind, problem.value) == ("name", repr(file))


@pytest.mark.parametrize("content", ['{"schema_version": 2}', "{", '{"schema_version": 1, "pictures": 5}'])
def test_a_list_that_cannot_be_read_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "worst.json").write_text(content)
    with pytest.raises(RunError):
        kept_pictures(tmp_path)
