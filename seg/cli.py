"""The command line: one class per command, whose fields are its options, and what ends a command.

Each option is stated once, as a field with type, range and description; parsing, messages and help are made from the
fields by the code that reads configurations. Heavy packages are imported when a command runs, so that help is quick.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import pwd
import signal
import sys
import tempfile
import threading
import traceback
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn, Protocol

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr
from pydantic.dataclasses import dataclass

from seg import __version__
from seg.config import EvaluationConfig, ExperimentConfig, StudyConfig, load_config
from seg.config.fields import REQUIRED, STRICT, AtLeastOne, ConfigField, FilePath, Positive, fields_of, form, item_of
from seg.config.loading import explanation, find_config, read_options, unknown
from seg.config.patients import pattern_problem
from seg.config.text import as_yaml, text_problem
from seg.errors import ConfigError, Problem, SegError, shown
from seg.files import file_problems

if TYPE_CHECKING:
    from seg.benchmark.run import BenchmarkArguments

DONE, SOME_FAILED, WRONG_USE, FAULT, INTERRUPTED = 0, 1, 2, 3, 130
Changes = Mapping[StrictStr, StrictStr]
"""Texts by dotted path of a configuration, in the order typed."""
Device = Literal["auto", "cpu", "cuda"]
COMMON = "set."
"""What stands before the path of an experiment's field, to change the field for all variants of a study."""


class Command(Protocol):
    """A command with its options read."""

    examples: ClassVar[tuple[str, ...]]

    def problems(self) -> Iterator[Problem]:
        """Yields what is wrong with the options together."""

    def run(self) -> int | None:
        """Does the work; returns the exit code, None for 0."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Train:
    """Train on a data set, then predict, score and draw the held-out cases."""

    examples: ClassVar = (
        "seg train --config phantom",
        "seg train --config my.yaml --fold all --run_dir runs/mine",
        "seg train --config my.yaml --network.skip_bottleneck.ratio 0.25 --training.steps 4000",
        "seg train --resume --run_dir runs/mine",
    )
    config: tuple[FilePath, ...] = Field(
        default=(),
        description="YAML file, or the name of a configuration that comes with the package; repeat it to overlay, "
        "later files over earlier ones, the options of single fields over all files.",
    )
    run_dir: FilePath | None = Field(default=None, description="Run directory (default: runs/NAME/seed_S/fold_N).")
    resume: StrictBool = Field(
        default=False,
        description="Continue an unfinished run; with --run_dir alone, with its own configuration, all folds where it "
        "holds fold_0, fold_1, ...",
    )
    init_from: FilePath | None = Field(
        default=None,
        description="Run directory whose weights are the initial ones, as --training.init_from; a resumed run keeps to "
        "its first choice.",
    )
    changes: Changes = Field(default_factory=dict)

    def problems(self) -> Iterator[Problem]:
        """Yields what is wrong with the options together, and with the configuration."""
        yield from _folder_problems("--init_from", self.init_from)
        if not self.config and not (self.resume and self.run_dir is not None):
            rule, remedy = "must name a YAML file", "an example is --config phantom"
            yield Problem("--config", "missing", rule, "none", remedy)
        try:
            yield from _folder_problems("data.root", self.experiment().data.root, exists=False)
        except ConfigError as error:
            yield from error.problems

    def run(self) -> int:
        """Trains."""
        from seg.workflows.train import train

        config = self.experiment()
        folds = None if self._sources()[1] else (config.fold,)
        return train(config, run_dir=self.run_dir, folds=folds, resume=self.resume)

    def experiment(self) -> ExperimentConfig:
        """Reads the experiment."""
        changes: dict[str, object] = dict(self.changes)
        if changes.get("fold") == "all":
            del changes["fold"]
        if self.init_from is not None:
            changes["training.init_from"] = str(self.init_from)
        return load_config(self._sources()[0], changes)

    def _sources(self) -> tuple[list[Path], bool]:
        """Returns the files of the configuration, and whether all folds are trained."""
        every_fold = self.changes.get("fold") == "all"
        if self.config or not self.resume or self.run_dir is None:
            return [find_config(path) for path in self.config], every_fold
        own = self.run_dir / "config.yaml"
        of_folds = sorted(self.run_dir.glob("fold_*/config.yaml"))
        if of_folds and not os.path.lexists(own):  # they differ in their fold alone
            return of_folds[:1], every_fold or "fold" not in self.changes
        return [own], every_fold


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Plan:
    """Read the fingerprint of a data set and write a configuration that trains on it."""

    examples: ClassVar = (
        "seg plan --data.root data/scans --output my.yaml",
        "seg plan --data.root data/scans --memory_gib 8 --data.patient_pattern '(patient\\d+)_' --output my.yaml",
    )
    data__root: FilePath = Field(description="Folder of the data set.")
    data__layout: Literal["auto", "msd", "nnunet", "manifest"] = Field(
        default="auto", description="MSD, nnU-Net v2 raw, a manifest, or found out from the folder's files."
    )
    data__patient_pattern: StrictStr | None = Field(
        default=None,
        description="Regular expression whose first group is the patient in a case id (default: found in the ids where "
        "they end in a frame, a visit or the like).",
    )
    memory_gib: Positive = Field(default=4.0, description="Memory that training may take, in GiB.")
    output: FilePath | None = Field(default=None, description="File of the configuration (default: printed).")
    overwrite: StrictBool = Field(default=False, description="Replace the file of --output where it exists.")

    def problems(self) -> Iterator[Problem]:
        """Yields what is wrong with the options together."""
        yield from _folder_problems("--data.root", self.data__root, exists=False)
        yield from _pattern_problems("--data.patient_pattern", self.data__patient_pattern)
        yield from _file_problems("--output", self.output)
        if (
            self.output is not None
            and not os.path.isdir(self.output)
            and os.path.lexists(self.output)
            and not self.overwrite
        ):
            remedy = "choose another, or replace it with --overwrite"
            yield Problem("--output", "exists", "must be a new file", f"{self.output}", remedy)

    def run(self) -> None:
        """Plans."""
        from seg.files import write_text
        from seg.planning.plan import plan_dataset

        text = plan_dataset(
            self.data__root,
            layout=self.data__layout,
            memory_gib=self.memory_gib,
            patient_pattern=self.data__patient_pattern,
        )
        if self.output is None:
            print(text, end="")
            return
        write_text(self.output, text)
        print(f"configuration: {self.output}")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Predict:
    """Segment scans: label maps on the scans' own grids, and predictions.json beside them; not for clinical use."""

    examples: ClassVar = (
        "seg predict --run_dir runs/mine --input scans --output labels",
        "seg predict --run_dir runs/mine --input scan.nii.gz --output label.nii.gz --tta",
    )
    run_dir: tuple[FilePath, ...] = Field(
        description="Finished run directory; repeat it to average several networks; a directory that holds fold_0, "
        "fold_1, ... stands for all of these."
    )
    input: FilePath = Field(
        description="Scan, folder of scans, or text file with one scan on each line, and behind a tab the name of its "
        "label map where that is another; NIfTI, and NRRD, MetaImage or DICOM where the package that reads them is "
        "installed; files NAME_0000, NAME_0001, ... are channels of one scan."
    )
    output: FilePath = Field(
        description="Where label maps go: a file for one scan, else a folder, in which each is named after its scan."
    )
    device: Device = Field(default="auto", description="Where to compute; auto takes a GPU where there is one.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto",
        description="Arithmetic of the networks; auto is training.precision of each run, whose own auto takes bf16 "
        "where the hardware computes it.",
    )
    tta: StrictBool = Field(
        default=False, description="Average over mirrored copies, along the axes that training mirrored; slower."
    )
    probabilities: StrictBool = Field(
        default=False, description="Write probabilities too, 4-D files in the folder probabilities/."
    )
    skip_existing: StrictBool = Field(default=False, description="Leave label maps that are there already.")
    overwrite: StrictBool = Field(default=False, description="Replace label maps that are there already.")

    def problems(self) -> Iterator[Problem]:
        """Yields what is wrong with the options together."""
        if self.skip_existing and self.overwrite:
            yield _conflict("--skip_existing", "--overwrite", "leave one of them out")

    def run(self) -> int:
        """Predicts."""
        from seg.workflows.predict import predict

        return predict(
            run_dirs=self.run_dir,
            input=self.input,
            output=self.output,
            device=self.device,
            precision=self.precision,
            tta=self.tta,
            probabilities=self.probabilities,
            existing="skip" if self.skip_existing else "overwrite" if self.overwrite else "refuse",
        )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Evaluate:
    """Score a run's held-out cases, or one folder of label maps against another."""

    examples: ClassVar = (
        "seg evaluate --run_dir runs/mine",
        "seg evaluate --predictions labels --labels references --class_names left,right",
    )
    run_dir: FilePath | None = Field(
        default=None,
        description="Run directory whose held-out cases are scored; all folds where it holds fold_0, fold_1, ...",
    )
    data__root: FilePath | None = Field(
        default=None, description="Folder of the run's data set, where it moved (default: data.root of the run)."
    )
    predictions: FilePath | None = Field(default=None, description="Folder of predicted label maps (NIfTI).")
    labels: FilePath | None = Field(default=None, description="Folder of references with the same case ids.")
    output: FilePath | None = Field(
        default=None,
        description="Folder of evaluation.json, cases.csv and cases.html, which are replaced (default: that of the "
        "run, or of the predictions).",
    )
    images: FilePath | None = Field(
        default=None, description="Folder of images on which cases.html draws the cases; two folders alone."
    )
    nsd_tolerance_mm: Positive | None = Field(
        default=None,
        description="Tolerance of the normalised surface Dice, in mm; two folders alone (default: "
        f"{EvaluationConfig().nsd_tolerance_mm:g}).",
    )
    class_names: StrictStr | None = Field(
        default=None,
        description="Names of classes 1, 2, ..., separated by commas; values above are refused; two folders alone "
        "(default: every value found, as class_1, class_2, ...).",
    )
    ignore_label: StrictInt | None = Field(
        default=None, description="Value of reference voxels that count for neither side; two folders alone."
    )
    patient_pattern: StrictStr | None = Field(
        default=None,
        description="Regular expression whose first group is the patient in a case id; intervals resample patients; "
        "two folders alone (default: each case is a patient of its own).",
    )
    workers: AtLeastOne | None = Field(
        default=None, description="Processes that score cases; two folders alone (default: 1)."
    )
    leave_out: StrictBool = Field(
        default=False,
        description="Leave out cases that lack a counterpart or cannot be scored, name them, and exit with 1; two "
        "folders alone, where one such case else refuses all.",
    )

    def problems(self) -> Iterator[Problem]:
        """Yields what is wrong with the options together."""
        names = ("images", "nsd_tolerance_mm", "class_names", "ignore_label", "patient_pattern", "workers", "leave_out")
        if self.run_dir is not None:
            for name in ("predictions", "labels", *names):
                if getattr(self, name) not in (None, False):
                    yield _conflict(f"--{name}", "--run_dir", "leave it out; a run says it itself")
        elif self.predictions is None or self.labels is None:
            rule = "or both --predictions and --labels must be given"
            yield Problem("--run_dir", "missing", rule, remedy="see --help")
        elif self.data__root is not None:
            rule = "must come with --run_dir, whose data set it is"
            yield Problem("--data.root", "conflict", rule, remedy="leave it out")
        yield from _folder_problems("--data.root", self.data__root, exists=False)
        yield from _pattern_problems("--patient_pattern", self.patient_pattern)
        yield from self._name_problems()

    def _name_problems(self) -> Iterator[Problem]:
        """Yields what is wrong with the names of classes."""
        if self.class_names is None:
            return
        names, ignored = self._names(), self.ignore_label
        given = names[1:]
        rule = ""
        if "" in given:
            rule = "must be names separated by commas, without an empty name"
        elif "background" in given:
            rule = "must begin with class 1; background is class 0 and needs no name"
        elif len(set(given)) < len(given):
            rule = "must name each class once"
        if rule:
            yield Problem("--class_names", "names", rule, shown(self.class_names))
        if ignored is not None and 0 <= ignored < len(names):
            remedy = "leave the class out of --class_names or correct the label"
            value = f"{ignored}, which is {names[ignored]}"
            yield Problem("--ignore_label", "conflict", "must be no class", value, remedy)

    def _names(self) -> tuple[str, ...]:
        return ("background", *(name.strip() for name in (self.class_names or "").split(",")))

    def run(self) -> int:
        """Scores."""
        if self.run_dir is not None:
            from seg.workflows.evaluate import evaluate_run

            return evaluate_run(self.run_dir, output=self.output, data_root=self.data__root)
        from seg.workflows.folders import evaluate_folders

        assert self.predictions is not None
        assert self.labels is not None
        evaluation = evaluate_folders(
            self.predictions,
            self.labels,
            self.output or self.predictions,
            images=self.images,
            nsd_tolerance_mm=self.nsd_tolerance_mm or EvaluationConfig().nsd_tolerance_mm,
            class_names=None if self.class_names is None else self._names(),
            ignore_label=self.ignore_label,
            patient_pattern=self.patient_pattern,
            workers=self.workers or 1,
            leave_out=self.leave_out,
        )
        return SOME_FAILED if evaluation.left_out else DONE


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Ablate:
    """Run an ablation study: train every variant, measure speed and preservation, write the report.

    Started again, a study goes on where it stopped.
    """

    examples: ClassVar = (
        "seg ablate --config phantom --dry_run",
        "seg ablate --config my_study.yaml --set training.steps=700 --launch.workers 2",
        "seg ablate --config my_study.yaml --set network.merge=add --set 'network.channels=[16,32,64,128]'",
    )
    config: FilePath = Field(description="YAML file of the study, or the name of a study that comes with the package.")
    ablation_dir: FilePath | None = Field(
        default=None, description="Study directory (default: runs/ablation/NAME of the study)."
    )
    runs: FilePath | None = Field(
        default=None,
        description="Folder of the run directories, which hold weights (default: runs/ in the study directory).",
    )
    dry_run: StrictBool = Field(
        default=False, description="Print every trial with parameters, GMAC and predicted time; run none."
    )
    only: tuple[StrictStr, ...] = Field(default=(), description="Run this variant alone; repeat it for more.")
    speed_only: StrictBool = Field(
        default=False,
        description="Train nothing: measure the speed of the variants on every device present, with initial weights "
        "where there are no trained ones, and write the report where trials are finished.",
    )
    data__root: StrictStr | None = Field(
        default=None, description="Folder of the data set (default: that of the study)."
    )
    set: tuple[StrictStr, ...] = Field(
        default=(),
        description="PATH=VALUE changes a field of the experiment for all variants, as in --set network.merge=add or "
        "--set 'network.channels=[8,16]'; repeat it for more.",
    )
    changes: Changes = Field(default_factory=dict)

    def problems(self) -> Iterator[Problem]:
        """Yields what is wrong with the options together."""
        if self.dry_run and self.speed_only:
            yield _conflict("--dry_run", "--speed_only", "leave one out; neither trains")
        for text in self.set:
            if not text.partition("=")[0] or "=" not in text:
                rule = "must have the form PATH=VALUE, as in --set training.steps=700"
                yield Problem("--set", "form", rule, shown(text))
        for option, folder in (("--data.root", self.data__root), ("--ablation_dir", self.ablation_dir)):
            yield from _folder_problems(option, folder, exists=False)

    def run(self) -> int:
        """Runs the study."""
        from seg.ablation.study import choose_variants, plan_study

        overrides = dict(self.changes)
        if self.data__root is not None:
            overrides[f"{COMMON}data.root"] = self.data__root
        for text in self.set:
            path, _, value = text.partition("=")
            overrides.pop(COMMON + path, None)  # what is said last is also applied last
            overrides[COMMON + path] = value
        study = choose_variants(plan_study(find_config(self.config, study=True), overrides), self.only)
        study_dir = self.ablation_dir or Path("runs/ablation") / study.config.name
        if self.dry_run:
            from seg.ablation.preview import preview_study

            print(preview_study(study, study_dir, runs_dir=self.runs))
            return DONE
        from seg.ablation.run import run_study

        return run_study(study, study_dir, runs_dir=self.runs, speed_only=self.speed_only)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Report:
    """Write the report of an ablation study from its records, or put several studies side by side.

    The report is report.html, report.md with figures/ and results.csv, beside the results. Nothing is
    trained or measured.
    """

    examples: ClassVar = (
        "seg report --ablation_dir runs/ablation/phantom",
        "seg report --compare docs/results/bottleneck docs/results/acdc --output all.md",
    )
    ablation_dir: FilePath | None = Field(default=None, description="Study directory.")
    runs: FilePath | None = Field(
        default=None,
        description="Folder of the run directories, for pictures of the worst cases (default: runs/ in the study "
        "directory); where there is none, the pictures of an earlier report are kept.",
    )
    compare: tuple[FilePath, ...] = Field(default=(), description="Study directories to put side by side.")
    output: FilePath | None = Field(default=None, description="Markdown file of the comparison.")

    def problems(self) -> Iterator[Problem]:
        """Yields what is wrong with the options together."""
        if self.compare:
            if len(self.compare) < 2:
                remedy = "add another"
                yield Problem("--compare", "length", "must name two studies at least", "one", remedy)
            if self.output is None:
                rule = "must be given with --compare: a Markdown file"
                yield Problem("--output", "missing", rule, "none")
            for name in ("ablation_dir", "runs"):
                if getattr(self, name) is not None:
                    yield _conflict(f"--{name}", "--compare", "leave it out")
        elif self.ablation_dir is None:
            rule = "must be given: the directory of a study"
            yield Problem("--ablation_dir", "missing", rule, "none", "see --help")
        elif self.output is not None:
            rule = "must come with --compare, whose file it is"
            yield Problem("--output", "conflict", rule, remedy="leave it out")
        for name, path in [("runs", self.runs), ("ablation_dir", self.ablation_dir)]:
            yield from _folder_problems(f"--{name}", path)
        for path in self.compare:
            yield from _folder_problems("--compare", path)

    def run(self) -> None:
        """Writes the report."""
        from seg.ablation.report import write_comparison, write_report

        if self.compare and self.output is not None:
            print(write_comparison(self.compare, self.output))
        elif self.ablation_dir is not None:
            print(write_report(self.ablation_dir, runs_dir=self.runs))


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Compare:
    """Compare finished runs of two variants, seed by seed: paired differences of Dice with intervals, and a verdict."""

    examples: ClassVar = ("seg compare --baseline runs/a/seed_0 runs/a/seed_1 --variant runs/b/seed_0 runs/b/seed_1",)
    baseline: tuple[FilePath, ...] = Field(description="Run directories of the baseline, one per seed.")
    variant: tuple[FilePath, ...] = Field(description="Run directories of the variant, in the same order of seeds.")
    margin: StrictFloat = Field(
        default=0.005, gt=0, lt=1, description="Loss of Dice that still counts as not inferior."
    )

    def problems(self) -> Iterator[Problem]:
        """Yields what is wrong with the options together: pairs of unlike seeds, runs given twice."""
        if len(self.baseline) != len(self.variant):
            rule = "must name as many runs as --baseline, in the same order of seeds"
            value = f"{len(self.variant)} beside {len(self.baseline)}"
            yield Problem("--variant", "length", rule, value)
            return
        for number, paths in enumerate(zip(self.baseline, self.variant, strict=True), 1):
            files = [path / "config.yaml" for path in paths]
            known = [load_config([file]).seed for file in files if os.path.isfile(file)]
            if len(set(known)) > 1:
                value = f"{known[0]} in {paths[0]} and {known[1]} in {paths[1]}"
                remedy = "give runs in the same order of seeds"
                yield Problem(f"pair {number}", "seeds", "must have one seed", value, remedy)
        everything = [path.resolve() for path in (*self.baseline, *self.variant)]
        for path in dict.fromkeys(path for path in everything if everything.count(path) > 1):
            yield Problem(f"{path}", "repeated", "must be given once", remedy="leave one out")

    def run(self) -> None:
        """Prints the comparison."""
        from seg.ablation.statistics import format_comparison, paired, split_folds
        from seg.evaluation.scores import read_cases

        sides = {"baseline": self.baseline, "variant": self.variant}
        trials = {name: split_folds([read_cases(path) for path in paths]) for name, paths in sides.items()}
        for comparison in paired(trials, "baseline", margin=self.margin):
            print(format_comparison(comparison))


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Benchmark:
    """Measure speed, memory and size of networks side by side in one process; the first is the baseline."""

    examples: ClassVar = (
        "seg benchmark --run_dir runs/mine --peers",
        "seg benchmark --config a.yaml --config b.yaml --num_classes 3 --device cpu",
        "seg benchmark --run_dir runs/mine --volume_shape 256 256 160",
    )
    run_dir: tuple[FilePath, ...] = Field(
        default=(),
        description="Finished run directory, measured with its weights; repeat it, or mix it with --config, to compare "
        "several.",
    )
    config: tuple[FilePath, ...] = Field(
        default=(),
        description="YAML file of an experiment, measured with initial weights, which are as fast; repeat it, or mix "
        "it with --run_dir, to compare several.",
    )
    peers: StrictBool = Field(default=False, description="Measure MONAI's DynUNet and BasicUNet beside them.")
    rounds: StrictInt = Field(default=15, ge=3, description="Timed rounds.")
    warmup: AtLeastOne = Field(default=3, description="Untimed rounds before.")
    cases: StrictInt = Field(
        default=8,
        ge=0,
        description="Held-out cases whose prediction is timed from file to file, in half of the rounds; 0 leaves "
        "that out.",
    )
    device: Literal["all", "cpu", "cuda"] = Field(
        default="all", description="Where to measure; all is the processor and one GPU of each kind."
    )
    data__root: FilePath | None = Field(
        default=None, description="Folder of the data set (default: that of the experiment)."
    )
    num_channels: AtLeastOne | None = Field(
        default=None, description="Channels of an image, with --num_classes (default: 1)."
    )
    num_classes: StrictInt | None = Field(
        default=None,
        ge=2,
        description="Classes, background included, of the networks of --config; no data set is read then.",
    )
    volume_shape: tuple[AtLeastOne, AtLeastOne, AtLeastOne] | None = Field(
        default=None,
        description="Measure time and memory of the prediction of one synthetic volume of so many voxels (X Y Z), from "
        "file to file, in place of all above; on the GPU where there is one.",
    )
    volume_spacing: tuple[Positive, Positive, Positive] | None = Field(
        default=None,
        description="Voxel size (X Y Z) of that volume, in mm (default: that of the network, "
        "which then resamples nothing).",
    )
    output: FilePath | None = Field(
        default=None,
        description="JSON file of the results (default: benchmark.json, with --volume_shape benchmark_volume.json, in "
        "the baseline's run directory, else in the current folder).",
    )
    order: tuple[StrictStr, ...] = Field(default=(), description="")

    def problems(self) -> Iterator[Problem]:
        """Yields what is wrong with the options together."""
        count = len(self.run_dir) + len(self.config)
        if not count:
            yield Problem("--run_dir", "missing", "or --config must be given", remedy="see --help")
        for run_dir in self.run_dir:
            yield from _folder_problems("--run_dir", run_dir)
        everything = [os.path.realpath(path) for path in (*self.run_dir, *self.config)]
        for again in sorted({path for path in everything if everything.count(path) > 1}):
            rule, remedy = "and --run_dir must each name something else", "leave one out"
            yield Problem("--config", "repeated", rule, f"{again} twice", remedy)
        if self.num_classes is not None and self.run_dir:
            yield _conflict("--num_classes", "--run_dir", "a run knows its classes")
        if self.num_channels is not None and self.num_classes is None:
            rule, remedy = "must come with --num_classes", "add it, or let the data set say both"
            yield Problem("--num_channels", "conflict", rule, remedy=remedy)
        if self.volume_spacing is not None and self.volume_shape is None:
            rule = "must come with --volume_shape"
            yield Problem("--volume_spacing", "conflict", rule, remedy="add it")
        if self.volume_shape is not None and count > 1:
            rule, remedy = "must come with one network", "measure each alone"
            yield Problem("--volume_shape", "conflict", rule, str(count), remedy)
        if self.volume_shape is not None and self.peers:
            yield _conflict("--peers", "--volume_shape", "the volume is predicted by the project's networks alone")
        yield from _folder_problems("--data.root", self.data__root)
        yield from _file_problems("--output", self.output)

    def run(self) -> None:
        """Measures."""
        from seg.benchmark import benchmark

        benchmark(self.arguments())

    def arguments(self) -> BenchmarkArguments:
        """Returns what is measured, and how."""
        from seg.benchmark.run import BenchmarkArguments, Target

        left = {"run_dir": list(self.run_dir), "config": [find_config(path) for path in self.config]}
        targets = []
        for option in self.order:
            if option == "run_dir":
                targets.append(Target(kind="run_dir", path=left[option].pop(0)))
            elif option == "config":
                targets.append(Target(kind="config", path=left[option].pop(0)))
        return BenchmarkArguments(
            targets=tuple(targets),
            peers=self.peers,
            rounds=self.rounds,
            warmup=self.warmup,
            cases=self.cases,
            device=self.device,
            data_root=self.data__root,
            num_channels=self.num_channels or 1,
            num_classes=self.num_classes,
            volume_shape=self.volume_shape,
            volume_spacing=self.volume_spacing,
            output=self.output,
        )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Fetch:
    """Put a data set in place: download a public one, with checksum, or generate the embedded phantoms."""

    examples: ClassVar = ("seg fetch phantom", "seg fetch hippocampus --root data")
    name: StrictStr = Field(description="Data set: hippocampus is downloaded, phantom is made here.")
    root: FilePath = Field(default=Path("data"), description="Folder to put it in.")

    def problems(self) -> Iterator[Problem]:
        """Yields what is wrong with the options together."""
        from seg.data.fetch import ARCHIVES

        known = [*sorted(ARCHIVES), "phantom"]
        if self.name not in known:
            yield Problem("NAME", "unknown", f"must be one of {', '.join(known)}", shown(self.name))

    def run(self) -> None:
        """Fetches."""
        if self.name == "phantom":
            from seg.data.phantom.files import write_dataset
            from seg.data.phantom.scan import PhantomConfig

            folder = write_dataset(self.root / "phantom", PhantomConfig(), seed=0)
        else:
            from seg.data.fetch import ARCHIVES, fetch, show_progress

            folder = fetch(ARCHIVES[self.name], self.root, progress=show_progress)
        print(f"data set: {folder}")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Widths:
    """Predict safe widths from a baseline's preservation.json and write them as a point of a study."""

    examples: ClassVar = ("seg widths --record trials/baseline.fold_0.seed_0/preservation.json --output point.yaml",)
    record: FilePath = Field(description="File preservation.json of a trial of the baseline.")
    output: FilePath = Field(description="YAML file to write, a list of one point.")
    threshold: StrictFloat = Field(default=0.95, gt=0, le=1, description="Share of the features' variance to keep.")

    def problems(self) -> Iterator[Problem]:
        """Yields what is wrong with the options together."""
        yield from _file_problems("--output", self.output)

    def run(self) -> None:
        """Writes the point."""
        from seg.ablation.preservation.widths import write_point

        safe = write_point(self.record, self.output, self.threshold)
        print(f"channels {list(safe.channels)}: skip {list(safe.skip)}, decoder {list(safe.decoder)}")
        print(f"point: {self.output}")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Publish:
    """Write the results of a study as a few tables with six significant digits, in place of a folder a trial.

    A published study can be reported, continued and published again.
    """

    examples: ClassVar = ("seg publish --ablation_dir runs/ablation/mine --output docs/results/mine",)
    ablation_dir: FilePath = Field(description="Study directory.")
    output: FilePath | None = Field(default=None, description="Directory to write (default: the study directory).")

    def problems(self) -> Iterator[Problem]:
        """Yields what is wrong with the options together: nothing, since the study says what it holds."""
        yield from ()

    def run(self) -> None:
        """Publishes the study."""
        from seg.ablation.publish import publish

        print(f"published: {publish(self.ablation_dir, self.output)}")


COMMANDS: dict[str, type[Any]] = {
    "train": Train,
    "plan": Plan,
    "predict": Predict,
    "evaluate": Evaluate,
    "ablate": Ablate,
    "report": Report,
    "publish": Publish,
    "compare": Compare,
    "benchmark": Benchmark,
    "widths": Widths,
    "fetch": Fetch,
}


def changeable(command: type[Any]) -> dict[str, ConfigField]:
    """Returns the fields of configurations that are options of a command, by dotted path."""
    if command is Train:
        fields = fields_of(ExperimentConfig)
        return {path: field for path, field in fields.items() if field.section is None or field.optional}
    if command is Ablate:  # how a study runs, not what it compares
        return {
            path: field
            for path, field in fields_of(StudyConfig).items()
            if field.section is None and (path.startswith(("launch.", "speed.")) or path in ("folds", "seeds"))
        }
    return {}


def read_command(name: str, argv: Sequence[str]) -> Command:
    """Reads the options of a command.

    Args:
        name: Name of the command.
        argv: Its options.

    Raises:
        ConfigError: Options cannot be used; all problems together.
    """
    command = COMMANDS[name]
    found = [
        Problem(shown(text), "text", "must be text", problem)
        for text in argv
        if (problem := text_problem(text)) is not None
    ]
    if found:
        raise ConfigError(found)
    options, rest = _parser(command, name).parse_known_args(argv)
    given: list[tuple[str, Any]] = options.given
    found += _unknown_options(rest, [*_options(command), *changeable(command)])
    values, changes = _collected(command, given)
    for option, field in _options(command).items():
        if field.default is REQUIRED and field.path not in values:
            found.append(Problem(f"--{option}", "missing", "must be given", "none"))
            values[field.path] = "missing" if item_of(field.hint) is None else []  # for the sake of further problems
    fields = fields_of(command)
    if "changes" in fields:
        values["changes"] = changes
    if "order" in fields:
        values["order"] = [path for path, value in given for _ in (value if isinstance(value, list) else [value])]
    misread: list[Problem] = []
    read, _ = read_options(command, values, misread)
    found += [_as_option(problem, fields) for problem in misread]
    if read is not None:
        named = {problem.path.partition("[")[0] for problem in found}
        found += [problem for problem in read.problems() if problem.path not in named]
    if found:
        raise ConfigError(found)
    return typing.cast(Command, read)


def _collected(command: type[Any], given: Sequence[tuple[str, Any]]) -> tuple[dict[str, Any], dict[str, str]]:
    """Sorts what was given into texts by field of the command, and by path of a configuration."""
    fields = fields_of(command)
    values: dict[str, Any] = {}
    changes: dict[str, str] = {}
    for path, value in given:
        name = path.replace(".", "__")
        if name not in fields:
            changes.pop(path, None)  # what is said last is also applied last
            changes[path] = value
        elif _count(fields[name]) == "+":
            values.setdefault(name, []).extend(value)
        else:
            values[name] = value
    return values, changes


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Runs a command and exits with its code.

    Args:
        argv: Command and options; None takes the process's own.
    """
    words = list(sys.argv[1:] if argv is None else argv)

    def command() -> int | None:
        if not words or words[0] in ("-h", "--help"):
            print(_overview())
            return DONE
        if words[0] == "--version":
            print(f"seg {__version__}")
            return DONE
        if words[0] not in COMMANDS:
            raise ConfigError(unknown(words[0], "command", list(COMMANDS)))
        with file_problems():
            return read_command(words[0], words[1:]).run()

    run(command)


def run(command: Callable[[], int | None]) -> NoReturn:
    """Calls a function and exits with its code.

    Exit codes: what the function returns (0 done, 1 some cases failed or were left out), 2 for wrong use or unreadable
    input, 3 for a fault of the program, 130 where the user interrupts or SIGTERM arrives.

    Args:
        command: Returns the exit code, or None for 0.
    """
    _show_messages()
    _name_user()
    try:
        with _sigterm_as_interrupt():
            code = command() or DONE
    except SegError as error:
        for problem in error.sentences:
            _say(f"error: {problem}")
        code = WRONG_USE
    except KeyboardInterrupt:
        _say("\ninterrupted; files that were complete before are kept.")
        code = INTERRUPTED
    except Exception as error:
        _say(f"error: {_fault(error)}")
        code = FAULT
    sys.exit(code)


def _say(text: str) -> None:
    print(text.encode(errors="backslashreplace").decode(), file=sys.stderr)


def _fault(error: Exception) -> str:
    """Writes the traceback of an unforeseen error to a log file; returns the sentence that people read."""
    file = getattr(error, "filename", None)
    notes = [*getattr(error, "__notes__", []), *([f"with the file {file}"] if file else [])]
    where = f", {', '.join(notes)}" if notes else ""
    handle, log = tempfile.mkstemp(prefix="seg-fault-", suffix=".log")
    with open(handle, "w", encoding="utf-8", errors="backslashreplace") as stream:
        stream.write(f"seg {__version__}, Python {platform.python_version()}, {platform.platform()}\n")
        stream.write(f"{shown(sys.argv)}\n\n{''.join(traceback.format_exception(error))}")
    what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return f"a fault of seg itself ({what}){where}; please report it with the log {log}."


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Treats SIGTERM like Ctrl-C, so that `docker stop` works."""
    owner = os.getpid()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            raise KeyboardInterrupt
        # A forked process is ended by the process that forked it.
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:  # ignored, or another's
        yield
        return
    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _name_user() -> None:
    """Gives a user id without an entry in the list of users a name, for which torch and others ask."""
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        os.environ.setdefault("USER", f"uid{os.getuid()}")


class _Plain(logging.Formatter):
    """A message as it is, after its level where that is a warning or worse."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {text}"


def _show_messages() -> None:
    """Sends what the package announces to stderr, so that stdout holds results alone."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Plain())
    logger = logging.getLogger("seg")
    logger.setLevel(logging.INFO)
    logger.handlers = [handler]


class _Parser(argparse.ArgumentParser):
    """A parser that raises where argparse would print and exit."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see --help.")


class _Collect(argparse.Action):
    """Collects options in their order as pairs of name and text, unread: argparse stops at the first bad value."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        namespace.given.append((self.dest, True if self.nargs == 0 else values))


def _parser(command: type[Any], name: str) -> _Parser:
    lines = (command.__doc__ or "").strip()
    epilog = "examples:\n" + "\n".join(f"  {example}" for example in command.examples)
    parser = _Parser(
        prog=f"seg {name}",
        usage=f"seg {name} {'NAME ' if command is Fetch else ''}[--OPTION VALUE ...]",
        description="\n".join(line.strip() for line in lines.splitlines()),
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(given=[])
    for option, field in _options(command).items():
        positional = command is Fetch and option == "name"
        flag = field.default is False
        required = " (required)" if field.default is REQUIRED else ""
        default = "" if required or flag or field.default is None or field.default == () else _default(field)
        names: dict[str, Any] = {} if positional else {"dest": option}
        parser.add_argument(
            option if positional else f"--{option}",
            action=_Collect,
            nargs=0 if flag else _count(field),
            metavar=None if flag else "NAME" if positional else _metavar(field),
            help=_escaped(f"{explanation(field)}{required}{default}"),
            **names,
        )
    fields = changeable(command)
    groups: dict[str, Any] = {}
    for path, field in fields.items():
        above = path.rpartition(".")[0]
        if above not in groups:
            groups[above] = parser.add_argument_group(above or "configuration")
        section = fields_of(ExperimentConfig).get(above) if command is Train else None
        within = above if section is not None and section.optional else ""
        when = f"to be given where {within} is" if field.default is REQUIRED else ""
        when = when or f"default{f' once {within} is given' if within else ''}: {_value(field)}"
        form_of = "N|all" if path == "fold" else _form(field)
        text = _escaped(f"{explanation(field)} ({when})")
        groups[above].add_argument(f"--{path}", dest=path, action=_Collect, metavar=form_of, help=text)
    return parser


def _options(command: type[Any]) -> dict[str, ConfigField]:
    """Returns the fields of a command by the names of their options: two underscores stand for a dot."""
    fields = fields_of(command)
    return {name.replace("__", "."): field for name, field in fields.items() if name not in ("changes", "order")}


def _count(field: ConfigField) -> int | str | None:
    """Returns how many words an option takes, as argparse says it."""
    item = item_of(field.hint)
    return None if item is None else "+" if item[1] is None else item[1]


def _metavar(field: ConfigField) -> str:
    item = item_of(field.hint)
    return form(field.hint if item is None else item[0]).removesuffix("|null")


def _form(field: ConfigField) -> str:
    return form(field.hint) if field.section is None else "null|{FIELD: VALUE, ...}"


def _value(field: ConfigField) -> str:
    return "null" if field.section is not None else as_yaml(field.default)


def _default(field: ConfigField) -> str:
    return f" (default: {_value(field)})"


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


def _unknown_options(rest: Sequence[str], known: Sequence[str]) -> list[Problem]:
    """Turns words that are no option into problems."""
    found = []
    value_follows = False
    for word in rest:
        if word.startswith("--"):
            option = word.partition("=")[0]
            inside = [name for name in known if f"--{name}".startswith(f"{option}.")]
            if inside:
                rule = "is a group, whose fields are set one by one"
                remedy = f"as in --{inside[0]} VALUE"
                found.append(Problem(option, "unknown", rule, remedy=remedy))
            else:
                found.append(unknown(option, "option", [f"--{name}" for name in known]))
            value_follows = "=" not in word
        elif value_follows:
            value_follows = False
        else:
            rule = "is no option; options have the form --name VALUE"
            found.append(Problem(shown(word), "unknown", rule))
    return found


def _as_option(problem: Problem, fields: Mapping[str, ConfigField]) -> Problem:
    """Names an option, not the field that holds it."""
    name = problem.path.partition("[")[0]
    if name not in fields:
        return problem
    path = f"--{problem.path.replace('__', '.')}"
    return Problem(path, problem.kind, problem.rule, problem.value, problem.remedy)


def _overview() -> str:
    lines = [f"  {name:10} {(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: seg COMMAND [--OPTION VALUE ...]; seg COMMAND --help explains the options",
            "",
            *lines,
            "",
            "examples:",
            "  seg fetch phantom && seg train --config phantom",
            "  seg plan --data.root data/scans --output my.yaml && seg train --config my.yaml --run_dir runs/mine",
            "  seg predict --run_dir runs/mine --input scans --output labels",
            "",
            "seg --version prints the version.",
        ]
    )


def _conflict(option: str, other: str, remedy: str) -> Problem:
    return Problem(option, "conflict", f"must not come with {other}", remedy=remedy)


def _folder_problems(option: str, folder: Path | str | None, *, exists: bool = True) -> Iterator[Problem]:
    """Yields a problem where a path is no folder.

    Args:
        option: What names the folder.
        folder: The path; null is none.
        exists: Whether the folder must exist; a file must never stand in its place.
    """
    if folder is None or os.path.isdir(folder):
        return
    rule = "must be a folder"
    if os.path.isfile(folder):
        remedy = f"name its folder, {Path(folder).parent}"
        yield Problem(option, "folder", rule, f"the file {folder}", remedy)
    elif exists:
        yield Problem(option, "folder", rule, f"{folder}", "check the path")


def _file_problems(option: str, file: Path | None) -> Iterator[Problem]:
    """Yields a problem where a folder stands in the place of a file."""
    if file is not None and os.path.isdir(file):
        value = f"the folder {file}"
        yield Problem(option, "file", "must be a file", value, "add a file name")


def _pattern_problems(option: str, pattern: str | None) -> Iterator[Problem]:
    problem = None if pattern is None else pattern_problem(pattern, name=option)
    if problem is not None:
        yield problem


if __name__ == "__main__":
    main()
