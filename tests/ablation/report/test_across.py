"""Several studies side by side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seg.ablation.report import TABLE_FILE, write_comparison, write_report
from seg.ablation.report.numbers import fixed
from seg.errors import RunError
from tests.ablation.report.studies import Made, make_study


def named(folder: Path, name: str, made: Made) -> Path:
    """Makes a study of another name, whose decoder_1-2 is called half there."""
    text = (make_study(folder, made) / "study.json").read_text()
    content = json.loads(text)
    content["name"] = name
    (folder / "study.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def studies(tmp_path: Path) -> list[Path]:
    """Two studies; in the second skip_1-16 was not run and decoder_1-2 loses much."""
    absent = tuple(f"skip_1-16.fold_0.seed_{seed}" for seed in range(3))
    return [
        named(tmp_path / "one", "easy", Made()),
        named(tmp_path / "two", "hard", Made(losses={"decoder_1-2": 0.1}, absent=absent)),
    ]


def cells(file: Path, head: str) -> list[str]:
    (line,) = [line for line in file.read_text().splitlines() if line.startswith(f"| {head}")]
    return [cell.strip() for cell in line.strip("|").split("|")[1:]]


def test_each_cell_is_what_the_study_itself_reports(studies: list[Path], tmp_path: Path) -> None:
    file = write_comparison(studies, tmp_path / "docs" / "all.md")
    easy, hard = cells(file, r"decoder\_1-2")
    for folder, cell in zip(studies, (easy, hard), strict=True):
        write_report(folder)
        rows = (folder / TABLE_FILE).read_text().splitlines()
        (value,) = [row.split(",")[7] for row in rows if row.startswith("decoder_1-2,dice_difference,,")]
        assert cell.startswith(fixed(float(value), 4, sign=True))
    assert hard.startswith("\N{MINUS SIGN}0.0996")  # 0.1 was lost, beside noise
    assert hard.endswith("; 3 runs")
    assert easy.endswith("; not inferior")
    assert cells(file, r"skip\_1-16")[1] == "not measured"
    assert cells(file, "Variant") == ["easy", "hard"]
    text = file.read_text()
    assert "Off the scale, drawn at its edge: " in text
    assert r"in 2 studies. Not inferior in any class: skip\_1-4" in text
    assert "in hard. The values stand in the table above.](figures/all.svg)" in text
    picture = tmp_path / "docs" / "figures" / "all.svg"
    assert "figures/all.svg" in file.read_text()
    before = picture.read_bytes()
    write_comparison(studies, tmp_path / "docs" / "all.md")
    assert picture.read_bytes() == before


def test_it_begins_with_what_is_shown_of_each_variant(studies: list[Path], tmp_path: Path) -> None:
    text = write_comparison(studies, tmp_path / "all.md").read_text().replace("\\_", "_").replace("\N{MINUS SIGN}", "-")
    lead = text.split("\n\n")[1]
    assert lead == (
        "**Shown within the margin: skip_1-4 in 2 of 2 studies, skip_1-16 in 1 of 1 study and decoder_1-2 in 1 of 2 "
        "studies. Every study that has it shows a loss of mean Dice of decoder_1-4, skip_1-4_decoder_1-4 and flat_16. "
        "No study shows a loss of mean Dice of skip_1-4, which does not show that there is none.**"
    )
    (half,) = [line for line in text.splitlines() if line.startswith("- decoder_1-2")]
    easy, hard = (
        cell.split("<br>")[0].replace("\N{MINUS SIGN}", "-") for cell in cells(tmp_path / "all.md", r"decoder\_1-2")
    )
    assert half == (
        f"- decoder_1-2 (decoder bottleneck at 1/2 of the stage's channels): {hard} (hard) to {easy} (easy); of 2 "
        "studies shown within the margin in 1, a loss of mean Dice shown in 1 (hard)."
    )


def test_a_name_is_no_proof_of_one_variant(studies: list[Path], tmp_path: Path) -> None:
    content = json.loads((studies[1] / "study.json").read_text())
    (other,) = [variant for variant in content["variants"] if variant["name"] == "decoder_1-2"]
    other["changes"] = {"network.decoder_bottleneck": {"ratio": 0.4}}
    (studies[1] / "study.json").write_text(json.dumps(content))
    assert "decoder" not in write_comparison(studies, tmp_path / "all.md").read_text().split("decoder\\_1-4")[0]


def test_studies_that_cannot_be_compared_are_refused(studies: list[Path], tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"studies must have names of their own, got 'easy' twice; leave one out\."):
        write_comparison([studies[0], studies[0]], tmp_path / "all.md")
    content = json.loads((studies[1] / "study.json").read_text())
    for number, variant in enumerate(content["variants"][1:]):
        variant["changes"] = {"network.channels": [number, 8]}
    (studies[1] / "study.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"the studies easy, hard must share a variant, got none; compare others\."):
        write_comparison(studies, tmp_path / "all.md")
