"""The command line: one class per command, whose fields are its options, and what ends a command.

Each option is stated once, as a field with type, range and description; parsing, messages and help are made from the
fields by the code that reads configurations. Heavy packages are imported when a command runs, so that help is quick.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import platform
import re
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, Literal, NoReturn

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr
from pydantic.dataclasses import dataclass

from seg import __version__
from seg.compression import CASES, TUNE_STEPS
from seg.compression.target import read_target
from seg.config import DeviceName, EvaluationConfig, ExperimentConfig, PrecisionName, StudyConfig, load_config
from seg.config.fields import (
    REQUIRED,
    STRICT,
    AtLeastOne,
    ConfigField,
    FilePath,
    NewFile,
    Positive,
    fields_of,
    form,
    item_of,
    setting,
)
from seg.config.loading import explanation, find_config, own_config, read_options, unknown
from seg.config.patients import pattern_problems
from seg.config.study import MARGIN, SpeedConfig
from seg.config.text import as_yaml, text_problem
from seg.errors import ConfigError, Problem, RunError, SegError, escaped, shown
from seg.files import file_problems
from seg.planning import MEMORY_GIB
from seg.processes import name_user

DONE, SOME_FAILED, WRONG_USE, FAULT, INTERRUPTED = 0, 1, 2, 3, 130
MEMORY_PROBLEM = Problem(
    "memory", "memory", "must suffice", remedy="make patches, batch, network or volume smaller, or use another machine"
)
TRAINING_PACKAGES = (
    *("torch", "monai", "pytorch_lightning", "surface_distance"),
    *("matplotlib", "jinja2", "PIL", "tensorboard", "pandas"),
)
"""Modules of the extra ``train``."""
MOST_SAID = 10
"""Problems of a command that are printed; of further ones the number is."""
Changes = Mapping[StrictStr, StrictStr]
"""Texts by dotted path of a configuration, in the order typed."""
COMMON = "set."
"""What stands before the path of an experiment's field, to change the field for all variants of a study."""


USAGE = "usage: seg COMMAND [--OPTION VALUE ...]; seg COMMAND --help explains the options"
EXAMPLES = """\
examples:
  seg fetch phantom && seg train --config phantom
  seg plan --data.root data/scans --output my.yaml && seg train --config my.yaml --run_dir runs/mine
  seg predict --run_dir runs/mine --input scans --output labels

seg --version prints the version."""


class Command:
    """A command with its options read: fields are options, examples show their use."""

    examples: ClassVar[tuple[str, ...]] = ()

    def problems(self) -> Iterator[Problem]:
        """Yields what is wrong with the options together."""
        yield from ()

    def run(self) -> int | None:
        """Does the work; returns the exit code, None for 0."""
        raise NotImplementedError


def _split_names(text: str) -> list[str]:
    """Returns names that are separated by commas."""
    return [name.strip() for name in text.split(",")]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Train(Command):
    """Train on a data set, then predict, score and draw the held-out cases."""

    examples: ClassVar = (
        "seg train --config phantom",
        "seg train --config my.yaml --fold all --run_dir runs/mine",
        "seg train --config my.yaml --fold 0,1 --run_dir runs/mine",
        "seg train --config my.yaml --fold none --run_dir runs/final",
        "seg train --config my.yaml --classes LV,MYO --run_dir runs/left",
        "seg train --config my.yaml --training.steps 4000 --training.validate_every 400 --run_dir runs/long",
        "seg train --resume --run_dir runs/mine",
    )
    config: tuple[FilePath, ...] = setting(
        (),
        "YAML file, or the name of a configuration that comes with the package; repeat it to overlay, later files "
        "over earlier ones, the options of single fields over all files.",
    )
    run_dir: FilePath | None = setting(None, "Run directory (default: NAME/seed_S/fold_N in training.runs_dir).")
    resume: StrictBool = setting(
        False,
        "Continue an unfinished run; with --run_dir alone, with its own configuration, all folds where it holds "
        "fold_0, fold_1, ...",
    )
    init_from: FilePath | None = setting(
        None,
        "Run directory whose weights are the initial ones, as --training.init_from; a resumed run keeps to its "
        "first choice.",
    )
    classes: StrictStr | None = setting(
        None,
        "Names of the classes to train and predict, separated by commas, as --data.classes; others are background.",
    )
    changes: Changes = Field(default_factory=dict)

    def problems(self) -> Iterator[Problem]:
        yield from _folder_problems("--init_from", self.init_from)
        if not self.config and not (self.resume and self.run_dir is not None):
            yield Problem("--config", "missing", "must name a YAML file", "none", "an example is --config phantom")
        try:
            yield from _folder_problems("data.root", self.experiment().data.root, exists=False)
        except ConfigError as error:
            yield from error.problems

    def run(self) -> int:
        from seg.workflows.train import train

        config = self.experiment()
        folds = None if self._sources()[1] else self._listed() or (config.fold,)
        return train(config, run_dir=self.run_dir, folds=folds, resume=self.resume)

    def experiment(self) -> ExperimentConfig:
        """Reads the experiment."""
        changes: dict[str, object] = dict(self.changes)
        if changes.get("fold") == "all":
            del changes["fold"]
        elif listed := self._listed():
            changes["fold"] = listed[0]
        elif changes.get("fold") == "none":
            changes["fold"] = "null"
        if self.init_from is not None:
            changes["training.init_from"] = str(self.init_from)
        if self.classes is not None:
            changes["data.classes"] = _split_names(self.classes)
        return load_config(self._sources()[0], changes)

    def _listed(self) -> tuple[int, ...]:
        """Returns the folds of a list such as 0,1, each once; none where --fold gives no list."""
        text = self.changes.get("fold", "")
        return tuple(dict.fromkeys(map(int, text.split(",")))) if re.fullmatch(r"\d{1,4}(,\d{1,4})+", text) else ()

    def _sources(self) -> tuple[list[Path], bool]:
        """Returns the files of the configuration, and whether all folds are trained."""
        every_fold = self.changes.get("fold") == "all"
        if self.config or not self.resume or self.run_dir is None:
            return [find_config(path) for path in self.config], every_fold
        own, of_folds = own_config(self.run_dir)
        return [own], every_fold or (of_folds and "fold" not in self.changes)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Plan(Command):
    """Read the fingerprint of a data set and write a configuration that trains on it."""

    examples: ClassVar = (
        "seg plan --data.root data/scans --output my.yaml",
        "seg plan --data.root data/scans --memory_gib 8 --data.patient_pattern '(patient\\d+)_' --output my.yaml",
    )
    data__root: FilePath = Field(description="Folder of the data set.")
    data__layout: Literal["auto", "msd", "nnunet", "manifest"] = setting(
        "auto", "MSD, nnU-Net v2 raw, a manifest, or found out from the folder's files."
    )
    data__patient_pattern: StrictStr | None = setting(
        None,
        "Regular expression whose first group is the patient in a case id (default: found in the ids where they "
        "end in a frame, a visit or the like).",
    )
    classes: StrictStr | None = setting(
        None, "Names of the classes to plan for, separated by commas; others are background (default: all)."
    )
    data__label_grid: Literal["own", "image"] = setting(
        "own", "Where a label lies: where its own header says, or on the image's grid."
    )
    data__nan: Literal["refuse", "background"] = setting(
        "refuse", "What voxels that are not a number are: a fault, or background."
    )
    memory_gib: Positive = setting(MEMORY_GIB, "Memory that training may take, in GiB.")
    output: NewFile | None = setting(None, "File of the configuration (default: printed).")
    overwrite: StrictBool = setting(False, "Replace the file of --output where it exists.")

    def problems(self) -> Iterator[Problem]:
        yield from _folder_problems("--data.root", self.data__root, exists=False)
        if self.data__patient_pattern is not None:
            yield from pattern_problems(self.data__patient_pattern, name="--data.patient_pattern")
        yield from _file_problems("--output", self.output)
        if self.output and not self.overwrite and os.path.lexists(self.output) and not os.path.isdir(self.output):
            remedy = "choose another, or replace it with --overwrite"
            yield Problem("--output", "exists", "must be a new file", f"{self.output}", remedy)

    def run(self) -> None:
        from seg.files import write_text
        from seg.planning.plan import plan_dataset

        text = plan_dataset(
            self.data__root,
            layout=self.data__layout,
            memory_gib=self.memory_gib,
            patient_pattern=self.data__patient_pattern,
            classes=None if self.classes is None else _split_names(self.classes),
            label_grid=self.data__label_grid,
            nan=self.data__nan,
            output=self.output,
        )
        if self.output is None:
            print(text, end="")
            return
        write_text(self.output, text)
        print(f"configuration: {self.output}")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Predict(Command):
    """Segment scans: label maps on the scans' own grids, and predictions.json beside them; not for clinical use."""

    examples: ClassVar = (
        "seg predict --run_dir runs/mine --input scans --output labels",
        "seg predict --run_dir runs/mine --input scan.nii.gz --output label.nii.gz --tta",
    )
    run_dir: tuple[FilePath, ...] = Field(
        description="Finished run directory, or what `seg export` made of it; repeat it to average several networks; a "
        "directory that holds fold_0, fold_1, ... stands for all of these."
    )
    input: FilePath = Field(
        description="Scan, folder of scans, or text file with one scan on each line, and behind a tab the name of its "
        "label map where that is another; NIfTI, and NRRD, MetaImage or DICOM where the package that reads them is "
        "installed; files NAME_0000, NAME_0001, ... are channels of one scan."
    )
    output: FilePath = Field(
        description="Where label maps go: a file for one scan, else a folder, in which each is named after its scan."
    )
    device: DeviceName = setting("auto", "Where to compute; auto takes a GPU where there is one, mps being Apple's.")
    precision: PrecisionName = setting(
        "auto",
        "Arithmetic of the networks; auto is training.precision of each run in torch, whose own auto takes bf16 where "
        "the hardware computes it, and fp32, or int8 of a network in int8, in other engines. bf16 is for torch and "
        "openvino.",
    )
    tta: StrictBool = setting(False, "Average over mirrored copies, along the axes that training mirrored; slower.")
    probabilities: StrictBool = setting(False, "Write probabilities too, 4-D files in the folder probabilities/.")
    engine: Literal["auto", "torch", "openvino", "onnxruntime"] | None = setting(
        None,
        "What runs the networks; auto takes the fastest that is installed, measured once for a network on this "
        "machine (default: torch for run directories, auto for exported networks).",
    )
    skip_existing: StrictBool = setting(False, "Leave label maps that are there already.")
    overwrite: StrictBool = setting(False, "Replace label maps that are there already.")

    def problems(self) -> Iterator[Problem]:
        if self.skip_existing and self.overwrite:
            yield _conflict("--skip_existing", "--overwrite", "leave one of them out")

    def run(self) -> int:
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
            engine=self.engine,
        )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Evaluate(Command):
    """Score a run's held-out cases, or one folder of label maps against another."""

    examples: ClassVar = (
        "seg evaluate --run_dir runs/mine",
        "seg evaluate --predictions labels --labels references --class_names left,right",
    )
    run_dir: FilePath | None = setting(
        None, "Run directory whose held-out cases are scored; all folds where it holds fold_0, fold_1, ..."
    )
    data__root: FilePath | None = setting(
        None, "Folder of the run's data set, where it moved (default: data.root of the run)."
    )
    predictions: FilePath | None = setting(None, "Folder of predicted label maps (NIfTI).")
    labels: FilePath | None = setting(None, "Folder of references with the same case ids.")
    output: FilePath | None = setting(
        None,
        "Folder of evaluation.json, cases.csv and cases.html, which are replaced (default: that of the run, or of "
        "the predictions).",
    )
    images: FilePath | None = setting(None, "Folder of images on which cases.html draws the cases; two folders alone.")
    nsd_tolerance_mm: Positive | None = setting(
        None,
        "Tolerance of the normalised surface Dice, in mm; two folders alone (default: "
        f"{EvaluationConfig().nsd_tolerance_mm:g}).",
    )
    class_names: StrictStr | None = setting(
        None,
        "Names of classes 1, 2, ..., separated by commas; values above are refused; two folders alone (default: "
        "every value found, as class_1, class_2, ...).",
    )
    ignore_label: StrictInt | None = setting(
        None, "Value of reference voxels that count for neither side; two folders alone."
    )
    patient_pattern: StrictStr | None = setting(
        None,
        "Regular expression whose first group is the patient in a case id; intervals resample patients; two "
        "folders alone (default: each case is a patient of its own).",
    )
    workers: AtLeastOne | None = setting(
        None, "Processes that score cases, at most one for each case and core; two folders alone (default: 1)."
    )
    leave_out: StrictBool = setting(
        False,
        "Leave out cases that lack a counterpart or cannot be scored, name them, and exit with 1; two folders "
        "alone, where one such case else refuses all.",
    )

    def problems(self) -> Iterator[Problem]:
        names = ("images", "nsd_tolerance_mm", "class_names", "ignore_label", "patient_pattern", "workers", "leave_out")
        if self.run_dir is not None:
            for option in _changed(self, "predictions", "labels", *names):
                yield _conflict(option, "--run_dir", "leave it out; a run says it itself")
        elif self.predictions is None or self.labels is None:
            rule = "or both --predictions and --labels must be given"
            yield Problem("--run_dir", "missing", rule, remedy="see --help")
        elif self.data__root is not None:
            yield _needs("--data.root", "--run_dir", "leave it out")
        yield from _folder_problems("--run_dir", self.run_dir, exists=False)
        yield from _folder_problems("--data.root", self.data__root, exists=False)
        if self.patient_pattern is not None:
            yield from pattern_problems(self.patient_pattern, name="--patient_pattern")
        yield from self._name_problems()

    def _name_problems(self) -> Iterator[Problem]:
        if self.class_names is None:
            return
        names, ignored = self._names(), self.ignore_label
        rule = ""
        if "" in names:
            rule = "must be names separated by commas, without an empty name"
        elif "background" in names[1:]:
            rule = "must begin with class 1; background is class 0 and needs no name"
        elif len(set(names)) < len(names):
            rule = "must name each class once"
        if rule:
            yield Problem("--class_names", "names", rule, shown(self.class_names))
        if ignored is not None and 0 <= ignored < len(names):
            remedy = "leave the class out of --class_names or correct the label"
            yield Problem(
                "--ignore_label", "conflict", "must be no class", f"{ignored}, which is {names[ignored]}", remedy
            )

    def _names(self) -> tuple[str, ...]:
        return ("background", *_split_names(self.class_names or ""))

    def run(self) -> int:
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
class Ablate(Command):
    """Run an ablation study: train every variant, measure speed and preservation, write the report.

    Started again, a study goes on where it stopped.
    """

    examples: ClassVar = (
        "seg ablate --config phantom --dry_run",
        "seg ablate --config my_study.yaml --set training.steps=700 --launch.workers 2",
        "seg ablate --config my_study.yaml --set network.merge=add --set 'network.channels=[16,32,64,128]'",
    )
    config: FilePath = Field(description="YAML file of the study, or the name of a study that comes with the package.")
    ablation_dir: FilePath | None = setting(None, "Study directory (default: ablation/NAME in training.runs_dir).")
    runs: FilePath | None = setting(
        None, "Folder of the run directories, which hold weights (default: runs/ in the study directory)."
    )
    dry_run: StrictBool = setting(
        False, "Print every trial with parameters, GMAC and predicted time; a few steps are timed, no trial is trained."
    )
    only: tuple[StrictStr, ...] = setting((), "Run this variant alone; repeat it for more.")
    speed_only: StrictBool = setting(
        False,
        "Train nothing: measure the speed of the variants on every device present, with initial weights where "
        "there are no trained ones, and write the report where trials are finished.",
    )
    data__root: StrictStr | None = setting(None, "Folder of the data set (default: that of the study).")
    set: tuple[StrictStr, ...] = setting(
        (),
        "PATH=VALUE changes a field of the experiment for all variants, as in --set network.merge=add or --set "
        "'network.channels=[8,16]'; repeat it for more.",
    )
    changes: Changes = Field(default_factory=dict)

    def problems(self) -> Iterator[Problem]:
        if self.dry_run and self.speed_only:
            yield _conflict("--dry_run", "--speed_only", "leave one out; neither trains")
        for text in self.set:
            if not text.partition("=")[0] or "=" not in text:
                rule = "must have the form PATH=VALUE, as in --set training.steps=700"
                yield Problem("--set", "form", rule, shown(text))
        for option, folder in (("--data.root", self.data__root), ("--ablation_dir", self.ablation_dir)):
            yield from _folder_problems(option, folder, exists=False)

    def run(self) -> int:
        from seg.ablation.study import choose_variants, plan_study

        overrides = dict(self.changes)
        if self.data__root is not None:
            overrides[f"{COMMON}data.root"] = self.data__root
        for text in self.set:
            path, _, value = text.partition("=")
            overrides.pop(COMMON + path, None)  # what is said last is also applied last
            overrides[COMMON + path] = value
        study = choose_variants(plan_study(find_config(self.config, study=True), overrides), self.only)
        study_dir = self.ablation_dir or study.default_directory
        if self.dry_run:
            from seg.ablation.preview import preview_study

            print(preview_study(study, study_dir, runs_dir=self.runs))
            return DONE
        from seg.ablation.run import run_study

        return run_study(study, study_dir, runs_dir=self.runs, speed_only=self.speed_only)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Report(Command):
    """Write the report of an ablation study from its records, or put several studies side by side.

    The report is report.html, report.md with figures/ and results.csv, beside the results. Nothing is
    trained or measured.
    """

    examples: ClassVar = (
        "seg report --ablation_dir runs/ablation/phantom",
        "seg report --compare docs/results/bottleneck docs/results/acdc --output all.md",
    )
    ablation_dir: FilePath | None = setting(None, "Study directory.")
    runs: FilePath | None = setting(
        None,
        "Folder of the run directories, for pictures of the worst cases (default: runs/ in the study directory); "
        "where there is none, the pictures of an earlier report are kept.",
    )
    compare: tuple[FilePath, ...] = setting((), "Study directories to put side by side.")
    output: NewFile | None = setting(None, "Markdown file of the comparison.")

    def problems(self) -> Iterator[Problem]:
        if self.compare:
            if len(self.compare) < 2:
                yield Problem("--compare", "length", "must name two studies at least", "one", "add another")
            if self.output is None:
                yield Problem("--output", "missing", "must be given with --compare: a Markdown file", "none")
            for name in ("ablation_dir", "runs"):
                if getattr(self, name) is not None:
                    yield _conflict(f"--{name}", "--compare", "leave it out")
        elif self.ablation_dir is None:
            yield Problem("--ablation_dir", "missing", "must be given: the directory of a study", "none", "see --help")
        elif self.output is not None:
            yield _needs("--output", "--compare", "leave it out")
        given = [("--runs", self.runs), ("--ablation_dir", self.ablation_dir)]
        for option, path in [*given, *(("--compare", path) for path in self.compare)]:
            yield from _folder_problems(option, path)

    def run(self) -> None:
        from seg.ablation.report import write_comparison, write_report

        if self.compare and self.output is not None:
            print(write_comparison(self.compare, self.output))
        elif self.ablation_dir is not None:
            print(write_report(self.ablation_dir, runs_dir=self.runs))


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Compare(Command):
    """Compare finished runs of two variants, seed by seed: paired differences of Dice with intervals, and a verdict."""

    examples: ClassVar = ("seg compare --baseline runs/a/seed_0 runs/a/seed_1 --variant runs/b/seed_0 runs/b/seed_1",)
    baseline: tuple[FilePath, ...] = Field(description="Run directories of the baseline, one per seed.")
    variant: tuple[FilePath, ...] = Field(description="Run directories of the variant, in the same order of seeds.")
    margin: StrictFloat = setting(MARGIN, "Loss of Dice that still counts as not inferior.", gt=0, lt=1)

    def problems(self) -> Iterator[Problem]:
        if len(self.baseline) != len(self.variant):
            rule = "must name as many runs as --baseline, in the same order of seeds"
            yield Problem("--variant", "length", rule, f"{len(self.variant)} beside {len(self.baseline)}")
            return
        for number, paths in enumerate(zip(self.baseline, self.variant, strict=True), 1):
            files = [path / "config.yaml" for path in paths]
            known = [load_config([file]).seed for file in files if os.path.isfile(file)]
            if len(set(known)) > 1:
                value = f"{known[0]} in {paths[0]} and {known[1]} in {paths[1]}"
                remedy = "give runs in the same order of seeds"
                yield Problem(f"pair {number}", "seeds", "must have one seed", value, remedy)
        for path in _repeated((*self.baseline, *self.variant)):
            yield Problem(path, "repeated", "must be given once", remedy="leave one out")

    def run(self) -> None:
        from seg.ablation.report.compare import compare_runs

        print(compare_runs(self.baseline, self.variant, self.margin))


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Benchmark(Command):
    """Measure speed, memory and size of networks side by side in one process; the first is the baseline."""

    examples: ClassVar = (
        "seg benchmark --run_dir runs/mine --peers",
        "seg benchmark --config a.yaml --config b.yaml --num_classes 3 --device cpu",
        "seg benchmark --run_dir runs/mine --volume_shape 256 256 160",
    )
    run_dir: tuple[FilePath, ...] = setting(
        (), "Finished run directory, measured with its weights; repeat it, or mix it with --config, to compare several."
    )
    config: tuple[FilePath, ...] = setting(
        (),
        "YAML file of an experiment, measured with initial weights, which are as fast; repeat it, or mix it with "
        "--run_dir, to compare several.",
    )
    peers: StrictBool = setting(False, "Measure MONAI's DynUNet and BasicUNet beside them.")
    engines: tuple[Literal["openvino", "onnxruntime"], ...] = setting(
        (), "Measure a forward pass in these engines too, on the processor, with the networks exported for it."
    )
    rounds: StrictInt = setting(SpeedConfig().rounds, "Timed rounds.", ge=3)
    warmup: AtLeastOne = setting(SpeedConfig().warmup, "Untimed rounds before.")
    cases: StrictInt = setting(
        8, "Held-out cases whose prediction is timed from file to file, in half of the rounds; 0 leaves that out.", ge=0
    )
    device: Literal["all", "cpu", "cuda"] = setting(
        "all", "Where to measure; all is the processor and one GPU of each kind."
    )
    data__root: FilePath | None = setting(None, "Folder of the data set (default: that of the experiment).")
    num_channels: AtLeastOne | None = setting(None, "Channels of an image, with --num_classes (default: 1).")
    num_classes: StrictInt | None = setting(
        None, "Classes, background included, of the networks of --config; no data set is read then.", ge=2
    )
    volume_shape: tuple[AtLeastOne, AtLeastOne, AtLeastOne] | None = setting(
        None,
        "Measure time and memory of the prediction of one synthetic volume of so many voxels (X Y Z), from file to "
        "file, in place of all above; on the GPU where there is one.",
    )
    volume_spacing: tuple[Positive, Positive, Positive] | None = setting(
        None, "Voxel size (X Y Z) of that volume, in mm (default: that of the network, which then resamples nothing)."
    )
    plan: Literal["gpu", "tiny", "record"] | None = setting(
        None,
        "Make a series of measurements in place of all above, each saved as it is made and none twice: gpu takes ten "
        "minutes on one GPU and trains a --config at its end, tiny shows on any machine that all of it runs, "
        "record trains a --config from three seeds and says the seconds to a validation Dice of 0.88 and 0.889.",
    )
    output: NewFile | None = setting(
        None,
        "JSON file of the results (default: benchmark.json, with --volume_shape benchmark_volume.json, in the "
        "baseline's run directory, else in the current folder; with --plan NAME benchmark_NAME.json in the current "
        "folder).",
    )
    order: tuple[StrictStr, ...] = setting((), "")

    def problems(self) -> Iterator[Problem]:
        count = len(self.run_dir) + len(self.config)
        if not count and self.plan is None:
            yield Problem("--run_dir", "missing", "or --config must be given", remedy="see --help")
        if self.plan is not None and (self.run_dir or len(self.config) > 1):
            yield Problem("--plan", "conflict", "must come with one --config at most", str(count), "leave the rest out")
        if self.plan is not None and (self.peers or self.volume_shape is not None):
            yield _conflict("--plan", "--peers or --volume_shape", "a plan says itself what is measured")
        for option in ("engines", "rounds", "warmup", "cases", "num_channels", "num_classes"):
            if option in self.order and self.plan is not None:
                yield _conflict(f"--{option}", "--plan", "leave it out; a plan says itself what is measured")
            elif option in self.order and self.volume_shape is not None and not option.startswith("num_"):
                yield _conflict(f"--{option}", "--volume_shape", "leave it out; the volume is predicted by torch once")
        if self.plan == "record" and not self.config:
            yield _needs("--plan record", "--config", "name the experiment to train")
        for run_dir in self.run_dir:
            yield from _folder_problems("--run_dir", run_dir)
        for config in self.config:
            yield from _file_problems("--config", config)
        for again in _repeated((*self.run_dir, *self.config)):
            rule = "and --run_dir must each name something else"
            yield Problem("--config", "repeated", rule, f"{again} twice", "leave one out")
        if self.num_classes is not None and self.run_dir:
            yield _conflict("--num_classes", "--run_dir", "a run knows its classes")
        if self.num_channels is not None and self.num_classes is None:
            yield _needs("--num_channels", "--num_classes", "add it, or let the data set say both")
        if self.volume_spacing is not None and self.volume_shape is None:
            yield _needs("--volume_spacing", "--volume_shape", "add it")
        if self.volume_shape is not None and count > 1:
            yield Problem("--volume_shape", "conflict", "must come with one network", str(count), "measure each alone")
        if self.volume_shape is not None and self.peers:
            yield _conflict("--peers", "--volume_shape", "the volume is predicted by the project's networks alone")
        yield from _folder_problems("--data.root", self.data__root)
        yield from _file_problems("--output", self.output)

    def run(self) -> None:
        from seg.benchmark.run import benchmark, benchmark_plan

        if self.plan is not None:
            experiment = find_config(self.config[0]) if self.config else None
            benchmark_plan(self.plan, experiment, device=self.device, data_root=self.data__root, output=self.output)
            return
        given = {"run_dir": iter(self.run_dir), "config": map(find_config, self.config)}
        benchmark(
            [next(given[option]) for option in self.order if option in given],
            peers=self.peers,
            engines=self.engines,
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
class Export(Command):
    """Write a trained network for other engines, checked against torch; or pack a run into one file."""

    examples: ClassVar = (
        "seg export --run_dir runs/mine --format onnx",
        "seg export --run_dir runs/mine --format zip --output mine.zip",
        "seg export --run_dir runs/mine --format openvino --int8",
    )
    run_dir: FilePath = Field(
        description="Finished run directory; with --format zip it may hold fold_0, fold_1, ..., which are all packed."
    )
    format: Literal["onnx", "openvino", "zip"] = Field(
        description="onnx is read by OpenVINO and ONNX Runtime, openvino by OpenVINO alone; both get a JSON file "
        "beside them that predictions need. zip is the run itself: configuration, model card, weights."
    )
    output: NewFile | None = setting(
        None, "File that ends in .onnx, .xml or .zip (default: the run directory's name with that ending, beside it)."
    )
    overwrite: StrictBool = setting(False, "Replace files that are there already.")
    int8: StrictBool = setting(
        False,
        "Quantise convolutions to int8 by training crops, and compare with fp32 on the run's held-out patients; with "
        "--format openvino alone. A certificate lies beside the network.",
    )
    margin: StrictFloat | None = setting(
        None,
        "Loss of Dice in a class that int8 may not have to be written; with --int8 alone (default: 0.002).",
        gt=0,
        lt=1,
    )
    allow_inferior: StrictBool = setting(
        False, "Write the network in int8 also where held-out patients do not show it; with --int8 alone."
    )
    data__root: FilePath | None = setting(
        None, "Folder of the run's data set, where it moved; with --int8 alone (default: data.root of the run)."
    )

    def problems(self) -> Iterator[Problem]:
        yield from _folder_problems("--run_dir", self.run_dir)
        yield from _file_problems("--output", self.output)
        yield from _folder_problems("--data.root", self.data__root, exists=False)
        if self.int8 and self.format != "openvino":
            rule = "must be given with --format openvino"
            yield Problem("--int8", "conflict", rule, f"--format {self.format}", "take that, or leave --int8 out")
        for option in () if self.int8 else _changed(self, "margin", "allow_inferior", "data__root"):
            yield _needs(option, "--int8", "leave it out")

    def run(self) -> None:
        if self.int8:
            from seg.compression.int8 import MARGIN, export_int8

            export_int8(
                self.run_dir,
                output=self.output,
                overwrite=self.overwrite,
                data_root=self.data__root,
                margin=MARGIN if self.margin is None else self.margin,
                allow_inferior=self.allow_inferior,
            )
            return
        from seg.workflows.export import export

        export(self.run_dir, format=self.format, output=self.output, overwrite=self.overwrite)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Fetch(Command):
    """Put a data set in place: download a public one, with checksum, or generate the embedded phantoms."""

    examples: ClassVar = ("seg fetch phantom", "seg fetch hippocampus --root data")
    name: StrictStr = Field(description="Data set: hippocampus is downloaded, phantom is made here.")
    root: FilePath = setting(Path("data"), "Folder to put it in.")

    def problems(self) -> Iterator[Problem]:
        from seg.data.fetch import ARCHIVES

        known = [*sorted(ARCHIVES), "phantom"]
        if self.name not in known:
            yield Problem("NAME", "unknown", f"must be one of {', '.join(known)}", shown(self.name))

    def run(self) -> None:
        if self.name == "phantom":
            from seg.data.phantom.files import write_dataset
            from seg.data.phantom.scan import PhantomConfig

            folder = write_dataset(self.root / "phantom", PhantomConfig(), seed=0)
        else:
            from seg.data.fetch import ARCHIVES, fetch, show_progress
            from seg.data.splits import STUDY_FILE_NAME, study_splits, write_splits

            folder = fetch(ARCHIVES[self.name], self.root, progress=show_progress)
            folds = folder / STUDY_FILE_NAME
            if not folds.exists():
                write_splits(study_splits(self.name), folds)
            print(f"folds of the published studies: {folds}")
        print(f"data set: {folder}")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Widths(Command):
    """Predict how many channels each feature map of a trained network needs, and time what fewer save.

    A few training cases are looked at; no weight is changed. The output has a page (widths.html), tables
    (widths.json, widths.csv), points of a study (points.yaml) and a network to train from scratch (network.yaml).
    """

    examples: ClassVar = (
        "seg widths --run_dir runs/mine",
        "seg widths --run_dir runs/mine --margin 0.01 --cases 20 --no_timing --output widths",
    )
    run_dir: FilePath = Field(description="Finished run of one fold.")
    output: FilePath | None = setting(
        None, "Folder of the files, which are replaced (default: widths in the run directory)."
    )
    margin: StrictFloat = setting(MARGIN, "Loss of Dice, of each class, that counts as safe.", gt=0, lt=1)
    cases: StrictInt = setting(CASES, "Training cases that are measured.", ge=2)
    no_timing: StrictBool = setting(False, "Leave out the milliseconds that narrow maps save.")
    data__root: FilePath | None = setting(
        None, "Folder of the run's data set, where it moved (default: data.root of the run)."
    )

    def problems(self) -> Iterator[Problem]:
        yield from _folder_problems("--run_dir", self.run_dir, unpacked=False)
        yield from _folder_problems("--output", self.output, exists=False)
        yield from _folder_problems("--data.root", self.data__root, exists=False)

    def run(self) -> None:
        from seg.compression.widths import find_widths

        find_widths(
            self.run_dir,
            self.output,
            margin=self.margin,
            cases=self.cases,
            timing=not self.no_timing,
            data_root=self.data__root,
        )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Publish(Command):
    """Write the results of a study as a few tables with six significant digits, in place of a folder a trial.

    A published study can be reported, continued and published again.
    """

    examples: ClassVar = ("seg publish --ablation_dir runs/ablation/mine --output docs/results/mine",)
    ablation_dir: FilePath = Field(description="Study directory.")
    output: FilePath | None = setting(None, "Directory to write (default: the study directory).")

    def run(self) -> None:
        from seg.ablation.publish import publish

        print(f"published: {publish(self.ablation_dir, self.output)}")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Compress(Command):
    """Make smaller networks from a trained one, and certify them on the patients that it did not see.

    3x3 convolutions become 1x1 - 3x3 - 1x1, where the loss that is predicted from a few training cases is least for the
    work saved. For a latency or a number of parameters, feature maps lose channels too. Without a target, networks of
    less and less work are made while training patients that are held back keep the Dice of each class. Every step is an
    ordinary run directory. The steps are frozen first, then tested from mild to strong until one does not pass. The
    same command again goes on where it was interrupted.
    """

    examples: ClassVar = (
        "seg compress --run_dir runs/mine --output runs/small",
        "seg compress --run_dir runs/mine --target latency=0.5 --engine openvino --output runs/fast",
        "seg compress --run_dir runs/mine --target macs=0.5,0.3 --margin 0.01 --output runs/small",
    )
    run_dir: FilePath = Field(
        description="Finished run of one fold, with the scores of its held-out cases; all folds where it holds fold_0, "
        "fold_1, ... Its certificate_ledger.json counts how often its held-out cases were looked at."
    )
    output: FilePath = Field(
        description="New folder: a run directory for each step, compression.json, certificate.json and certificate.md."
    )
    target: StrictStr | None = setting(
        None,
        "What the steps keep of the original's latency, macs or parameters, as KIND=SHARE or KIND=SHARE,SHARE,... with "
        "shares in (0, 1) (default: less and less work, as far as held-back patients allow).",
    )
    engine: Literal["torch", "openvino", "onnxruntime"] = setting(
        "torch", "What runs both networks where they are timed and scored."
    )
    int8: StrictBool = setting(
        False, "Make the smallest step in int8 too, and test that last; needs --engine openvino and segnarrow[int8]."
    )
    margin: StrictFloat = setting(MARGIN, "Loss of Dice that still counts as not inferior.", gt=0, lt=1)
    cases: AtLeastOne = setting(CASES, "Training cases that are measured.")
    multiple: AtLeastOne | None = setting(
        None,
        "All widths but those of the 1x1 before kernels are multiples of this number (default: 8 where a latency is "
        "the target, else 1).",
    )
    tune_steps: StrictInt = setting(
        TUNE_STEPS,
        "Steps of training towards the original's probabilities at most, for a step that loses more than a quarter of "
        "the margin on held-back patients; weights are kept only where they are better there.",
        ge=0,
    )
    data__root: FilePath | None = setting(
        None, "Folder of the run's data set, where it moved (default: data.root of the run)."
    )

    def problems(self) -> Iterator[Problem]:
        if self.target is not None:
            try:
                read_target(self.target, name="--target")
            except ConfigError as error:
                yield from error.problems
        if self.int8 and self.engine != "openvino":
            yield _conflict("--int8", f"--engine {self.engine}", "add --engine openvino")
        yield from _folder_problems("--run_dir", self.run_dir, unpacked=False)
        yield from _folder_problems("--output", self.output, exists=False)
        yield from _folder_problems("--data.root", self.data__root, exists=False)

    def run(self) -> None:
        from seg.compression.compress import compress

        compress(
            self.run_dir,
            self.output,
            target=None if self.target is None else read_target(self.target),
            engine=self.engine,
            int8=self.int8,
            margin=self.margin,
            cases=self.cases,
            multiple=self.multiple,
            tune_steps=self.tune_steps,
            data_root=self.data__root,
        )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Certify(Command):
    """Certify that a network loses less Dice than a margin against another one, on patients that both held out.

    However the network was made: trained at other widths, compressed from a third one, or of another shape. Both are
    run alike, and the comparison is written into the original's ledger before it is made.
    """

    examples: ClassVar = (
        "seg certify --run_dir runs/small/macs_0.5 --original runs/large --output runs/certified",
        "seg certify --run_dir runs/thin --original runs/wide --engine openvino --margin 0.01 --output runs/certified",
    )
    run_dir: FilePath = Field(description="Finished run of one fold; all folds where it holds fold_0, fold_1, ...")
    original: FilePath = Field(
        description="What it is compared with: finished runs of the same folds. Its certificate_ledger.json counts how "
        "often its held-out cases were looked at."
    )
    output: FilePath = Field(description="Folder of certificate.json and certificate.md.")
    engine: Literal["torch", "openvino", "onnxruntime"] = setting(
        "torch", "What runs both networks where they are timed and scored."
    )
    margin: StrictFloat = setting(MARGIN, "Loss of Dice that still counts as not inferior.", gt=0, lt=1)
    data__root: FilePath | None = setting(
        None, "Folder of the runs' data set, where it moved (default: data.root of each run)."
    )

    def problems(self) -> Iterator[Problem]:
        yield from _folder_problems("--run_dir", self.run_dir, unpacked=False)
        yield from _folder_problems("--original", self.original, unpacked=False)
        yield from _folder_problems("--output", self.output, exists=False)
        yield from _folder_problems("--data.root", self.data__root, exists=False)

    def run(self) -> None:
        from seg.compression.certify import certify_run

        certify_run(
            self.run_dir,
            self.original,
            self.output,
            engine=self.engine,
            margin=self.margin,
            data_root=self.data__root,
        )


COMMANDS: dict[str, type[Command]] = {
    command.__name__.lower(): command
    for command in (
        Train,
        Plan,
        Predict,
        Evaluate,
        Ablate,
        Report,
        Publish,
        Compare,
        Benchmark,
        Widths,
        Compress,
        Certify,
        Export,
        Fetch,
    )
}


def changeable(command: type[Command]) -> dict[str, ConfigField]:
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

    Raises:
        ConfigError: Options cannot be used; all problems together.
    """
    command = COMMANDS[name]
    if found := [Problem(shown(text), "text", "must be text", bad) for text in argv if (bad := text_problem(text))]:
        raise ConfigError(found)
    options, rest = _parser(command, name).parse_known_args(argv)
    given: list[tuple[str, Any]] = options.given
    found = _unknown_options(rest, [*_options(command), *changeable(command)])
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
    assert read is not None  # a field that lacks its value is a problem
    return read


def _collected(command: type[Command], given: Sequence[tuple[str, Any]]) -> tuple[dict[str, Any], dict[str, str]]:
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
    """Runs the command of some words, those of the process by default, and exits with its code."""
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

    Exit codes: what the function returns (0 or None done, 1 some cases failed or were left out), 2 for wrong use or
    unreadable input, 3 for a fault of the program, 130 where the user interrupts or SIGTERM arrives.
    """
    _show_messages()
    name_user()
    try:
        output: Any = _Output(sys.stdout)
        with _sigterm_as_interrupt(), redirect_stdout(output):
            try:
                code = command() or DONE
            finally:
                output.flush()
    except SegError as error:
        _say_problems(error.sentences)
        code = WRONG_USE
    except KeyboardInterrupt:
        _say("\ninterrupted; files that were complete before are kept.")
        code = INTERRUPTED
    except ModuleNotFoundError as error:
        missing = _missing_package(error)
        _say(f"error: {missing or _fault(error)}")
        code = FAULT if missing is None else WRONG_USE
    except Exception as error:
        from seg.inference.memory import out_of_memory

        without_memory = out_of_memory(error)
        _say(f"error: {MEMORY_PROBLEM if without_memory else _fault(error)}")
        code = WRONG_USE if without_memory else FAULT
    sys.exit(code)


def _missing_package(error: ModuleNotFoundError) -> Problem | None:
    """Returns the problem of a package that a light installation lacks; None where the fault is another."""
    name = (error.name or "").partition(".")[0]
    if name not in TRAINING_PACKAGES:
        return None
    rule, remedy = "must be installed for this command", "pip install 'segnarrow[train]'"
    return Problem(name, "missing", rule, "an installation without", remedy)


def _say_problems(sentences: Sequence[str]) -> None:
    for sentence in sentences[:MOST_SAID]:
        _say(f"error: {sentence}")
    if len(sentences) > MOST_SAID:
        _say(f"error: and {len(sentences) - MOST_SAID} more.")


class _Output:
    """Standard output that raises RunError, a problem for the user, where it cannot be written to: a full disk, say.

    Characters that its encoding lacks are escaped; where the stream is closed, nothing is printed.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream or io.StringIO()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        with self._problem():
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        with self._problem():
            self._stream.flush()

    @contextmanager
    def _problem(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            rule, value = "must be writable", f"'{error.strerror}'"
            raise RunError(Problem("standard output", "unwritable", rule, value, "print to another place")) from error


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
            if hasattr(signal, "SIGCHLD"):  # torch turns the end of loader workers, whom it reaches too, into a fault
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
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


class _Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = escaped(super().format(record), keep="\n\t")
        return text if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {text}"


class _Once(logging.Filter):
    """Drops repeated messages about the machine, such as the chosen device."""

    SPEAKER = "seg.hardware"  # by name: importing the module would slow the start

    def __init__(self) -> None:
        super().__init__()
        self.said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if record.name != self.SPEAKER:
            return True
        if text in self.said:
            return False
        self.said.add(text)
        return True


def _show_messages() -> None:
    """Sends what the package announces to stderr, so that stdout holds results alone."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Plain())
    handler.addFilter(_Once())
    logger = logging.getLogger("seg")
    logger.setLevel(logging.INFO)
    logger.handlers = [handler]


class _Parser(argparse.ArgumentParser):
    """A parser that raises where argparse would print and exit."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(Problem("", "usage", f"{message}; see --help."))


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


def _parser(command: type[Command], name: str) -> _Parser:
    positional = "name" if command is Fetch else None
    parser = _Parser(
        prog=f"seg {name}",
        usage=f"seg {name} {'NAME ' if positional else ''}[--OPTION VALUE ...]",
        description="\n".join(line.strip() for line in (command.__doc__ or "").strip().splitlines()),
        epilog="examples:\n" + "\n".join(f"  {example}" for example in command.examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(given=[])
    for option, field in _options(command).items():
        default = " (required)" if field.default is REQUIRED else f" (default: {as_yaml(field.default)})"
        plain = field.default is None or field.default is False or field.default == ()
        about = f"{explanation(field)}{'' if plain else default}".replace("%", "%%")
        if option == positional:
            parser.add_argument(option, action=_Collect, metavar="NAME", help=about)
        elif field.default is False:
            parser.add_argument(f"--{option}", dest=option, action=_Collect, nargs=0, help=about)
        else:
            item = item_of(field.hint)
            words = form(field.hint if item is None else item[0]).removesuffix("|null")
            how: dict[str, Any] = {"nargs": _count(field), "metavar": words, "help": about}
            parser.add_argument(f"--{option}", dest=option, action=_Collect, **how)
    groups: dict[str, Any] = {}
    sections = fields_of(ExperimentConfig) if command is Train else {}
    for path, field in changeable(command).items():
        above = path.rpartition(".")[0]
        if above not in groups:
            groups[above] = parser.add_argument_group(above or "configuration")
        optional = above in sections and sections[above].optional
        value = "null" if field.section is not None else as_yaml(field.default)
        when = f"default once {above} is given: {value}" if optional else f"default: {value}"
        when = f"to be given where {above} is" if field.default is REQUIRED else when
        words = form(field.hint) if field.section is None else "null|{FIELD: VALUE, ...}"
        words = "N|N,N,...|all|none" if path == "fold" else words
        about = f"{explanation(field)} ({when})".replace("%", "%%")
        groups[above].add_argument(f"--{path}", dest=path, action=_Collect, metavar=words, help=about)
    return parser


def _options(command: type[Command]) -> dict[str, ConfigField]:
    """Returns the fields of a command by the names of their options: two underscores stand for a dot."""
    fields = fields_of(command)
    return {name.replace("__", "."): field for name, field in fields.items() if name not in ("changes", "order")}


def _count(field: ConfigField) -> int | str | None:
    """Returns how many words an option takes, as argparse says it."""
    item = item_of(field.hint)
    return None if item is None else "+" if item[1] is None else item[1]


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
                found.append(Problem(option, "unknown", rule, remedy=f"as in --{inside[0]} VALUE"))
            else:
                found.append(unknown(option, "option", [f"--{name}" for name in known]))
            value_follows = "=" not in word
        elif value_follows:
            value_follows = False
        else:
            found.append(Problem(shown(word), "unknown", "is no option; options have the form --name VALUE"))
    return found


def _as_option(problem: Problem, fields: Mapping[str, ConfigField]) -> Problem:
    """Names an option, not the field that holds it."""
    if problem.path.partition("[")[0] not in fields:
        return problem
    return replace(problem, path=f"--{problem.path.replace('__', '.')}")


def _overview() -> str:
    lines = [f"  {name:10} {(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()]
    return f"{USAGE}\n\n" + "\n".join(lines) + f"\n\n{EXAMPLES}"


def _changed(command: Command, *names: str) -> list[str]:
    """Lists the options, of the named fields of a command, whose values differ from their defaults."""
    fields = fields_of(type(command))
    return [f"--{name.replace('__', '.')}" for name in names if getattr(command, name) != fields[name].default]


def _conflict(option: str, other: str, remedy: str) -> Problem:
    return Problem(option, "conflict", f"must not come with {other}", remedy=remedy)


def _needs(option: str, other: str, remedy: str) -> Problem:
    return Problem(option, "conflict", f"must come with {other}", remedy=remedy)


def _repeated(paths: Sequence[Path]) -> list[str]:
    """Lists the paths that are given more than once, whatever their spelling."""
    real = [os.path.realpath(path) for path in paths]
    return sorted({path for path in real if real.count(path) > 1})


def _folder_problems(
    option: str, folder: Path | str | None, *, exists: bool = True, unpacked: bool = True
) -> Iterator[Problem]:
    """Yields a problem where a path is no folder.

    Args:
        option: Name of the option.
        folder: Its value.
        exists: Whether a path where nothing is counts too.
        unpacked: Whether a packed run can be used once it is unpacked; its record of cases stays behind.
    """
    if folder is None or os.path.isdir(folder):
        return
    if os.path.isfile(folder):
        remedies = {
            ".zip": "give the run that it was packed from" + (", or unpack it" if unpacked else ""),
            **dict.fromkeys((".onnx", ".xml"), "give the run that it was exported from"),
        }
        remedy = remedies.get(Path(folder).suffix.lower(), f"name its folder, {Path(folder).absolute().parent}")
        yield Problem(option, "folder", "must be a folder", f"the file {folder}", remedy)
    elif exists:
        yield Problem(option, "folder", "must be a folder", f"{folder}", "check the path")


def _file_problems(option: str, file: Path | None) -> Iterator[Problem]:
    if file is not None and os.path.isdir(file):
        yield Problem(option, "file", "must be a file", f"the folder {file}", "add a file name")


if __name__ == "__main__":
    main()
