"""The words of a comparison, through the command that prints them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from seg.ablation.statistics import format_comparison, paired, split_folds
from seg.evaluation.scores import write_evaluation
from seg.evaluation.summary import summarise
from tests.ablation.statistics.studies import run_of

BASE = np.array([[0.8, 0.7, 0.9, 0.6], [0.5, 0.6, 0.7, 0.8]])
SCRIPT = Path(__file__).parents[3] / "scripts" / "compare.py"


def compare(*argv: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_prints_differences_and_the_verdict(tmp_path: Path) -> None:
    folders: dict[str, list[Path]] = {"base": [], "other": []}
    for name, shift in (("base", 0.0), ("other", 0.01)):
        for seed in range(2):
            scores = run_of(BASE + shift * (seed + 1))
            folders[name].append(tmp_path / f"{name}_{seed}")
            summary = summarise(scores, class_names=("background", "a", "b"), nsd_tolerance_mm=1.0)
            write_evaluation(folders[name][-1], summary, scores)
    done = compare("--baseline", *folders["base"], "--variant", *folders["other"])
    # Two runs of +0.01 and +0.02 on equal patients: t with one degree of freedom, 12.706 x 0.005.
    assert done.stdout.splitlines() == [
        "mean Dice +0.0150 (95 % CI -0.0485 to +0.0785)",
        "a +0.0150 (95 % CI -0.0485 to +0.0785)",
        "b +0.0150 (95 % CI -0.0485 to +0.0785)",
        "by seed: +0.0100, +0.0200; 4 patients, 1 fold",
        "not inferior in every class (margin 0.005, one-sided 97.5 %, uncorrected): not shown; "
        "2 training runs: never called not inferior, which takes 3",
    ]
    for name, seeds in (("base", (3, 4)), ("other", (4, 3))):
        for folder, seed in zip(folders[name], seeds, strict=True):
            (folder / "config.yaml").write_text(f"name: run\ndata: {{root: data/boxes}}\nseed: {seed}\n")
    crossed = compare("--baseline", *folders["base"], "--variant", *folders["other"])
    assert (crossed.returncode, crossed.stderr.count("error: pair")) == (2, 2)


def test_what_could_not_be_compared_reads_not_measured() -> None:
    gap = BASE.copy()
    gap[1] = np.nan
    (found,) = paired({"v": {(0, 0): run_of(gap)}, "w": {(0, 0): run_of(gap)}}, "v", margin=0.005)
    lines = format_comparison(found).splitlines()
    assert lines[2] == "b not measured"
    assert [line[:16] for line in lines[5:]] == ["class b could no"]
    assert "; a single training run: " in lines[4]
    (found,) = paired({"v": {(0, 0): run_of(BASE)}, "w": {(0, 1): run_of(BASE)}}, "v", margin=0.005)
    assert "by seed: none; 0 patients, 0 folds" in format_comparison(found)


@pytest.mark.parametrize(
    ("num_runs", "result"),
    [
        (1, "not shown; a single training run: the interval is over patients alone and says nothing about other seeds"),
        (2, "not shown; 2 training runs: never called not inferior, which takes 3"),
        (3, "shown; p < 0.0001"),
    ],
)
def test_a_p_value_is_shown_where_it_decides(num_runs: int, result: str) -> None:
    runs = {(0, seed): run_of(BASE) for seed in range(num_runs)}
    (found,) = paired({"v": runs, "w": runs}, "v", margin=0.005)
    (line,) = [line for line in format_comparison(found).splitlines() if line.startswith("not inferior")]
    assert line == f"not inferior in every class (margin 0.005, one-sided 97.5 %, uncorrected): {result}"


def test_records_of_several_folds_are_parted() -> None:
    both = run_of(BASE, 0) + run_of(BASE, 1)
    found = split_folds([both, run_of(BASE, 1)])
    assert {pair: len(scores) for pair, scores in found.items()} == {(0, 0): 8, (1, 0): 8, (1, 1): 8}
