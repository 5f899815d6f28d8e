"""Several studies side by side, and the evidence that a report reads from them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from seg.ablation.plan import read_study
from seg.ablation.report import write_comparison, write_report
from seg.ablation.report.analysis import analyse
from seg.ablation.report.compare import read_evidence, study_verdict
from seg.ablation.store import read_results
from seg.cli import read_command
from seg.errors import RunError
from seg.words import fixed
from tests.ablation.report.studies import Made, change, make_study
from tests.problems import refused


def named(folder: Path, name: str, made: Made) -> Path:
    change(make_study(folder, made) / "study.json", lambda plan: plan.update(name=name))
    return folder


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two studies; in the second skip_1-16 was not run and decoder_1-2 loses much."""
    root = tmp_path_factory.mktemp("studies")
    light: dict[str, Any] = {"preserved": False, "devices": ()}
    absent = tuple(f"skip_1-16.fold_0.seed_{seed}" for seed in range(3))
    return [
        named(root / "one", "easy", Made(**light)),
        named(root / "two", "hard | <b>", Made(losses={"decoder_1-2": 0.1}, absent=absent, **light)),
    ]


def cells(file: Path, head: str) -> list[str]:
    (line,) = [line for line in file.read_text().splitlines() if line.startswith(f"| {head}")]
    return [cell.strip() for cell in line.strip("|").split("|")[1:]]


def test_each_cell_is_what_the_study_itself_reports(studies: list[Path], tmp_path: Path) -> None:
    file = write_comparison(studies, tmp_path / "docs" / "all.md")
    safe, *found = cells(file, "decoder ×1/2")
    assert safe == "1 of 2"
    for folder, cell, word in zip(studies, found, ("safe", "costs"), strict=True):
        effect = analyse(read_results(folder)).comparisons["decoder_1-2"].dice
        assert effect is not None
        assert cell.startswith(fixed(effect.difference, 4, sign=True))
        assert cell.endswith(f"<br>{word}")
    assert cells(file, "skips ×1/16")[2] == "not measured"
    assert (tmp_path / "docs" / "figures" / "all.svg").is_file()
    assert "<b>" not in file.read_text()
    before = file.read_bytes()
    write_comparison(studies, file)
    assert file.read_bytes() == before


def test_verdicts_go_to_a_table_that_reports_read_their_evidence_from(studies: list[Path], tmp_path: Path) -> None:
    write_comparison(studies, tmp_path / "all.md")
    assert len(pd.read_csv(tmp_path / "studies.csv")) == 12
    evidence = read_evidence(tmp_path / "studies.csv", read_study(studies[0]))
    assert (evidence["decoder_1-2"].safe, evidence["decoder_1-2"].tried) == (1, 2)
    assert (evidence["skip_1-4"].safe, evidence["skip_1-4"].tried) == (2, 2)
    assert "baseline" not in evidence
    (tmp_path / "link.csv").symlink_to(tmp_path / "studies.csv")
    assert read_evidence(tmp_path / "link.csv", read_study(studies[0])) == {}
    (tmp_path / "damaged.csv").write_text("changes,verdict\n")
    with refused((str(tmp_path / "damaged.csv"), "missing")):
        read_evidence(tmp_path / "damaged.csv", read_study(studies[0]))


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"name;\xe9\n1;2;3\n", b"\x00\xff"])
def test_a_table_of_somebody_else_beside_a_study_is_left_alone(
    content: bytes, studies: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "studies.csv").write_bytes(content)
    study = Path(shutil.copytree(studies[0], tmp_path / "study"))
    assert write_report(study).is_file()
    assert (tmp_path / "studies.csv").read_bytes() == content
    assert [str(tmp_path / "studies.csv") in message for message in caplog.messages] == [True]


@pytest.mark.parametrize("name", ["all.md", "studies.csv", "figures/all.svg"])
def test_a_comparison_replaces_no_file_of_somebody_else(name: str, studies: list[Path], tmp_path: Path) -> None:
    own = tmp_path / "out" / name
    own.parent.mkdir(parents=True)
    own.write_text("my own\n")
    with refused((str(own), "exists")):
        write_comparison(studies, tmp_path / "out" / "all.md")
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == [own]
    assert own.read_text() == "my own\n"


def test_studies_of_one_name_or_without_a_common_variant_are_refused(studies: list[Path], tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        write_comparison([studies[0], studies[0]], tmp_path / "all.md")
    assert [problem.kind for problem in caught.value.problems] == ["twice"]
    other = named(tmp_path / "other", "other", Made(preserved=False, devices=()))

    def replan(plan: dict[str, Any]) -> None:
        for number, variant in enumerate(plan["variants"][1:]):
            variant["changes"] = {"network.channels": [number, 8]}

    change(other / "study.json", replan)
    with pytest.raises(RunError) as caught:
        write_comparison([studies[0], other], tmp_path / "all.md")
    assert [problem.kind for problem in caught.value.problems] == ["nothing"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "(margin 0.005, corrected for 6 variants of the study easy): not shown; undecided, bound "),
        (["--margin", "0.006"], "(margin 0.006, one-sided 97.5 %, uncorrected): shown; "),
    ],
)
def test_two_variants_of_a_study_have_the_verdict_of_the_study(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    """Alone the variant passes at the study's margin, among six it does not."""
    folder = named(tmp_path, "easy", Made(losses={"decoder_1-2": 0.002}, noise=0.0008, preserved=False, devices=()))
    sides = {
        side: [str(folder / "trials" / f"{name}.fold_0.seed_{seed}") for seed in range(3)]
        for side, name in (("--baseline", "baseline"), ("--variant", "decoder_1-2"))
    }
    read_command("compare", [word for side, runs in sides.items() for word in (side, *runs)] + options).run()
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("not inferior in every class")]
    assert line.removeprefix("not inferior in every class ").startswith(words)


def test_runs_of_no_study_have_no_verdict(studies: list[Path]) -> None:
    baseline, variant = (studies[0] / "runs" / name / "fold_0_seed_0" for name in ("baseline", "decoder_1-2"))
    found = study_verdict([baseline], [variant])
    assert found is not None
    assert (found[0].name, found[1].variant) == ("easy", "decoder_1-2")
    for before, after in (
        ([variant], [baseline]),
        ([baseline], [variant, baseline]),
        ([baseline], [studies[1] / "runs" / "decoder_1-2" / "fold_0_seed_0"]),
        ([studies[0]], [studies[0]]),
    ):
        assert study_verdict(before, after) is None
