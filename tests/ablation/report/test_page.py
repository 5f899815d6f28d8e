"""The page and the Markdown of a report: what they show, and that data in them cannot run."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import markdown
import pandas as pd
import pytest
from markdown_it import MarkdownIt

from seg.ablation.report import plots, write_report
from seg.errors import RunError
from seg.figures.svg import Picture
from tests.ablation.report.studies import CLASSES, VARIANTS, Made, change, change_cases, make_study, value
from tests.pages import Page

ROOT = Path(__file__).parents[3]
HOSTILE = (
    "\x0c\x1b<script>alert(1)</script>\"'><img src=x onerror=alert(1)>[a](javascript:alert(1)) | `*_ &amp; {{7*7}}"
)


def page(folder: Path) -> Page:
    return Page((folder / "report.html").read_text())


def signed(number: float) -> str:
    return f"{number:+.4f}".replace("-", "\N{MINUS SIGN}")


def lower(trial: str, study: Path, loss: float) -> None:
    change_cases(study, trial, lambda table: table.__setitem__("dice", table["dice"] - loss))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the pictures of a report empty, which take longer than the rest, for tests of its words."""
    empty = "<svg></svg>"
    monkeypatch.setattr(
        plots, "to_picture", lambda _, name, alt, __: Picture(name=name, alt=alt, file=empty, inline=empty)
    )


def test_the_card_says_what_to_build_and_on_what_grounds(whole: Path) -> None:
    text = page(whole).text
    card = text[text.index("Build: ") : text.index("Variants", text.index("Build: "))]
    row = value(whole, "decoder_1-2", "dice_difference")
    assert card.startswith("Build: decoder ×1/2")
    assert f"{signed(row['value'])} ({signed(row['low'])} to {signed(row['high'])})" in card
    assert "1.49× network, 1.35× file to file" in card  # 180 / 121 and 230 / 171
    assert "221 MiB, baseline 280" in card
    assert "48 %" in card  # 9.1 of 19.1 GMAC
    assert "1 study, 1 fold" in card
    assert "network:\n  decoder_bottleneck: {ratio: 0.5}" in card


def test_the_main_table_shows_verdicts_bounds_and_every_device(whole: Path) -> None:
    shown = page(whole)
    rows = shown.rows("Verdict")
    difference = value(whole, "decoder_1-2", "dice_difference")["value"]
    assert next(iter(rows)) == "baseline"
    assert [name for name in rows if rows[name]["Verdict"] == "safe"] == ["skips ×1/4", "skips ×1/16", "decoder ×1/2"]
    assert rows["decoder ×1/2"]["Dice difference"].startswith(signed(difference))
    assert rows["flat 16"]["GMAC"] == "3.00"
    bound = float(rows["decoder ×1/2"]["Deciding bound"].split("|")[0].replace("\N{MINUS SIGN}", "-"))
    assert -0.005 < bound < difference
    assert len([one for one in shown.all("tr") if one.get("class") == "winner"]) == 1
    assert len(shown.all("option")) == 2
    hidden = [attributes for _, attributes in shown.elements if "hidden" in attributes]
    assert {attributes["data-device"] for attributes in hidden} == {"1"}
    assert sum(bool(re.fullmatch(r"-?[0-9.e-]+", one.get("data-sort", ""))) for one in shown.all("td")) > 7 * 6


@pytest.mark.usefixtures("undrawn")
def test_evidence_from_several_studies_stands_on_the_card(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", Made(preserved=False))
    changes = json.dumps({"network.decoder_bottleneck.ratio": 0.5})
    words = ["safe", "costs", "undecided"]
    pd.DataFrame({"changes": changes, "verdict": words}).to_csv(tmp_path / "studies.csv", index=False)
    write_report(study)
    assert "safe in 1 of 3 studies" in page(study).text
    assert "safe in 1 of 3 studies" in (study / "report.md").read_text()


ALL_LOSE = dict.fromkeys(("skip_1-4", "skip_1-16", "decoder_1-2"), 0.02)
ALL = [f"{row.name}.fold_0.seed_{seed}" for row in VARIANTS for seed in range(3)]


@pytest.mark.parametrize(
    ("made", "answer"),
    [
        (Made(losses=ALL_LOSE, preserved=False, devices=()), "No recommendation"),
        (Made(losses={"decoder_1-2": 0.02}, devices=("cpu",), preserved=False), "Build: skips ×1/16"),
        (Made(absent=tuple(ALL), devices=()), "No recommendation"),
        (Made(absent=tuple(ALL[:3]), devices=()), "No recommendation"),
        (Made(seeds=(0, 1), preserved=False, devices=("cpu",)), "No recommendation"),
    ],
    ids=["all lose", "another is the fastest", "nothing run", "no baseline", "too few runs, no preservation"],
)
def test_the_answer_follows_the_evidence_however_little_is_known(tmp_path: Path, made: Made, answer: str) -> None:
    write_report(make_study(tmp_path, made))
    assert answer in page(tmp_path).text


@pytest.mark.usefixtures("undrawn")
def test_a_safe_variant_slower_than_the_baseline_is_not_sold_as_a_gain(tmp_path: Path) -> None:
    made = Made(losses={"skip_1-4": 0.02, "decoder_1-2": 0.02}, devices=("cpu",), preserved=False)
    make_study(tmp_path, made)
    slow = {"latency_ratio": {"median": 0.9, "q1": 0.8, "q3": 0.95}}
    change(tmp_path / "speed.json", lambda content: content["devices"][0]["variants"][2].update(slow))
    write_report(tmp_path)
    assert "Keep the baseline" in page(tmp_path).text
    assert not [one for _, one in page(tmp_path).elements if one.get("class") == "winner"]


def test_a_run_that_failed_to_train_is_named_and_makes_its_variant_unstable(tmp_path: Path) -> None:
    lower("decoder_1-2.fold_0.seed_1", make_study(tmp_path, Made(preserved=False)), 0.4)
    write_report(tmp_path)
    shown = page(tmp_path)
    assert shown.rows("Verdict")["decoder ×1/2"]["Verdict"].startswith("unstable")
    assert "decoder ×1/2 is unstable" in shown.text
    assert "the run of fold 0, seed 1 failed" in shown.text
    assert "Build: skips ×1/16" in shown.text  # the fastest of those that are safe


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("margins", "words"),
    [
        ([], "no record says when it was named"),
        ([0.005], "which was named on 2026-10-01, before the first result"),
        ([0.002, 0.005], "which was changed after the first result"),
    ],
)
def test_a_margin_is_called_named_before_only_where_a_record_says_so(
    tmp_path: Path, margins: list[float], words: str
) -> None:
    study = make_study(tmp_path, Made(preserved=False, devices=()))
    same = {"folds": [0], "seeds": [0, 1, 2], "variants": {}}
    named = [same | {"date": f"2026-10-0{day}", "margin": margin} for day, margin in enumerate(margins, 1)]
    change(study / "study.json", lambda plan: plan.update(named=named))
    write_report(study)
    assert f"at the margin of 0.005{',' if margins else ';'} {words}" in " ".join(page(study).text.split())
    told = "2026-10-02: margin from 0.002 to 0.005"
    assert (told in page(study).text) == (len(margins) > 1)
    assert (told in (study / "report.md").read_text()) == (len(margins) > 1)


@pytest.mark.usefixtures("undrawn")
def test_cases_that_were_left_out_are_named(tmp_path: Path) -> None:
    study = make_study(tmp_path, Made(preserved=False, devices=()))
    change(study / "study.json", lambda plan: plan["data"].update(left_out=["case_7", "case_9"]))
    write_report(study)
    for text in (page(study).text, (study / "report.md").read_text().replace("&#95;", "_")):
        assert "Left out as faulty, in training and scores: case_7, case_9." in text


@pytest.mark.usefixtures("undrawn")
def test_unequal_arithmetic_within_a_pair_is_said_beside_the_verdict(tmp_path: Path) -> None:
    study = make_study(tmp_path, Made(preserved=False, devices=()))
    about = {"precision": "bf16", "instruction_sets": ["avx2"], "packages": {"torch": "2.1"}}
    other = {"precision": "fp32", "instruction_sets": ["avx2", "avx512"], "packages": {"torch": "2.2"}}
    for path in study.glob("trials/*/environment.json"):
        changed = path.parent.name == "skip_1-4.fold_0.seed_1"
        change(path, lambda content, changed=changed: content.update(other if changed else about))
    write_report(study)
    cells = page(study).rows("Verdict")
    said = "computed with other precision, instruction sets, torch"
    assert [name for name in cells if said in cells[name]["Verdict"]] == ["skips ×1/4"]
    mixed = "Precisions are mixed: bf16 in 20 trials, fp32 in 1 trial."
    text = " ".join(page(study).text.split())
    assert mixed in text
    assert "precision fp32 beside bf16; instruction sets avx2 avx512 beside avx2; torch 2.2 beside 2.1." in text
    markdown_text = (study / "report.md").read_text().replace("**", "")
    assert mixed in markdown_text
    assert said in markdown_text


@pytest.mark.usefixtures("undrawn")
def test_what_a_variant_does_not_share_with_the_baseline_is_said(tmp_path: Path) -> None:
    study = make_study(tmp_path, Made(preserved=False, devices=()))
    write_report(study)
    said = "skips ×1/4 is not trained as the baseline is but for the network: augmentation.spatial.shift, patches.size"
    plain = " ".join(page(study).text.split())
    assert said not in plain
    assert "Every variant has the same cases" in plain

    def vary(plan: dict[str, Any]) -> None:
        (variant,) = (one for one in plan["variants"] if one["name"] == "skip_1-4")
        variant["unequal"] = ["augmentation.spatial.shift", "patches.size"]

    change(study / "study.json", vary)
    write_report(study)
    text = " ".join(page(study).text.split())
    assert f"{said} are other." in text
    assert text.count("not as the baseline: augmentation.spatial.shift, patches.size") == 1
    assert "not as the baseline" not in plain
    assert "those of patches and batches of its own" in text
    assert "Every variant has the same cases" not in text
    (row,) = (line for line in (study / "report.md").read_text().splitlines() if "not as the baseline" in line)
    assert row.startswith("| skips ×1/4 |")
    assert "not as the baseline: augmentation.spatial.shift, patches.size" in row
    assert "**Build: decoder ×1/2.**" in (study / "report.md").read_text()
    change(study / "study.json", lambda plan: [one.update(unequal=["training.steps"]) for one in plan["variants"][1:]])
    write_report(study)
    assert "**Build: " not in (study / "report.md").read_text()


def test_gaps_are_named(partial: Path) -> None:
    shown = page(partial)
    assert "16 of 21 trials are finished" in shown.text
    assert shown.rows("Verdict")["skips ×1/16"]["Dice difference"] == "not measured"
    trials = shown.rows("Trial")
    failed = trials["decoder_1-4.fold_0.seed_1"]
    assert (failed["Status"], failed["Error"]) == ("failed", "RuntimeError: out of memory")
    assert sum(row["Status"] == "not run" for row in trials.values()) == 4


def test_classes_speed_preservation_and_convergence_are_folded(whole: Path) -> None:
    shown = page(whole)
    assert len(shown.all("details")) == 7
    assert {row["Class"] for row in shown.rows("Class").values()} == {CLASSES[2]}  # the last row of each variant
    assert shown.rows("NSD difference")
    assert shown.rows("Place")["skips ×1/4"]["R²"]
    assert shown.rows("Throughput (million voxels/s)")["baseline"]["Network (ms)"].startswith("7.20")  # the GPU's
    assert shown.rows("Training less held-out Dice")["skips ×1/4"]["The same, less the baseline's"] == "+0.0040"


def test_the_page_needs_no_other_file_and_its_policy_allows_its_own_script_alone(whole: Path) -> None:
    shown = page(whole)
    (policy,) = [one["content"] for one in shown.all("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    for kind in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(shown.inline[kind].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
        assert len(shown.all(kind)) == 1
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    for tag, attributes in shown.elements:
        assert not [name for name in attributes if name == "style" or name.startswith("on")], tag
        for name in ("src", "href", "xlink:href"):
            target = attributes.get(name, "#")
            assert target.startswith(("#", "data:image/")) or re.fullmatch(r"[a-z]+\.(csv|json|yaml)", target), target
    assert (whole / "report.html").stat().st_size < 1_000_000


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose texts try to run as script wherever the store accepts free text."""
    folder = make_study(tmp_path_factory.mktemp("hostile"), Made(preserved=False, failed=("flat_16.fold_0.seed_0",)))

    def poison(plan: dict[str, Any]) -> None:
        plan["variants"][-1]["changes"] = {HOSTILE: HOSTILE}
        plan["data"] |= {"name": HOSTILE, "licence": HOSTILE, "class_names": ["background", HOSTILE, "posterior"]}
        plan["training"]["steps"] = HOSTILE
        plan |= {"name": HOSTILE, "command": HOSTILE, "notes": [HOSTILE]}

    change(folder / "study.json", poison)
    change(folder / "speed.json", lambda content: content["devices"][0].update(device=HOSTILE))
    change(folder / "trials/flat_16.fold_0.seed_0/trial.json", lambda content: content.update(error=HOSTILE))
    change_cases(folder, "*", lambda table: table.replace({"class_name": {"anterior": HOSTILE}}, inplace=True))
    (folder / "figures").mkdir()
    write_report(folder)
    return folder


def test_hostile_texts_stand_in_the_page_as_texts(hostile: Path, whole: Path) -> None:
    shown = page(hostile)
    assert len(shown.all("script")) == 1
    assert shown.inline["script"] == page(whole).inline["script"]
    assert not shown.all("img")
    assert not [name for _, attributes in shown.elements for name in attributes if name.startswith("on")]
    assert not [one for one in shown.all("a") if "script" in one["href"]]
    assert shown.text.count("<script>alert(1)</script>") >= 5
    assert "49" not in [cell for table in shown.tables for row in table for cell in row]


@pytest.mark.parametrize("render", [markdown.markdown, MarkdownIt("commonmark", {"html": True}).enable("table").render])
def test_hostile_texts_stand_in_the_markdown_as_texts(hostile: Path, render: object) -> None:
    made = render((hostile / "report.md").read_text())  # type: ignore[operator]
    assert "<script" not in made
    assert "<img src=x" not in made
    assert 'href="javascript:' not in made
    assert "alert(1)" in made


def test_figures_are_xml_with_real_text_and_titles(hostile: Path) -> None:
    paths = sorted((hostile / "figures").glob("*.svg"))
    assert {path.stem for path in paths} >= {"forest", "classes", "pareto_0", "pareto_1", "cases", "convergence"}
    for path in paths:
        root = ET.parse(path).getroot()
        tags = {element.tag.rpartition("}")[2] for element in root.iter()}
        assert not tags & {"script", "style", "foreignObject", "image"}, path
        assert not [element for element in root.iter() if "style" in element.attrib]
        assert {"text", "title"} <= tags


def test_the_markdown_is_short_and_its_pictures_are_there(whole: Path) -> None:
    text = (whole / "report.md").read_text()
    assert len(text.splitlines()) < 200
    assert "**Build: decoder ×1/2.**" in text
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert (whole / target).is_file(), target
    assert not re.search(r"\n{3,}", text)
    html = MarkdownIt("commonmark").enable("table").render(text)
    devices = html.split("<h3>")[1:]
    assert html.count("<table>") == 2 + len(devices)
    assert html.count("<tr>") == (1 + len(devices)) * (1 + len(VARIANTS)) + 1 + 5


def test_each_device_has_a_table_of_its_own_values(whole: Path) -> None:
    html = MarkdownIt("commonmark").enable("table").render((whole / "report.md").read_text())
    tables = {part.partition("</h3>")[0]: part.partition("</table>")[0] for part in html.split("<h3>")[1:]}
    results = pd.read_csv(whole / "results.csv")
    speeds = results[results.metric == "latency_ratio"]
    assert len(tables) > 1
    assert tables.keys() == set(speeds.device)
    for device, own in speeds.groupby("device"):
        (place,) = (n for n, cell in enumerate(cells(tables[str(device)])[0]) if cell.startswith("Network"))
        shown = [float(row[place].split("<br")[0]) for row in cells(tables[str(device)])[1:]]
        assert shown == [round(number, 2) for number in own.value]


def cells(table: str) -> list[list[str]]:
    """Returns the cells of the rows of a table, headings first."""
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in table.split("<tr>")[1:]]


def test_equal_results_give_equal_bytes_wherever_they_lie(whole: Path, tmp_path: Path) -> None:
    other = make_study(tmp_path / "elsewhere")
    write_report(other)
    names = [path.relative_to(whole) for path in sorted(whole.rglob("*")) if path.is_file()]
    assert names == [path.relative_to(other) for path in sorted(other.rglob("*")) if path.is_file()]
    for name in names:
        assert (whole / name).read_bytes() == (other / name).read_bytes(), name
    assert str(tmp_path) not in (other / "report.html").read_text()


def test_damaged_results_are_refused_together(tmp_path: Path) -> None:
    make_study(tmp_path)
    (tmp_path / "speed.json").write_text("{")
    (tmp_path / "trials/baseline.fold_0.seed_0/trial.json").write_text("{")
    with pytest.raises(RunError) as caught:
        write_report(tmp_path)
    assert {Path(problem.path).name for problem in caught.value.problems} == {"speed.json", "trial.json"}
    assert not (tmp_path / "report.html").exists()


def test_the_command_writes_a_report_without_torch(whole: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    shutil.copytree(whole, study, ignore=shutil.ignore_patterns("figures", "report*", "results*"))
    program = (
        "import runpy, sys\n"
        f"sys.argv = ['report.py', '--ablation_dir', {str(study)!r}]\n"
        "try:\n    runpy.run_path('scripts/report.py', run_name='__main__')\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{study / 'report.html'}\n"), done.stderr
    assert (study / "report.html").read_bytes() == (whole / "report.html").read_bytes()
