"""Run the same commands on two commits of the project, and compare what they give and what they cost."""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from same_results import differences, different_voxels, number, numbers, scores, tensors

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("phantom", "resampled", "analysis", "cost")
STUDIES = ("phantom_small", "bottleneck")
# Largest allowed change of time and memory, as a fraction.
COST_LIMIT = 0.05
# A machine with a higher load (processes that run or wait, a processor) has no times that mean anything.
QUIET_LOAD = 0.5
# Phantoms that are predicted.
NUM_PHANTOMS = 3
THREADS = "1"
# Twenty steps of a small network: the whole way in seconds. In fp32, where a change of the order of sums shows.
TINY = shlex.split(
    "--config configs/phantom.yaml --fold 0 --network.channels [4,8,16] --network.strides [[1,1,1],[2,2,2],[2,2,2]] "
    "--network.kernel_sizes [[3,3,3],[3,3,3],[3,3,3]] --optimizer.warmup_steps 2 --training.steps 20 "
    "--training.validate_every 10 --training.device cpu --training.precision fp32 --training.progress false "
    "--data.workers 0"
)
PHANTOM = shlex.split("--data.folds 20 --data.train_cases 8 --patches.size [24,24,24]")
RESAMPLED = shlex.split(
    "--name oblique --data.layout nnunet --data.spacing_mm [1.2,1.2,2.0] --data.normalization [zscore,zscore] "
    "--data.folds 3 --patches.size [24,24,16]"
)


@dataclass(frozen=True)
class Side:
    """One of the two commits: its name, its files, its interpreter, and the folder for what it writes."""

    name: str
    checkout: Path
    python: Path
    work: Path

    def call(self, script: str, *arguments: str | Path) -> tuple[float, float]:
        """Run a script of the checkout.

        Returns:
            Wall time in seconds and peak memory in MiB.

        Raises:
            SystemExit: The command failed; its output is printed.
        """
        command = [str(self.python), f"scripts/{script}.py", *map(str, arguments)]
        log = self.work / f"{script}.log"
        started = time.perf_counter()
        with log.open("w") as file:
            process = subprocess.Popen(
                command, cwd=self.checkout, env=self.environment(), stdout=file, stderr=subprocess.STDOUT
            )
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"{self.name}: {' '.join(command)} ended with {process.returncode}:\n{log.read_text()}")
        return time.perf_counter() - started, usage.ru_maxrss / 1024

    def once(self, name: str, make: Callable[[], object]) -> None:
        """Make something in the work folder, unless an earlier comparison made it and kept it."""
        done = self.work / f"{name}.done"
        if not done.exists():
            make()
            done.touch()

    def environment(self) -> dict[str, str]:
        """Make an environment in which the package is that of the checkout, and the number of threads is fixed.

        Another number of threads adds in another order, which changes the last digits of weights.
        """
        fixed = {"PYTHONPATH": str(self.checkout), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": THREADS}
        return os.environ | fixed


@dataclass(frozen=True)
class Row:
    """One line of the table: a comparison, how much was compared, and what differs."""

    part: str
    what: str
    compared: int
    different: Sequence[str] = ()
    note: str = ""


def main() -> int:
    """Compare two commits; return 1 where a result differs that was not expected to."""
    options = parse()
    python = options.python or (None, None)
    with tempfile.TemporaryDirectory(prefix="golden_") as folder:
        kept = ROOT / "build" / "golden" / f"results_{revision(options.old)}"
        old = prepare(options.old, kept if options.keep else Path(folder) / "old", python[0])
        rows = compare((old, prepare(options.new, Path(folder) / "new", python[1])), options)
    return show(rows, set(options.expect))


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog=".ci/golden", description=__doc__)
    parser.add_argument("old", help="commit to compare with")
    parser.add_argument("new", help="commit to judge")
    parser.add_argument(
        "--python",
        nargs=2,
        type=Path,
        metavar=("OLD", "NEW"),
        help="interpreters that have the packages of either side (default: an environment is made for each commit)",
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to run (default: all)")
    parser.add_argument(
        "--expect", nargs="+", choices=PARTS, default=(), help="parts that differ on purpose and do not count"
    )
    parser.add_argument(
        "--keep", action="store_true", help="keep the results of OLD in build/golden, and use those kept there before"
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often times are taken, in turn (default: 3)")
    return parser.parse_args()


def revision(commit: str) -> str:
    """Name a commit by its full hash."""
    command = ["git", "rev-parse", "--verify", f"{commit}^{{commit}}"]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def prepare(commit: str, folder: Path, python: Path | None) -> Side:
    """Unpack a commit, and find or make its environment."""
    checkout = folder / "checkout"
    if not checkout.exists():
        checkout.mkdir(parents=True)
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", str(checkout)], input=archive, check=True)
    side = Side(commit, checkout, (python or environment_of(checkout)).absolute(), folder)
    found = subprocess.run(
        [side.python, "-c", "import seg; print(seg.__file__)"],
        cwd=folder, env=side.environment(), check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    if checkout not in Path(found.strip()).parents:
        sys.exit(f"{commit}: the package must come from the checkout {checkout}, got {found.strip()}")
    return side


def environment_of(checkout: Path) -> Path:
    """Make the environment that a checkout asks for; it is kept in build/golden for the next comparison."""
    wanted = b"".join((checkout / name).read_bytes() for name in ("pyproject.toml", "constraints.txt"))
    venv = ROOT / "build" / "golden" / hashlib.sha256(wanted).hexdigest()[:12]
    done = venv / "done"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
        install = ["pip", "install", "--quiet", "--constraint", "constraints.txt", ".[dev]"]
        subprocess.run([venv / "bin" / "python", "-m", *install], cwd=checkout, check=True)
        # The package itself comes from the checkout.
        package = next(line for line in wanted.decode().splitlines() if line.startswith("name = ")).split('"')[1]
        subprocess.run([venv / "bin" / "python", "-m", "pip", "uninstall", "--quiet", "--yes", package], check=True)
        done.touch()
    return venv / "bin" / "python"


def compare(sides: tuple[Side, Side], options: argparse.Namespace) -> list[Row]:
    """Run the chosen parts on both sides."""
    rows: list[Row] = []
    if {"phantom", "cost"} & set(options.only):
        for side in sides:
            side.once("phantom_data", partial(side.call, "fetch", "phantom", "--root", side.work))
    if "phantom" in options.only:
        rows += run_part("phantom", sides, "phantom", PHANTOM)
    if "resampled" in options.only:
        for side in sides:
            side.once("oblique_data", partial(write_oblique, side.work / "oblique"))
        rows += run_part("resampled", sides, "oblique", RESAMPLED)
    if "analysis" in options.only:
        rows += [row for study in STUDIES for row in analysis_part(sides, study)]
    if "cost" in options.only:
        rows += cost_part(sides, options.rounds)
    return rows


def run_part(part: str, sides: tuple[Side, Side], data: str, arguments: Sequence[str]) -> list[Row]:
    """Train and predict on both sides, and predict with the new side from the run of the old one."""
    old, new = sides
    for side in sides:
        side.once(part, partial(train_and_predict, part, side, data, arguments))
    predict(new, old.work / f"{part}_run", data, new.work / f"{part}_labels_of_old")
    values = [tensors(only(side.work / f"{part}_run", "weights.pt")) for side in sides]
    different = [
        name
        for name in sorted(values[0].keys() | values[1].keys())
        if name not in values[0] or name not in values[1] or not torch.equal(values[0][name], values[1][name])
    ]
    found = [scores(side.work / f"{part}_run") for side in sides]
    return [
        Row(part, "weights", len(values[0]), different),
        label_row(part, "label maps", old.work / f"{part}_labels", new.work / f"{part}_labels"),
        label_row(part, "label maps, old weights", old.work / f"{part}_labels", new.work / f"{part}_labels_of_old"),
        value_row(part, "scores", *found),
    ]


def train_and_predict(part: str, side: Side, data: str, arguments: Sequence[str]) -> None:
    """Train on one side, and predict scans with the weights."""
    run, labels = side.work / f"{part}_run", side.work / f"{part}_labels"
    for folder in (run, labels):
        shutil.rmtree(folder, ignore_errors=True)
    side.call("train", *TINY, *arguments, "--data.root", side.work / data, "--run_dir", run)
    predict(side, run, data, labels)


def predict(side: Side, run: Path, data: str, output: Path) -> None:
    """Predict scans with the run of either side: the first phantoms, or all oblique scans."""
    source = side.work / data / "imagesTr"
    if data == "phantom":
        names = sorted(source.glob("*.nii.gz"))[:NUM_PHANTOMS]
        source = side.work / "scans.txt"
        source.write_text("".join(f"{name}\n" for name in names))
    side.call("predict", "--run_dir", run, "--input", source, "--output", output, "--device", "cpu")


def only(folder: Path, name: str) -> Path:
    """Find the one file of that name."""
    found = list(folder.rglob(name))
    if len(found) != 1:
        sys.exit(f"{folder} must hold one {name}, got {len(found)}")
    return found[0]


def label_row(part: str, what: str, old: Path, new: Path) -> Row:
    """Compare two folders of label maps."""
    names = [{path.name for path in folder.glob("*.nii.gz")} for folder in (old, new)]
    different = [f"{name} is on one side only" for name in sorted(names[0] ^ names[1])]
    for name in sorted(names[0] & names[1]):
        if count := different_voxels(old / name, new / name):
            different.append(f"{name}: {count} voxels")
    return Row(part, what, len(names[0] & names[1]), different)


def value_row(
    part: str, what: str, old: dict[str, Any], new: dict[str, Any], *, relative: float = 0.0, absolute: float = 0.0
) -> Row:
    """Compare the values that both sides have; names of one side alone are listed, not counted as different."""
    common = old.keys() & new.keys()
    found = differences(old, new, relative=relative, absolute=absolute)
    texts = [f"{name}: {old[name]} -> {new[name]}" for name in found]
    note = "; ".join(
        f"{side} alone: {columns(names)}"
        for side, names in (("old", old.keys() - common), ("new", new.keys() - common))
        if names
    )
    return Row(part, what, len(common), texts, note)


def columns(names: Iterable[str]) -> str:
    """Shorten names to their last word, each with how often it occurs."""
    counts: dict[str, int] = {}
    for name in names:
        last = name.replace(".", " ").split()[-1].split("[")[0]
        counts[last] = counts.get(last, 0) + 1
    return ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))


def write_oblique(root: Path) -> None:
    """Write nine small scans of two channels with thick slices, each turned and shifted in the world.

    Storage order and origin vary from scan to scan; the label and the channels of one scan share one affine.
    """
    random = np.random.default_rng(0)
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    for index in range(9):
        shape = tuple(int(size) for size in random.integers((28, 30, 14), (36, 38, 20)))
        turn = rotation(random.uniform(-0.5, 0.5, 3))
        order = np.eye(3)[random.permutation(3)] * random.choice((-1, 1), 3)
        affine = np.eye(4)
        affine[:3, :3] = order @ turn @ np.diag((1.0, 1.1, 2.7))
        affine[:3, 3] = random.uniform(-50, 50, 3)
        grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij"))
        centre = random.uniform(-0.3, 0.3, 3)[:, None, None, None]
        radius = np.sqrt((((grid - centre) / random.uniform(0.4, 0.7, 3)[:, None, None, None]) ** 2).sum(0))
        label = ((radius < 1).astype(np.uint8) + (radius < 0.5)).astype(np.uint8)
        for channel, contrast in enumerate((1.0, -0.7)):
            image = (contrast * label + random.normal(0, 0.3, shape)).astype(np.float32)
            name = root / "imagesTr" / f"scan_{index}_{channel:04d}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(image, affine), name)
        nibabel.save(nibabel.Nifti1Image(label, affine), root / "labelsTr" / f"scan_{index}.nii.gz")
    description = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "shell": 1, "core": 2},
        "numTraining": 9,
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(description))


def rotation(angles: Sequence[float]) -> np.ndarray[Any, Any]:
    """Make the matrix of three turns about the x, y and z axes, in radians."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        first, second = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


def analysis_part(sides: tuple[Side, Side], study: str) -> list[Row]:
    """Recompute the analysis of a published study on both sides.

    The new side reads its own copy, whose figures may have been stored with six digits, and the copy of the old side.
    """
    old, new = sides
    stored = [side.checkout / "docs" / "results" / study for side in sides]
    old.once(f"analysis_{study}", partial(write_analysis, old, stored[0]))
    found = estimates(old.work / study)
    exact = value_row("analysis", f"{study}, old files", found, analysis(new, stored[0]), relative=1e-12)
    if tree(stored[0]) == tree(stored[1]):
        return [exact]
    # The differences of close numbers amplify what six digits leave out.
    own = value_row("analysis", f"{study}, own files", found, analysis(new, stored[1]), relative=3e-4, absolute=2e-6)
    return [exact, own]


def analysis(side: Side, study: Path) -> dict[str, Any]:
    """Let a side write the report of a copy of a study, and read the numbers from it."""
    write_analysis(side, study)
    return estimates(side.work / study.name)


def write_analysis(side: Side, study: Path) -> None:
    """Let a side write the report of a copy of a study."""
    copy = side.work / study.name
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(study, copy)
    for name in ("results.csv", "results.json"):
        (copy / name).unlink(missing_ok=True)
    side.call("report", "--ablation_dir", copy)


def estimates(study: Path) -> dict[str, Any]:
    """Read what an analysis wrote, as numbers by "variant quantity".

    A change of the layout of a study's results changes this function alone.
    """
    found: dict[str, Any] = {}
    measured = ("value", "low", "high", "num_patients", "num_runs")
    with (study / "results.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            key = [row["variant"], row["metric"], row["class_index"], row["place"], row["device"]]
            key += [row["against"]] if row["metric"].startswith("contrast_") and row.get("against") else []
            place = " ".join(text for text in key if text)
            found |= {f"{place} {name}": number(row[name]) for name in measured if row.get(name)}
    if (study / "results.json").exists():
        content = json.loads((study / "results.json").read_text(encoding="utf-8"))
        content.pop("figures", None)  # the rows of results.csv once more
        found |= numbers(content)
    return found


def tree(folder: Path) -> str:
    """Digest the names and bytes of a folder's files."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def cost_part(sides: tuple[Side, Side], rounds: int) -> list[Row]:
    """Compare the least wall time and peak memory of the same training and prediction, run in turn."""
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    least: dict[tuple[str, str], list[float]] = {}
    for turn in range(rounds):
        for side, name in zip(sides, ("old", "new"), strict=True):
            run, labels = side.work / f"cost_{turn}", side.work / f"cost_labels_{turn}"
            for folder in (run, labels):
                shutil.rmtree(folder, ignore_errors=True)
            data = ("--data.root", side.work / "phantom", "--run_dir", run)
            measured = {"train": side.call("train", *TINY, *PHANTOM, *data)}
            scans = side.work / "phantom" / "imagesTr"
            measured["predict"] = side.call(
                "predict", "--run_dir", run, "--input", scans, "--output", labels, "--device", "cpu"
            )
            for command, values in measured.items():
                known = least.setdefault((name, command), list(values))
                known[:] = map(min, known, values)
    rows = []
    for command in ("train", "predict"):
        for index, (what, unit) in enumerate((("time", "s"), ("memory", "MiB"))):
            old, new = least["old", command][index], least["new", command][index]
            text = f"{old:.1f} -> {new:.1f} {unit} ({new / old - 1:+.1%})"
            judged = what == "memory" or load <= QUIET_LOAD
            different = [text] if judged and new > old * (1 + COST_LIMIT) else []
            note = text if judged else f"{text}; not judged at load {load:.2f} a processor"
            rows.append(Row("cost", f"{what} of {command}", rounds, different, note))
    return rows


def show(rows: Sequence[Row], expected: set[str]) -> int:
    """Print the table, then what differs; return 1 where a part differs that was not expected to."""
    failed = False
    print(f"load {os.getloadavg()[0]:.2f} on {os.cpu_count()} processors")
    print(f"{'part':<10} {'what':<28} {'compared':>8} {'different':>9}")
    for row in rows:
        wrong = bool(row.different) or not row.compared
        verdict = "" if not wrong else "expected" if row.part in expected else "DIFFERS"
        failed |= verdict == "DIFFERS"
        ending = "  ".join(text for text in (verdict, row.note) if text)
        print(f"{row.part:<10} {row.what:<28} {row.compared:>8} {len(row.different):>9}  {ending}".rstrip())
    for row in rows:
        for text in row.different[:5]:
            print(f"  {row.part}, {row.what}: {text}")
        if len(row.different) > 5:
            print(f"  {row.part}, {row.what}: and {len(row.different) - 5} more")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
