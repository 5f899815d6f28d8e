"""Change the code in one place after the other, and see whether the tests notice; see README.md.

python tests/mutation/check.py CHECKOUT [--only GROUP ...] [--known README.md]
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

TESTS = {
    "metrics": ("tests/metrics", "tests/evaluation/test_metrics.py", "tests/evaluation/test_summary.py"),
    "statistics": tuple(
        f"tests/ablation/statistics/test_{name}.py"
        for name in ("effects", "comparison", "ranks", "convergence", "correlation", "verdicts", "holm")
    ),
    "bottleneck": ("tests/networks/test_bottleneck.py",),
    "grids": (
        *(f"tests/data/test_{name}.py" for name in ("geometry", "prepare", "volumes")),
        "tests/inference/test_resampling.py",
    ),
    "resume": (
        "tests/test_callbacks.py",
        "tests/training/test_callbacks.py",
        "tests/training/test_checkpoints.py",
        "tests/integration/test_resume.py",
    ),
}
"""Tests of each group, wherever they lie in the checkout."""
PRELOADED = ("pytest", "numpy", "scipy.stats", "scipy.ndimage", "statsmodels.api", "torch", "nibabel")
TIME_LIMIT_S = 300


@dataclass(frozen=True)
class Mutant:
    """One edit: in a function or class of that name, the old expression becomes the new one."""

    group: str
    where: str
    old: str
    new: str

    @property
    def name(self) -> str:
        """Names the mutant in a table."""
        return f"{self.where}: {self.old} => {self.new or '(nothing)'}"


def mutants_of(group: str, *edits: tuple[str, str, str]) -> list[Mutant]:
    return [Mutant(group, *edit) for edit in edits]


MUTANTS = [
    *mutants_of(
        "metrics",
        ("score_masks", "2.0 * common / (predicted", "1.0 * common / (predicted"),
        ("score_masks", "(predicted + expected - common)", "(predicted + expected)"),
        ("score_case", "math.prod(spacing) / 1000.0", "math.prod(spacing) / 100.0"),
        ("score_masks", "max(distance_percentile", "min(distance_percentile"),
        ("score_masks", "if not predicted and not expected", "if not predicted or not expected"),
        ("score_masks", "(predicted - expected) * voxel_ml", "(expected - predicted) * voxel_ml"),
        ("score_masks", "(predicted - expected) / expected", "(predicted - expected) / (predicted or 1)"),
        ("score_case", "np.where(reference == ignore_label, 0, prediction)", "prediction"),
        ("score_case", "range(1, num_classes)", "range(1, num_classes - 1)"),
        ("_neighbour_codes", "np.pad(mask, 1)", 'np.pad(mask, 1, mode="edge")'),
        ("_neighbour_codes", "4 * x + 2 * y + z))", "4 * y + 2 * x + z))"),
        ("distance_percentile", "percent / 100.0", "percent / 105.0"),
        ("share_within", "tolerance_mm * (1.0 + TOLERANCE_SLACK)", "tolerance_mm"),
        ("measure_surfaces", "sampling=spacing_mm", "sampling=(1.0, 1.0, 1.0)"),
        ("measure_surfaces", "(code != 0) & (code != 255)", "(code != 0)"),
    ),
    *mutants_of(
        "statistics",
        ("estimate_effect", "patients / patients.sum()", "np.ones(len(patients)) / len(patients)"),
        ("_uncertainty", "free_term = free_run + free_rest", "free_term = free_run"),
        ("_uncertainty", "by_run < free_run * residual", "by_run > free_run * residual"),
        ("_uncertainty", "max(between, variance) if strict else between", "between"),
        ("_uncertainty", "variance = term_run + term_patient", "variance = term_run"),
        ("_between_folds", "expected**2 / float", "expected / float"),
        ("_component", "max(0.0, excess / weight)", "excess / weight"),
        ("_p_above", "stats.t.sf", "stats.t.cdf"),
        ("_largest", "max(tested)", "min(tested)"),
        ("holm_adjusted", "np.arange(len(values), 0, -1)", "len(values)"),
        ("holm_levels", "left -= not failing", "left -= 1"),
        ("_adjust", ">= MIN_RUNS", ">= 2"),
        ("with_found_nothing", "1.0, values", "0.0, values"),
        ("patient_means", "np.isfinite(values).all(axis=(0, 1))", "np.isfinite(values).any(axis=(0, 1))"),
        ("difference_tables", "sides[1] - sides[0]", "sides[0] - sides[1]"),
        ("resampled_means", "max(count - spare, 1)", "count"),
        ("rank_stability", "(-totals[number], names[number])", "(totals[number], names[number])"),
        ("_crossing", "censored=curve.steps[0] > 0", "censored=False"),
        ("mean_over_runs", "stats.t.isf(0.025, len(kept) - 1)", "stats.t.isf(0.025, len(kept))"),
        ("_ratio", "one.censored or other.censored", "one.censored and other.censored"),
        ("weighted_pearson", "np.sqrt(xx * yy)", "np.sqrt(xx)"),
        ("weighted_partial", "xy - xz * yz", "xy"),
        ("_ranks", "(weights @ equal + 1) / 2", "weights @ equal"),
        ("recommend", "latency_ms[baseline] / latency_ms[fastest]", "latency_ms[fastest] / latency_ms[baseline]"),
    ),
    *mutants_of(
        "bottleneck",
        ("width", "round(ratio * channels)", "int(ratio * channels)"),
        ("projects_back", "ratio > 1 or", "ratio >= 1 or"),
        ("projects_back", 'merge == "add" and ratio < 1', 'merge == "add"'),
        ("SkipBottleneck", "channels if back else inner", "inner"),
        ("SkipBottleneck", "self.project(self.pointwise(self.reduce(x)))", "self.project(self.reduce(x))"),
        ("DecoderBottleneck", "self.expand(self.conv(self.pointwise(x)))", "self.expand(self.conv(x))"),
        ("reduce_pair", "weight[:, split:], bias", "weight[:, split:]"),
        ("interpolate", "align_corners=False", "align_corners=True"),
        ("Pointwise", "nn.PReLU(channels)", "nn.PReLU()"),
        ("Pointwise", "nn.LeakyReLU(SLOPE)", "nn.LeakyReLU(0.2)"),
        ("Pointwise", "SLOPE if leaky_norm else 1.0", "1.0"),
    ),
    *mutants_of(
        "grids",
        ("_in_mm", "scaled[:3] *=", "scaled[:2] *="),
        ("is_invertible", ">= SINGULAR", "> -1"),
        ("corner_distance", "axis=1).max()", "axis=1).min()"),
        ("corner_distance", "(0, size - 1)", "(0, size)"),
        ("voxel_ml_of", "/ 1000", "/ 100"),
        ("file_header", "header.structarr.nbytes + 4", "header.structarr.nbytes"),
        ("neighbours", "np.minimum(low + 1, size - 1)", "low"),
        ("neighbours", "rest / step.denominator", "0 * rest"),
    ),
    *mutants_of(
        "resume",
        ("load_state_dict", 'list(state_dict["history"])', "[]"),
        ("state_dict", '"history": self.history', '"history": []'),
        ("on_fit_end", "self._copy_average_to_current(pl_module)", "pass"),
        ("_since_best", "dice.index(max(dice))", "dice.index(min(dice))"),
        ("train_fold", "ckpt_path=str(checkpoint) if resumes else None", "ckpt_path=None"),
    ),
]


def main() -> int:
    """Prints a line for each mutant; returns 1 where one escapes that was caught before."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--only", nargs="+", choices=list(TESTS), default=list(TESTS))
    parser.add_argument("--known", type=Path, help="earlier table; what it says was caught must be caught again")
    options = parser.parse_args()
    known = {}
    if options.known:
        lines = re.findall(r"^\| (\w+) \| `(.*)` \| (\w+) \|$", options.known.read_text(), re.MULTILINE)
        known = {(group, name): outcome for group, name, outcome in lines}
    # Libraries read these names once; a pool of threads in the parent would let the forked tests of resuming hang.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    for name in PRELOADED:
        importlib.import_module(name)
    worse = 0
    print("| group | mutant | outcome |\n|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(prefix="mutants_") as folder:
        copy = Path(folder) / "checkout"
        shutil.copytree(
            options.checkout, copy, ignore=shutil.ignore_patterns(".*", "runs", "build", "results", "__pycache__")
        )
        for group in options.only:
            if not tests_pass(group, copy):
                sys.exit(f"the tests of {group} must pass on the code as it is; mend them first.")
            for mutant in (each for each in MUTANTS if each.group == group):
                found = outcome(mutant, copy)
                worse += known.get((mutant.group, mutant.name)) == "caught" and found == "escaped"
                print(f"| {mutant.group} | `{mutant.name}` | {found} |", flush=True)
    return int(worse > 0)


def outcome(mutant: Mutant, copy: Path) -> str:
    """Says whether the tests catch a mutant: caught, escaped, or gone where its code is no longer there."""
    places = [place for path in sorted((copy / "seg").rglob("*.py")) for place in occurrences(mutant, path)]
    if len(places) != 1:
        return "gone" if not places else "ambiguous"
    path, start, end = places[0]
    text = path.read_text()
    part = text[start:end].replace(mutant.old, mutant.new)
    path.write_text(text[:start] + part + text[end:])
    try:
        return "escaped" if tests_pass(mutant.group, copy) else "caught"
    finally:
        path.write_text(text)


def occurrences(mutant: Mutant, path: Path) -> list[tuple[Path, int, int]]:
    """Finds the functions or classes of the name that hold the expression, as ranges of characters."""
    text = path.read_text()
    if mutant.old not in text:
        return []
    lines = [0]
    for line in text.splitlines(keepends=True):
        lines.append(lines[-1] + len(line))
    return [
        (path, lines[node.lineno - 1], lines[node.end_lineno or node.lineno])
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and node.name == mutant.where
        and mutant.old in text[lines[node.lineno - 1] : lines[node.end_lineno or node.lineno]]
    ]


def tests_pass(group: str, copy: Path) -> bool:
    """Runs the tests of a group in a child process that has the large packages already."""
    paths = [str(copy / path) for path in TESTS[group] if (copy / path).exists()]
    if not paths:
        sys.exit(f"{copy} must have tests of {group}, got none of {', '.join(TESTS[group])}.")
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException):
            os.setsid()
            os.chdir(copy)
            sys.path.insert(0, str(copy))
            os.environ |= {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
            sys.dont_write_bytecode = True
            with open(os.devnull, "w") as nothing:
                os.dup2(nothing.fileno(), 1)
                os.dup2(nothing.fileno(), 2)
            code = int(sys.modules["pytest"].main(["-x", "-q", "-p", "no:cacheprovider", *paths]))
        os._exit(code)
    limit = time.monotonic() + TIME_LIMIT_S
    while time.monotonic() < limit:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False  # Tests that no longer end notice the change too.


if __name__ == "__main__":
    sys.exit(main())
