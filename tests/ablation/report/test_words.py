"""What tables and methods say once, leave out or mark: by the texts of made-up studies."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from seg.ablation.report import write_report
from seg.ablation.report.analysis import Analysis, analyse
from seg.ablation.report.assemble import title
from seg.ablation.report.document import Bullets, Text
from seg.ablation.report.methods import grouped, methods
from seg.ablation.report.study import DeviceSpeed
from seg.ablation.report.tables_class import class_table
from seg.ablation.report.tables_cost import speed_table
from seg.ablation.report.tables_dice import limits, main_table
from seg.ablation.report.tables_learning import convergence_sentences, convergence_table
from seg.ablation.report.trials import read_records
from tests.ablation.report.page import Page
from tests.ablation.report.studies import VARIANTS, Made, make_study

NAMES = [row[0] for row in VARIANTS]


def change(path: Path, alter: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    alter(content)
    path.write_text(json.dumps(content))


def read(folder: Path) -> Analysis:
    return analyse(read_records(folder))


def test_nominal_spacing_leaves_distances_out_of_every_file(tmp_path: Path) -> None:
    change(make_study(tmp_path) / "study.json", lambda content: content.update(nominal_spacing=True))
    page = Page(write_report(tmp_path))
    why = "HD95 and NSD are left out: voxel spacing in the headers is nominal, so distances mean nothing."
    assert page.text.count(why) == 2
    assert len(re.findall("HD95|NSD", page.text)) == 4
    assert class_table(read(tmp_path)).columns == ("Variant", "Class", "Dice")
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    distances = [row for row in rows if row["metric"].startswith(("hd95", "nsd"))]
    assert len(distances) == 2 * 3 * (len(NAMES) - 1)
    assert {(row["value"], row["low"], row["high"], row["interval"]) for row in distances} == {("left out", "", "", "")}
    figures = json.loads((tmp_path / "results.json").read_text())["figures"]
    assert all(one["value"] is None for one in figures if one["metric"].startswith(("hd95", "nsd")))


def test_pictures_that_may_not_be_published_are_left_out_with_the_reason(tmp_path: Path) -> None:
    make_study(tmp_path)
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "worst_1.png").write_bytes(b"")
    kept = {"schema_version": 1, "pictures": [{"file": "worst_1.png", "alt": "a", "source": "s"}]}
    (tmp_path / "figures" / "worst.json").write_text(json.dumps(kept))
    change(tmp_path / "study.json", lambda content: content.update(pictures=False))
    page = Page(write_report(tmp_path))
    assert (
        "Pictures of cases are left out: the licence of the data (CC-BY-SA 4.0) does not allow them to be published "
        "here."
    ) in page.text
    assert not any(picture["src"].startswith("data:image/png") for picture in page.all("img"))


def test_notes_stand_under_the_methods(tmp_path: Path) -> None:
    assert len(methods(read(make_study(tmp_path)))) == 1
    change(tmp_path / "study.json", lambda content: content.update(notes=["Two more seeds.", "One fold."]))
    assert methods(read(tmp_path))[1:] == [
        Text(text="Notes on this study:"),
        Bullets(items=("Two more seeds.", "One fold.")),
    ]


def test_the_number_of_training_cases_is_in_the_title_and_the_methods(tmp_path: Path) -> None:
    assert title(read(make_study(tmp_path))) == "bottleneck <small>"
    change(tmp_path / "study.json", lambda content: content["training"].update(train_cases=10))
    analysis = read(tmp_path)
    assert title(analysis) == "bottleneck <small> (10 training cases, 12 scored)"
    (said,) = [one for one in methods(analysis)[0].items if one.startswith("Data: ")]  # type: ignore[union-attr]
    assert "60 cases, of which 12 are scored; 10 training cases, the same for every variant and seed; classes" in said


def test_with_too_few_runs_it_is_said_once(tmp_path: Path) -> None:
    analysis = read(make_study(tmp_path, Made(seeds=(0, 1))))
    table = main_table(analysis)
    assert (
        "No verdict on non-inferiority is given: at least three training runs per variant are needed, and this study "
        "has two."
    ) in table.caption
    assert [column for column in table.columns if "inferior" in column or "Holm" in column] == []
    assert limits(analysis) == []
    assert "are needed" not in " ".join(cell.text + cell.note for cells in table.rows for cell in cells)
    # Where some variants have enough, the others say so, together.
    absent = tuple(f"{name}.fold_0.seed_2" for name in ("skip_1-4", "flat_16"))
    some = read(make_study(tmp_path / "some", Made(absent=absent)))
    assert limits(some) == ["skip_1-4 and flat_16: 2 training runs: never called not inferior, which takes 3."]
    (cells,) = [cells for cells in main_table(some).rows if cells[0].text == "1 skip_1-4"]
    assert (cells[1].text, cells[8].text, cells[8].note) == ("no", "no", "2 runs")


def test_an_interval_that_was_cut_is_marked(tmp_path: Path) -> None:
    analysis = read(make_study(tmp_path, Made(noise=0.3, devices=())))
    table = main_table(analysis)
    assert "(cut) marks one that was cut where no Dice can be" in table.caption
    for cells in table.rows:
        ends = analysis.mean_dice[cells[0].text.split()[1]].ci95
        assert ends is not None
        assert cells[6].note.endswith(" (cut)") == (0.0 in ends or 1.0 in ends)
    assert any(cells[6].note.endswith(" (cut)") for cells in table.rows)
    assert "cut" not in main_table(read(make_study(tmp_path / "calm"))).caption


def test_cases_without_either_mask_are_counted_by_class(tmp_path: Path) -> None:
    assert "Both empty" not in class_table(read(make_study(tmp_path))).columns
    for path in [*tmp_path.glob("trials/baseline.*/cases.csv"), *tmp_path.glob("trials/skip_1-4.*/cases.csv")]:
        lines = path.read_text().splitlines()
        at = lines[0].split(",").index("dice")
        for number in (1, 3):  # of two cases
            cells = lines[number].split(",")
            cells[at] = "nan"
            lines[number] = ",".join(cells)
        path.write_text("\n".join(lines) + "\n")
    table = class_table(read(tmp_path))
    assert table.columns[3] == "Both empty"
    counts = {(cells[0].text, cells[1].text): cells[3].text for cells in table.rows}
    assert counts["skip_1-4", "anterior"] == "2"
    assert (counts["skip_1-4", "posterior"], counts["skip_1-16", "anterior"]) == ("0", "0")


def test_columns_of_what_nobody_knows_are_left_out(tmp_path: Path) -> None:
    make_study(tmp_path)
    assert len(convergence_table(read(tmp_path)).columns) == 10
    for log in tmp_path.glob("trials/*/metrics.csv"):
        head, *rows = log.read_text().splitlines()
        log.write_text("\n".join([head, *rows[6:]]) + "\n")  # the first of them is at step 700, long after the rise
    table = convergence_table(read(tmp_path))
    assert len(table.columns) == 9
    assert "Over the baseline's steps" not in table.columns
    assert (
        "Validation came every 100 steps, and 7 of 7 variants had a run past 95 % before the first one: steps are then "
        "an upper bound, and their ratio is not known. Not known of any variant, so without a column: over the "
        "baseline's steps."
    ) in table.caption


@pytest.mark.parametrize(
    ("train", "validation", "said"),
    [
        (-0.03, -0.01, "training Dice fell more than validation Dice for skip_1-4"),
        (-0.01, -0.03, "validation Dice fell more than training Dice for skip_1-4"),
        (0.01, 0.03, "validation Dice rose more than training Dice for skip_1-4"),
        (0.03, 0.01, "training Dice rose more than validation Dice for skip_1-4"),
        (-0.01, 0.01, "validation Dice rose and training Dice fell for skip_1-4"),
    ],
)
def test_a_gap_is_told_by_what_moved(whole: Path, train: float, validation: float, said: str) -> None:
    analysis = read(whole)
    base, own = analysis.gaps["baseline"], analysis.gaps["skip_1-4"]
    middle = train - validation
    moved = replace(
        own,
        train=base.train + train,
        validation=base.validation + validation,
        difference=replace(own.difference, mean=middle, ci95=(middle - 0.001, middle + 0.001)),
    )
    sentence = convergence_sentences(replace(analysis, gaps={"baseline": base, "skip_1-4": moved}))[-1]
    assert sentence == (
        f"Generalisation, by training less validation Dice against the baseline's: {said} (95 % t intervals over runs, "
        "uncorrected, of 1 variant)."
    )


@pytest.mark.parametrize(
    ("load", "cores", "said"), [(2.184, 2, True), (1.0, 2, False), (2.184, 16, False), (None, 2, False)]
)
def test_another_load_on_the_machine_is_told(load: float | None, cores: int, said: bool) -> None:
    about = {"device": "Test", "kind": "cpu", "load_1min": load, "environment": {"cores": cores}}
    caption = speed_table(DeviceSpeed(about=about, variants={}), ("baseline",)).caption
    words = "Before it began another load of 2.18 was on the machine: read small differences with care."
    assert (words in caption) == said
    assert ("load" in caption) == said


def test_a_table_that_was_taken_from_another_study_says_so() -> None:
    device = DeviceSpeed(about={"device": "Test", "kind": "cpu", "copied_from": "wide"}, variants={})
    assert speed_table(device, ("baseline",)).caption.endswith(
        " Not measured anew: copied from the study wide, whose networks are the same."
    )


def test_a_kind_of_device_without_a_measurement_is_named(tmp_path: Path) -> None:
    assert "On a GPU: not measured." in Page(write_report(make_study(tmp_path / "a", Made(devices=("cpu",))))).text
    assert (
        "On a processor: not measured." in Page(write_report(make_study(tmp_path / "b", Made(devices=("cuda",))))).text
    )


def test_many_trials_are_named_in_few_words(whole: Path) -> None:
    analysis = read(whole)
    trials = list(analysis.records.trials)
    assert grouped(trials, analysis) == "seeds 0 to 2: all variants"
    some = [one for one in trials if not one.startswith(("skip_1-4.", "flat_16.")) or one.endswith("seed_1")]
    assert grouped(some, analysis) == "seeds 0 and 2: all variants but skip_1-4 and flat_16; seed 1: all variants"
    few = ["baseline.fold_0.seed_0", "skip_1-4.fold_0.seed_0"]
    assert grouped(few, analysis) == "seed 0: baseline and skip_1-4"
