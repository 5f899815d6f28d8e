from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from seg.errors import Problem, RunError
from seg.evaluation.metrics import EMPTY_SCORES, METRICS, ClassScores, score_case
from seg.evaluation.scores import (
    CASE_COLUMNS,
    CaseScore,
    Evaluation,
    case_scores,
    read_cases,
    read_evaluation,
    write_evaluation,
)
from seg.evaluation.summary import format_evaluation, summarise

NAMES = ("background", "head", "tail")


def scores_of(dice: float, hd95_mm: float = 1.5) -> ClassScores:
    return ClassScores.from_names(dict.fromkeys(ClassScores().by_name(), dice) | {"hd95_mm": hd95_mm})


def evaluate(scores: list[CaseScore]) -> Evaluation:
    return summarise(scores, class_names=NAMES, nsd_tolerance_mm=1.5)


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, Evaluation, list[CaseScore]]:
    scores = []
    for number, (head, tail) in enumerate(np.random.default_rng(0).uniform(0.6, 1.0, (4, 2)).tolist()):
        both = {1: scores_of(head), 2: scores_of(tail)}
        scores += case_scores(both, case_id=f"case_{number}", class_names=NAMES, fold=0)
    scores += case_scores(
        {1: scores_of(0.0, math.inf), 2: EMPTY_SCORES}, case_id='odd, "id"', class_names=NAMES, patient="p", fold=1
    )
    evaluation = evaluate(scores)
    write_evaluation(tmp_path / "new" / "folder", evaluation, scores)
    return tmp_path / "new" / "folder", evaluation, scores


def test_results_are_read_as_they_were_written(written: tuple[Path, Evaluation, list[CaseScore]]) -> None:
    folder, evaluation, scores = written
    assert read_evaluation(folder) == read_evaluation(folder / "evaluation.json") == evaluation
    # NaN differs from itself, so records are compared as text.
    assert [repr(record) for record in read_cases(folder)] == [repr(record) for record in scores]
    assert evaluate(read_cases(folder / "cases.csv")) == evaluation
    assert sorted(path.name for path in folder.iterdir()) == ["cases.csv", "evaluation.json"]
    with (folder / "cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["case_id"], row["class_name"]) for row in rows] == [(s.case_id, s.class_name) for s in scores]
    assert (rows[-2]["hd95_mm"], rows[-1]["dice"], rows[-1]["fold"]) == ("inf", "nan", "1")
    (folder / "evaluation.json").unlink()  # which is written after the table
    assert len(read_cases(folder)) == len(scores)


def test_the_summary_is_strict_json_with_the_mean_at_the_top(
    written: tuple[Path, Evaluation, list[CaseScore]],
) -> None:
    folder, evaluation, _ = written

    def refuse(literal: str) -> None:
        raise AssertionError(literal)

    content = json.loads((folder / "evaluation.json").read_text(), parse_constant=refuse)
    assert list(content)[:3] == ["mean_dice", "mean_dice_ci95", "schema_version"]
    assert content["mean_dice"] == evaluation.mean_dice
    assert content["schema_version"] == 1
    assert content["nsd_tolerance_mm"] == 1.5
    tail = content["classes"][1]["metrics"]["dice"]
    assert list(tail) == ["mean", "sd", "ci95", "count", "nan", "infinite"]
    assert tail["nan"] == 1


def test_names_that_a_spreadsheet_would_run_are_escaped_in_the_table_alone(tmp_path: Path) -> None:
    names = ("background", "=1+1", "-x", "@x", "'=x", "\tx", "\rx", "'plain")
    given = ClassScores(dice=0.5, volume_difference_ml=-1.5, other={"=2": -2.0})
    scores = case_scores(dict.fromkeys(range(1, 8), given), case_id="+case", class_names=names, patient="@p")
    write_evaluation(tmp_path, summarise(scores, class_names=names, nsd_tolerance_mm=1.0), scores)
    assert [repr(record) for record in read_cases(tmp_path)] == [repr(record) for record in scores]
    assert read_evaluation(tmp_path).classes[0].name == "=1+1"
    with (tmp_path / "cases.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    cells = {cell for row in (header, *rows) for cell in row}
    assert {cell for cell in cells if cell.startswith(tuple("=+-@\t\r"))} == {"-1.5", "-2.0"}


def test_a_newer_summary_and_the_table_beside_it_are_refused(written: tuple[Path, Evaluation, list[CaseScore]]) -> None:
    path = written[0] / "evaluation.json"
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 2'))
    for read in (read_evaluation, read_cases):
        with pytest.raises(RunError) as caught:
            read(written[0])
        (problem,) = caught.value.problems
        assert (problem.path, problem.kind, problem.value) == (f"{path}: schema_version", "version", "2")


def test_scores_outlive_the_code(written: tuple[Path, Evaluation, list[CaseScore]], tmp_path: Path) -> None:
    # A table of another version: one column is unknown there, another is unknown here.
    folder, evaluation, scores = written
    with (folder / "cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows):
        del row["nsd"]
        row["assd_mm"] = str(number / 4)
    with (folder / "cases.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    read = read_cases(folder)
    assert [record.scores.other for record in read] == [{"assd_mm": number / 4} for number in range(len(rows))]
    assert all(math.isnan(record.scores.nsd) for record in read)
    assert repr([record.scores.dice for record in read]) == repr([record.scores.dice for record in scores])
    assert evaluate(read).mean_dice == evaluation.mean_dice
    # What was read is written again with all of its columns.
    write_evaluation(tmp_path / "again", evaluation, read)
    assert [repr(record) for record in read_cases(tmp_path / "again")] == [repr(record) for record in read]


def test_cases_left_out_by_an_earlier_version_are_sentences(written: tuple[Path, Evaluation, list[CaseScore]]) -> None:
    folder, evaluation, scores = written
    left_out = (Problem("case a", "counterpart", "must be in both"),)
    write_evaluation(folder, replace(evaluation, left_out=left_out), scores)
    assert read_evaluation(folder).left_out == left_out
    content = json.loads((folder / "evaluation.json").read_text())
    (folder / "evaluation.json").write_text(json.dumps(content | {"left_out": ["case a: lost."]}))
    assert [str(problem) for problem in read_evaluation(folder).left_out] == ["case a: lost."]


def test_a_summary_with_other_metrics_is_read(written: tuple[Path, Evaluation, list[CaseScore]]) -> None:
    path = written[0] / "evaluation.json"
    content = json.loads(path.read_text())
    for entry in content["classes"]:
        entry["metrics"]["assd_mm"] = entry["metrics"].pop("nsd")
    path.write_text(json.dumps(content | {"later": 1}))
    read = read_evaluation(path)
    assert read.classes[0].metrics["assd_mm"] == written[1].classes[0].metrics["nsd"]
    assert "nsd" not in read.classes[0].metrics
    assert "assd" not in format_evaluation(read)  # unknown here, so without a label; the row keeps its place


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ("{", ""),
        ("{}", ": schema_version"),
        ('{"schema_version": 1, "classes": 3}', ": mean_dice"),
        (f'{{"schema_version": 1, "num_cases": {"9" * 400}.5}}', ""),
    ],
)
def test_a_damaged_summary_is_refused(tmp_path: Path, content: str, where: str) -> None:
    path = tmp_path / "evaluation.json"
    with pytest.raises(RunError) as caught:
        read_evaluation(tmp_path)
    assert [(problem.path, problem.kind) for problem in caught.value.problems] == [(str(path), "missing")]
    path.write_text(content)
    with pytest.raises(RunError) as caught:
        read_evaluation(path)
    assert f"{path}{where}" in [problem.path for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("column", "cell", "place"),
    [
        ("class_index", "one", "[0].class_index"),
        ("class_index", "9" * 5000, "[0].class_index"),
        ("fold", "1.5", "[0].fold"),
        ("case_id", "", "[0].case_id"),
        ("dice", "", "[0].scores.dice"),
        *((share, cell, f"[0].{share}") for share in ("dice", "iou", "nsd") for cell in ("1.001", "-1", "inf", "-inf")),
        *((name, "-0.5", f"[0].{name}") for name in ("hd95_mm", "reference_ml", "prediction_ml")),
        ("volume_difference_ratio", "-1.5", "[0].volume_difference_ratio"),
    ],
)
def test_a_damaged_cell_is_named(
    written: tuple[Path, Evaluation, list[CaseScore]], column: str, cell: str, place: str
) -> None:
    path = written[0] / "cases.csv"
    header, first, *rest = path.read_text().splitlines()
    cells = first.split(",")
    cells[header.split(",").index(column)] = cell
    path.write_text("\n".join([header, ",".join(cells), *rest]))
    with pytest.raises(RunError) as caught:
        read_cases(path)
    assert [problem.path for problem in caught.value.problems] == [f"{path}: {place}"]


@pytest.mark.parametrize("cell", ["0", "1", "nan"])
def test_shares_at_the_ends_of_their_range_are_read(
    written: tuple[Path, Evaluation, list[CaseScore]], cell: str
) -> None:
    path = written[0] / "cases.csv"
    row = dict.fromkeys(path.read_text().splitlines()[0].split(","), "1") | dict.fromkeys(("dice", "iou", "nsd"), cell)
    row |= {"hd95_mm": "inf", "volume_difference_ratio": "inf", "volume_difference_ml": "-7"}
    path.write_text("\n".join([",".join(row), ",".join(row.values())]))
    (read,) = read_cases(path)
    assert repr(read.scores.dice) == repr(float(cell))


@pytest.mark.parametrize(
    "content",
    ["", "garbage", "garbage\n1\n", ",".join(CASE_COLUMNS) + ",dice\n", ",".join(CASE_COLUMNS) + "\na,a,0,1,head\n"],
)
def test_a_table_without_its_columns_or_rows_is_damaged(tmp_path: Path, content: str) -> None:
    path = tmp_path / "cases.csv"
    path.write_text(content)
    with pytest.raises(RunError) as caught:
        read_cases(path)
    assert [(problem.path, problem.kind) for problem in caught.value.problems] == [(str(path), "missing")]


@pytest.mark.parametrize("content", ['{"schema_version": 1}', '{"schema_version": 1, "classes": 3}'])
def test_a_table_beside_a_damaged_summary_is_refused(
    written: tuple[Path, Evaluation, list[CaseScore]], content: str
) -> None:
    path = written[0] / "evaluation.json"
    path.write_text(content)
    with pytest.raises(RunError) as caught:
        read_cases(written[0])
    assert all(problem.path.startswith(str(path)) for problem in caught.value.problems)


def test_the_registry_names_scores() -> None:
    assert set(METRICS) <= set(ClassScores().by_name())
    assert all(name == metric.name for name, metric in METRICS.items())
    # Better is what a perfect prediction has.
    mask = np.zeros((4, 4, 4), np.uint8)
    mask[1:3, 1:3, 1:3] = 1
    perfect = score_case(mask, mask, spacing_mm=(1, 1, 1), num_classes=2, nsd_tolerance_mm=1)[1].by_name()
    assert {name: perfect[name] for name in METRICS} == {
        name: 1.0 if metric.better == "higher" else 0.0 for name, metric in METRICS.items()
    }


def test_results_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    scores = case_scores({1: scores_of(0.9)}, case_id="a", class_names=NAMES)
    (tmp_path / "file").touch()
    with pytest.raises(RunError) as caught:
        write_evaluation(tmp_path / "file", evaluate(scores), scores)
    assert [(problem.path, problem.kind) for problem in caught.value.problems] == [(str(tmp_path / "file"), "folder")]


def test_scoring_needs_numpy_and_scipy_alone_and_reading_no_torch() -> None:
    code = "import seg.evaluation.metrics, sys; print({'torch', 'pydantic', 'nibabel', 'pandas'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"
    code = "import seg.evaluation.summary, seg.runs, sys; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
