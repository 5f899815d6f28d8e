from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from seg.errors import RunError
from seg.evaluation.metrics import EMPTY_SCORES, ClassScores
from seg.evaluation.scores import CaseScore, Evaluation, case_scores, read_cases, read_evaluation, write_evaluation
from seg.evaluation.summary import summarise

NAMES = ("background", "head", "tail")


def scores_of(dice: float, hd95_mm: float = 1.5) -> ClassScores:
    return ClassScores(**{field.name: dice for field in fields(ClassScores)} | {"hd95_mm": hd95_mm})


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


def test_the_table_of_cases_has_a_row_for_each_case_and_class(
    written: tuple[Path, Evaluation, list[CaseScore]],
) -> None:
    folder, _, scores = written
    with (folder / "cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["case_id"], row["class_name"]) for row in rows] == [(s.case_id, s.class_name) for s in scores]
    assert float(rows[0]["dice"]) == scores[0].scores.dice
    assert (rows[-2]["hd95_mm"], rows[-1]["dice"], rows[-1]["fold"]) == ("inf", "nan", "1")


def test_a_newer_summary_and_the_table_beside_it_are_refused(written: tuple[Path, Evaluation, list[CaseScore]]) -> None:
    path = written[0] / "evaluation.json"
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 2'))
    message = f"{path}: schema version must be at most 1, got 2; it was written by a newer release, update seg."
    for read in (read_evaluation, read_cases):
        with pytest.raises(RunError) as caught:
            read(written[0])
        assert caught.value.sentences == (message,)


def test_a_table_without_its_summary_is_read(written: tuple[Path, Evaluation, list[CaseScore]]) -> None:
    (written[0] / "evaluation.json").unlink()  # which is written after it
    assert [repr(record) for record in read_cases(written[0])] == [repr(record) for record in written[2]]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"schema_version": 1}', '{"schema_version": 1, "classes": 3}']
)
def test_a_damaged_summary_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text(content)
    with pytest.raises(RunError, match=r"evaluation\.json: must be a complete result file, got .*evaluate again\.$"):
        read_evaluation(path)


@pytest.mark.parametrize("row", ["case_id,dice\na,0.5\n", "bytes"])
def test_a_damaged_table_is_refused(written: tuple[Path, Evaluation, list[CaseScore]], row: str) -> None:
    path = written[0] / "cases.csv"
    path.write_bytes(b"\xff\xfe" if row == "bytes" else row.encode())
    with pytest.raises(RunError, match=r"cases\.csv: must be a complete result file, got .*; .*evaluate again\.$"):
        read_cases(path)


def test_missing_results_are_named(tmp_path: Path) -> None:
    message = f"cannot read {tmp_path / 'evaluation.json'}: No such file or directory; give the output folder of an"
    with pytest.raises(RunError) as caught:
        read_evaluation(tmp_path)
    assert str(caught.value).startswith(message)


def test_results_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    scores = case_scores({1: scores_of(0.9)}, case_id="a", class_names=NAMES)
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"must be writable, got '.*'; free space or choose another folder\.$"):
        write_evaluation(tmp_path / "file", evaluate(scores), scores)


def test_reading_results_needs_no_torch() -> None:
    code = "import seg.evaluation, sys; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
