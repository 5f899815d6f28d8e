"""The files of a report: figures that agree with the records, gaps that are named, pages that need nothing else."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from seg.ablation.report import write_report
from seg.evaluation.scores import read_cases
from tests.ablation.report.page import Page
from tests.ablation.report.studies import VARIANTS, Made, make_study

ROOT = Path(__file__).parents[3]
ATTRIBUTES = ("src", "href", "srcset", "data", "action", "poster", "xlink:href")


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def value(folder: Path, variant: str, metric: str, **where: str) -> dict[str, str]:
    """Returns the one row of a figure; columns that are not named are empty."""
    wanted = {"class_index": "", "place": "", "device": "", **where}
    (row,) = [
        row
        for row in rows(folder)
        if (row["variant"], row["metric"]) == (variant, metric) and all(row[k] == v for k, v in wanted.items())
    ]
    return row


def dice(folder: Path, variant: str, seeds: tuple[int, ...] = (0, 1, 2)) -> np.ndarray:
    """Reads Dice from the records, of shape (seeds, cases, classes), without the report's code."""
    values = []
    for seed in seeds:
        scores = read_cases(folder / "trials" / f"{variant}.fold_0.seed_{seed}")
        values.append([[s.scores.dice for s in scores if s.class_index == index] for index in (1, 2)])
    return np.array(values).transpose(0, 2, 1)


@pytest.mark.parametrize("variant", [row[0] for row in VARIANTS])
def test_dice_and_differences_agree_with_the_records(whole: Path, variant: str) -> None:
    own, base = dice(whole, variant), dice(whole, "baseline")
    assert float(value(whole, variant, "dice")["value"]) == pytest.approx(own.mean())
    for index in (1, 2):
        row = value(whole, variant, "dice", class_index=str(index))
        assert float(row["value"]) == pytest.approx(own[..., index - 1].mean())
        if variant != "baseline":
            row = value(whole, variant, "dice_difference", class_index=str(index))
            assert float(row["value"]) == pytest.approx((own - base)[..., index - 1].mean())
            assert float(row["low"]) < float(row["value"]) < float(row["high"])
            assert (row["interval"], row["num_patients"], row["num_runs"]) == ("ci95", "12", "3")


def test_a_missing_trial_takes_its_pair_out_of_its_own_comparison_alone(partial: Path) -> None:
    own, base = dice(partial, "flat_16", (0, 1)), dice(partial, "baseline", (0, 1))
    row = value(partial, "flat_16", "dice_difference")
    assert float(row["value"]) == pytest.approx((own - base).mean())
    assert row["num_runs"] == "2"
    assert value(partial, "decoder_1-2", "dice_difference")["num_runs"] == "3"


def test_speed_and_size_agree_with_the_records(whole: Path) -> None:
    device = {"device": "Test Processor, 2 threads, bf16, channels_last_3d"}
    row = value(whole, "decoder_1-2", "latency_ms", **device)
    assert [float(row[key]) for key in ("value", "low", "high")] == pytest.approx([121, 121 * 0.98, 121 * 1.03])
    assert (row["interval"], row["unit"]) == ("iqr", "ms")
    assert float(value(whole, "decoder_1-2", "prediction_ratio", **device)["value"]) == pytest.approx(230 / 171)
    assert value(whole, "decoder_1-2", "macs")["value"] == "9100000000"
    gap = value(whole, "skip_1-4", "generalisation_gap_dice")
    assert (float(gap["value"]), gap["num_runs"]) == (pytest.approx(0.034), "3")
    kept = value(whole, "skip_1-4", "preservation_narrow", place="skip_1")
    assert kept["value"] == "16"


def test_what_was_not_measured_says_so_in_every_file(partial: Path) -> None:
    for metric in ("dice", "dice_difference", "p_holm", "non_inferior", "convergence_area", "generalisation_gap_dice"):
        assert value(partial, "skip_1-16", metric)["value"] == "not measured"
    assert all(row["value"] for row in rows(partial))
    gpu = value(partial, "flat_16", "latency_ms", device="Test GPU, bf16, channels_last_3d")
    assert gpu["value"] == "not measured"
    found = json.loads((partial / "results.json").read_text())["figures"]
    (entry,) = [e for e in found if (e["variant"], e["metric"], e["class_index"]) == ("skip_1-16", "dice", None)]
    assert entry["value"] is None
    table = Page(partial / "report.html").tables[0]
    cells = {row[0].split("|")[0]: row[1:] for row in table[1:]}
    # Verdict, difference, end to end, latency, memory, Dice, p, two verdicts, training step, GMAC, parameters.
    assert [cells["2 skip_1-16"][number] for number in (0, 1, 5, 6, 7, 8)] == ["not measured"] * 6
    assert [cells["6 flat_16"][number] for number in (2, 3, 4, 9)] == ["not measured"] * 4
    assert all(row[2] == "not measured" for row in cells.values())
    assert table[0] == [
        "Variant", "Not inferior", "Difference", "End to end", "Latency", "Memory (MiB)", "Mean Dice", "p (Holm)",
        "Not inferior: anterior", "Not inferior: posterior", "Training step", "GMAC", "Parameters (M)",
    ]  # fmt: skip
    assert table[3][0] == "2 skip_1-16|0 of 3 trials; missing: fold 0 seed 0, fold 0 seed 1, fold 0 seed 2"


def test_no_cell_of_any_table_is_empty_or_a_null(whole: Path, partial: Path) -> None:
    for folder in (whole, partial):
        for table in Page(folder / "report.html").tables:
            assert len({len(row) for row in table}) == 1
            for cell in (cell for row in table for cell in row):
                assert cell.strip(" |")
                assert not re.search(r"\b(None|nan|inf|null)\b", cell)


def test_the_page_needs_no_other_file_and_no_network(whole: Path) -> None:
    page = Page(whole / "report.html")
    for tag, attributes in page.elements:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base")
        assert not any(name.startswith("on") for name in attributes)
        for name in ATTRIBUTES:
            if name in attributes:
                assert attributes[name].startswith("data:" if tag == "img" else "#")
    assert not re.search(r"url\(|@import", page.style)
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    targets = {attributes["href"][1:] for attributes in page.all("a")}
    assert targets == {attributes["id"] for tag, attributes in page.elements if tag == "h2"}


def test_every_picture_says_in_words_what_it_shows(whole: Path) -> None:
    pictures = Page(whole / "report.html").all("img")
    assert len(pictures) > 15
    assert all(len(picture["alt"]) > 40 for picture in pictures)
    alts = " ".join(picture["alt"] for picture in pictures)
    assert (
        "On the Pareto front: flat_16, skip_1-4_decoder_1-4, decoder_1-4, decoder_1-2, skip_1-4 and baseline." in alts
    )


def test_what_a_picture_shows_is_said_shortly_with_where_its_values_stand(whole: Path) -> None:
    for picture in Page(whole / "report.html").all("img"):
        assert len(picture["alt"]) < 420, picture["alt"]
        assert re.search(r"table", picture["alt"]), picture["alt"]


def test_rules_stay_below_a_column_that_stays_and_print_can_be_read(whole: Path) -> None:
    style = Page(whole / "report.html").style
    assert "border-collapse: separate" in style  # collapsed rules scroll away
    printed = style[style.index("@media print") :]
    sizes = [float(size) for size in re.findall(r"font-size: ([\d.]+)pt", printed)]
    assert min(sizes) >= 7
    assert "details::details-content { content-visibility: visible; block-size: auto; }" in printed


def test_figures_are_whole_files_without_references(whole: Path) -> None:
    text = (whole / "report.md").read_text()
    named = re.findall(r"\]\(figures/([^)]+)\)", text)
    assert sorted(named) == sorted(path.name for path in (whole / "figures").iterdir())
    for name in named:
        content = (whole / "figures" / name).read_text()
        for element in ET.fromstring(content).iter():
            for key, reference in element.attrib.items():
                if key.endswith("href"):
                    assert reference.startswith("#")
        assert not re.search(r"<dc:date>|Matplotlib", content)


def test_names_from_records_are_text_and_no_markup(whole: Path) -> None:
    page = Page(whole / "report.html")
    assert "Ablation: bottleneck <small>" in page.text
    assert "Test & Co" in page.text
    assert (whole / "report.md").read_text().startswith("# Ablation: bottleneck \\<small\\>\n\n**Use decoder\\_1-2: ")


def test_the_report_holds_what_repeats_the_study(whole: Path) -> None:
    text = Page(whole / "report.html").text
    for part in ("python scripts/ablate.py --config configs/ablation/bottleneck.yaml", "a" * 64, "name: test\nseed: 2"):
        assert part in text
    markdown = (whole / "report.md").read_text()
    assert "```\npython scripts/ablate.py --config configs/ablation/bottleneck.yaml\n```" in markdown


def test_a_failed_trial_shows_what_it_ended_with(partial: Path) -> None:
    text = Page(partial / "report.html").text
    assert "failed: RuntimeError: out of memory" in text
    assert "Traceback\nRuntimeError: out of memory" in text


def test_equal_records_give_equal_bytes_wherever_they_lie(whole: Path, tmp_path: Path) -> None:
    other = make_study(tmp_path / "elsewhere")
    write_report(other)
    names = [path.relative_to(whole) for path in sorted(whole.rglob("*")) if path.is_file()]
    assert names == [path.relative_to(other) for path in sorted(other.rglob("*")) if path.is_file()]
    for name in names:
        assert (whole / name).read_bytes() == (other / name).read_bytes(), name
    assert str(tmp_path) not in (other / "report.html").read_text()


@pytest.mark.parametrize(
    "made",
    [
        Made(absent=tuple(f"{row[0]}.fold_0.seed_{seed}" for row in VARIANTS for seed in range(3)), devices=()),
        Made(absent=tuple(f"baseline.fold_0.seed_{seed}" for seed in range(3))),
        Made(seeds=(0,), preserved=False, devices=("cpu",)),
    ],
    ids=["nothing run", "no baseline", "one seed, no preservation"],
)
def test_a_study_of_which_little_is_known_still_has_a_report(tmp_path: Path, made: Made) -> None:
    page = Page(write_report(make_study(tmp_path, made)))
    assert page.text.count("not measured") >= 2


def test_the_script_writes_a_report_without_torch(whole: Path, tmp_path: Path) -> None:
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
