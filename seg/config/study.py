"""Configuration of an ablation study: which variants are compared, on what, and how trials are run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr
from pydantic.dataclasses import dataclass

from seg.config.experiment import LARGEST_SEED
from seg.config.fields import STRICT, NotNegative, PathText, Positive, Rules, setting
from seg.errors import Problem, shown

MARGIN = 0.005
STUDY_VERSION = 1
MIN_RUNS = 3
"""Fewest pairs of training runs on which a variant can be called not inferior: two cannot say how much runs differ."""
NAME = r"[a-z0-9][a-z0-9_.-]*"
SLURM_NAME, SLURM_TEXT = r"[A-Za-z0-9_.,@-]+", r"[A-Za-z0-9_.,:=+@%/&|*!()\[\]-]+"
OF_A_JOB = frozenset(
    (
        "account",
        "array",
        "constraint",
        "cpus-per-task",
        "error",
        "gpus-per-node",
        "job-name",
        "mem",
        "nodes",
        "ntasks-per-node",
        "open-mode",
        "output",
        "partition",
        "qos",
        "signal",
        "time",
        "wckey",
        "wrap",
    )
)
"""Options of sbatch that a study gives by its other fields, and those that its jobs are run with."""
OWN = {"seed": "seeds", "fold": "folds", "name": "name", "schema_version": "schema_version"}
"""Fields of an experiment that the study itself gives, each with the name that the field has in a study."""
STUDY_RULES = Rules()

Changes = Mapping[StrictStr, Any]
FoldNumber = Annotated[StrictInt, Field(ge=0)]
Seed = Annotated[StrictInt, Field(ge=0, le=LARGEST_SEED)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PointConfig:
    """One variant of the grid."""

    name: StrictStr = Field(
        description="Name of the variant, part of its folders: lower-case letters, digits, dots, dashes, underscores."
    )
    set: Changes = Field(
        default_factory=dict,
        description="Values by dotted path of the experiment's configuration; null removes an optional section.",
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AxisConfig:
    """One direction of the grid."""

    path: StrictStr = Field(description="Dotted path of the field that varies.")
    values: tuple[Any, ...] = Field(description="Values along the axis, each as an experiment's YAML would give it.")
    label: StrictStr = Field(description="Word before the value in the names of variants: skip makes skip_1-4 of 0.25.")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ContrastConfig:
    """A comparison of two variants, beside those with the baseline."""

    variant: StrictStr = Field(description="Name of a variant.")
    against: StrictStr = Field(description="Name of the variant that it is compared with.")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SlurmConfig:
    """Request to Slurm, per job."""

    partition: StrictStr | None = setting(None, "Partition to submit to; null is the cluster's default.")
    account: StrictStr | None = setting(None, "Account to charge; null is the user's default.")
    qos: StrictStr | None = setting(None, "Quality of service; null is the user's default.")
    constraint: StrictStr | None = setting(None, "Features that a node must have, as in a100|h100; null is any node.")
    options: Mapping[StrictStr, StrictStr] = Field(
        default_factory=dict,
        description="Further options of sbatch by name, as in {nodelist: node1}; an empty text is an option without a "
        "value.",
    )
    time_minutes: StrictInt = setting(240, "Limit of a trial's wall time, in minutes.", ge=1)
    memory_gib: Positive = setting(16.0, "Main memory of a trial, in GiB.")
    max_parallel: StrictInt = setting(64, "Largest number of trials that run at once.", ge=1)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BackendConfig:
    """Where trials run."""

    backend: Literal["workers", "slurm", "ray"] = setting(
        "workers", "Where trials run: on this machine, on Slurm, or on Ray."
    )
    workers: StrictInt = setting(
        1, "Trials that run at once on this machine; 1 runs them in this process, one after the other.", ge=1
    )
    cpus_per_trial: StrictInt = setting(
        0, "Processor threads of a trial; 0 shares all of them among the workers.", ge=0
    )
    gpus_per_trial: NotNegative = setting(0.0, "GPUs of a trial; below 1 several trials share a GPU.")
    retries: StrictInt = setting(1, "Further attempts after a trial failed.", ge=0)
    slurm: SlurmConfig = Field(default_factory=SlurmConfig, description="Request to Slurm.")
    ray_address: StrictStr | None = setting(
        None, "Address of a running Ray cluster, or auto; null starts Ray on this machine."
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SpeedConfig:
    """Measurement of speed, all variants interleaved in one process."""

    enabled: StrictBool = setting(True, "Whether speed is measured after the trials; --speed_only measures it anyway.")
    rounds: StrictInt = setting(15, "Rounds in which each variant is measured once; a spread needs three.", ge=3)
    warmup: StrictInt = setting(3, "Untimed rounds before; the first passes are never typical.", ge=1)
    engines: tuple[Literal["openvino", "onnxruntime"], ...] = setting(
        (), "Engines beside torch in which a forward pass is measured on the processor; each has rows of its own."
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StudyConfig:
    """An ablation study."""

    schema_version: StrictInt = setting(
        STUDY_VERSION, "Version of this layout; a newer version is refused.", ge=1, le=STUDY_VERSION
    )
    name: StrictStr = Field(
        description="Name of the study, also of its experiments: lower-case letters, digits, dots, dashes, underscores."
    )
    base: PathText = Field(description="YAML file of the experiment that is varied, relative to the study's file.")
    set: Changes = Field(
        default_factory=dict, description="Changes of the base that are common to all variants, by dotted path."
    )
    baseline: PointConfig = Field(
        default_factory=lambda: PointConfig(name="baseline"),
        description="The variant to which all others are compared.",
    )
    design: Literal["product", "sweep", "list"] = setting(
        "list",
        "How axes make variants: every combination of their values, one axis at a time with the others as in the "
        "baseline, or no axes but a list of points.",
    )
    axes: tuple[AxisConfig, ...] = setting((), "Directions of the grid.")
    points: tuple[PointConfig, ...] = setting((), "Variants beside those of the axes, in their order.")
    contrasts: tuple[ContrastConfig, ...] = setting(
        (), "Comparisons of two variants that tell the effect of one change from that of another."
    )
    folds: tuple[FoldNumber, ...] = setting((0,), "Folds on which every variant is trained.")
    seeds: tuple[Seed, ...] = setting((0, 1, 2), "Seeds with which every variant is trained on each fold.")
    margin: StrictFloat = setting(
        MARGIN, "Loss of Dice that still counts as not inferior; named before the first trial runs.", gt=0, lt=1
    )
    launch: BackendConfig = Field(default_factory=BackendConfig, description="Where trials run.")
    speed: SpeedConfig = Field(default_factory=SpeedConfig, description="Measurement of speed.")
    notes: tuple[StrictStr, ...] = setting(
        (),
        "What a reader must know that no record says, such as a change of plan; a sentence or a few each, printed "
        "under the methods of the report.",
    )
    nominal_spacing: StrictBool = setting(
        False,
        "Whether the voxel spacing in the headers is not the true spacing; the report then leaves out distances "
        "(HD95, NSD).",
    )
    pictures: StrictBool = setting(
        True, "Whether the report may show pictures of cases; false where the licence of the data forbids it."
    )


def _name_problem(path: str, name: str) -> Iterator[Problem]:
    if not re.fullmatch(NAME, name):
        rule = "must be lower-case letters, digits, '_', '-' and '.', a letter or digit first, for it names a folder"
        yield Problem(path, "name", rule, shown(name))


@STUDY_RULES.rule("name", "base")
def _texts(study: StudyConfig) -> Iterator[Problem]:
    yield from _name_problem("name", study.name)
    if not study.base:
        remedy = "name it relative to the study's file"
        yield Problem("base", "empty", "must be a YAML file of an experiment", "an empty text", remedy)


@STUDY_RULES.rule("baseline", "points")
def _point_names(study: StudyConfig) -> Iterator[Problem]:
    yield from _name_problem("baseline.name", study.baseline.name)
    places = {study.baseline.name: "baseline"}
    for index, point in enumerate(study.points):
        path = f"points[{index}].name"
        yield from _name_problem(path, point.name)
        if point.name in places:
            rule, value = "must be the name of one variant alone", f"{point.name!r}, as in {places[point.name]}"
            yield Problem(path, "repeated", rule, value, "rename one of the two")
        places.setdefault(point.name, f"points[{index}]")
        if not point.set:
            remedy = "the baseline is a variant already"
            yield Problem(f"points[{index}].set", "empty", "must change something", "nothing", remedy)


@STUDY_RULES.rule("design", "axes", "points")
def _design(study: StudyConfig) -> Iterator[Problem]:
    given = f"must be given where design is {study.design}"
    if study.design == "list" and study.axes:
        rule, remedy = "must be empty where design is list", "choose design product or sweep"
        yield Problem("axes", "conflict", rule, str(len(study.axes)), remedy)
    if study.design == "list" and not study.points:
        yield Problem("points", "missing", given, "none", "without them there is nothing to compare")
    if study.design != "list" and not study.axes:
        yield Problem("axes", "missing", given, "none", "add them or choose design list")


@STUDY_RULES.rule("axes")
def _axes(study: StudyConfig) -> Iterator[Problem]:
    paths: dict[str, int] = {}
    for index, axis in enumerate(study.axes):
        place = f"axes[{index}]"
        yield from _name_problem(f"{place}.label", axis.label)
        if not axis.values:
            yield Problem(f"{place}.values", "empty", "must list at least one value", "none")
        for value in [value for at, value in enumerate(axis.values) if value in axis.values[:at]]:
            rule = "must list each value once"
            yield Problem(f"{place}.values", "repeated", rule, f"{shown(value)} again", "remove it")
        if axis.path in paths:
            rule, value = "must be the path of one axis alone", f"{axis.path}, as in axes[{paths[axis.path]}]"
            yield Problem(f"{place}.path", "repeated", rule, value, "put all values on one axis")
        paths.setdefault(axis.path, index)


@STUDY_RULES.rule("set", "baseline", "axes", "points")
def _changes(study: StudyConfig) -> Iterator[Problem]:
    places = [("set", tuple(study.set)), ("baseline.set", tuple(study.baseline.set))]
    places += [(f"axes[{index}].path", (axis.path,)) for index, axis in enumerate(study.axes)]
    places += [(f"points[{index}].set", tuple(point.set)) for index, point in enumerate(study.points)]
    for place, paths in places:
        for path in [path for path in paths if path in OWN]:
            rule = f"must not change {path}, which trials take from the study's own {OWN[path]}"
            yield Problem(place, "conflict", rule, remedy="remove it")


@STUDY_RULES.rule("folds", "seeds")
def _numbers(study: StudyConfig) -> Iterator[Problem]:
    for path, numbers in (("folds", study.folds), ("seeds", study.seeds)):
        if not numbers:
            yield Problem(path, "empty", "must list at least one number", "none")
        if len(set(numbers)) < len(numbers):
            yield Problem(path, "repeated", "must list each number once", shown(numbers))


@STUDY_RULES.rule("launch")
def _slurm(study: StudyConfig) -> Iterator[Problem]:
    slurm = study.launch.slurm
    named = {name: getattr(slurm, name) for name in ("partition", "account", "qos")}
    texts = {name: (SLURM_NAME, "letters, digits and _ . , @ -", text) for name, text in named.items()}
    texts["constraint"] = (SLURM_TEXT, "letters, digits and _ . , : = + @ % / & | * ! ( ) [ ] -", slurm.constraint)
    for name, text in slurm.options.items():
        path = f"options.{name}"
        if not re.fullmatch(r"[a-z][a-z-]*", name):
            rule = "must be the name of an option of sbatch, in lower-case letters and dashes"
            yield Problem(f"launch.slurm.{path}", "name", rule, shown(name))
        elif name in OF_A_JOB:
            yield Problem(
                f"launch.slurm.{path}", "conflict", "is given by another field or by seg itself", "", "remove it"
            )
        texts[path] = (SLURM_TEXT, texts["constraint"][1], text or None)
    for path, (pattern, rule, value) in texts.items():
        if value is not None and not re.fullmatch(pattern, value):
            yield Problem(f"launch.slurm.{path}", "name", f"must be {rule}, not empty", shown(value))


@STUDY_RULES.rule("notes")
def _notes(study: StudyConfig) -> Iterator[Problem]:
    for index, note in enumerate(study.notes):
        if not note.strip():
            yield Problem(f"notes[{index}]", "empty", "must say something", "an empty text", "remove it")
