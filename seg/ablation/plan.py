"""The plan of a study: what it compares, on what, and what a reader must know."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ConfigDict, FiniteFloat

from seg.ablation.reading import VERSION, Name, is_there
from seg.ablation.study import OF_A_MACHINE, Study, Variant, published, unequal_fields
from seg.config import ExperimentConfig, StudyConfig
from seg.config.text import read_yaml
from seg.data.cases import Dataset
from seg.data.datasets import read_folds
from seg.errors import Problem, RunError, shown
from seg.files import quoted, read_json, write_text

if TYPE_CHECKING:
    from seg.ablation.store import StoredTrial
    from seg.networks.complexity import Complexity

STUDY_FILE = "study.yaml"
OLD_STUDY_FILE = "study.json"
NO_TRIALS: Mapping[str, StoredTrial] = {}


class StagePlan(BaseModel):
    """Size and work of one part of a network, such as ``encoder 0``."""

    model_config = ConfigDict(frozen=True)
    name: str
    parameters: int
    macs: int


class VariantPlan(BaseModel):
    """A variant as its study planned it.

    Attributes:
        name: Its name.
        changes: Changes of the baseline by dotted path.
        unequal: Fields, beside those of network, loss and optimiser, that are not as in the baseline.
        parameters: Number of its parameters.
        macs: Multiply-accumulates of an image of its patch size.
        stages: The same of each part of the network.
    """

    model_config = ConfigDict(frozen=True)
    name: Name
    changes: dict[str, Any] = {}
    unequal: tuple[str, ...] = ()
    parameters: int | None = None
    macs: int | None = None
    stages: tuple[StagePlan, ...] = ()


def changes_text(changes: Mapping[str, object]) -> str:
    """Returns the changes of a variant as a text that is equal where the changes are."""
    return json.dumps(changes, sort_keys=True)


class ContrastPlan(BaseModel):
    """Two variants that are compared with each other."""

    model_config = ConfigDict(frozen=True)
    variant: str
    against: str


class Named(BaseModel):
    """What a study has named before a result was there: its margin, and what it compares.

    Attributes:
        date: Day on which it was named, in UTC; None where no record says.
        margin: Loss of Dice that still counts as not inferior.
        folds: Folds of every variant.
        seeds: Seeds of every variant.
        variants: Changes by dotted path of each variant by name.
    """

    model_config = ConfigDict(frozen=True)
    date: str | None = None
    margin: FiniteFloat
    folds: tuple[int, ...]
    seeds: tuple[int, ...]
    variants: dict[str, dict[str, Any]]

    def changes(self, later: Named) -> Iterator[str]:
        """Yields what a later plan changed."""
        for name in ("margin", "folds", "seeds"):
            before, after = getattr(self, name), getattr(later, name)
            if before != after:
                yield f"{name} from {shown(before)} to {shown(after)}"
        for name in self.variants | later.variants:
            if name not in self.variants:
                yield f"variant {name} added"
            elif name not in later.variants:
                yield f"variant {name} removed"
            elif self.variants[name] != later.variants[name]:
                yield f"variant {name} from {shown(self.variants[name])} to {shown(later.variants[name])}"


class StudyPlan(BaseModel):
    """The content of ``study.yaml``: what was planned, and what a reader must know.

    Attributes:
        name: Name of the study.
        command: Command that repeats it.
        base: Experiment that is varied.
        set: Changes of the base that all variants share, by dotted path.
        margin: Loss of Dice that still counts as not inferior.
        folds: Folds of every variant.
        seeds: Seeds of every variant.
        baseline: Name of the variant that the others are compared with.
        baseline_set: Changes of the base that make the baseline.
        variants: The variants, baseline first.
        contrasts: Pairs of variants that are compared with each other.
        trials: Names of all planned trials.
        training: Steps, batch, patch_size, validate_every and the like, as far as stated.
        data: Name, licence, attribution, num_cases, left_out (cases left out as faulty), class_names and
            nsd_tolerance_mm, as far as stated.
        notes: What a reader must know that no record says.
        nominal_spacing: Whether spacing is not the true one, so that distances mean nothing.
        pictures: Whether pictures of cases may be shown.
        named: What was named before the first result, and each later plan; empty where no record says.
    """

    model_config = ConfigDict(frozen=True)
    name: str
    command: str
    base: str = "not stated"
    set: dict[str, Any] = {}
    margin: FiniteFloat
    folds: tuple[int, ...]
    seeds: tuple[int, ...]
    baseline: str
    baseline_set: dict[str, Any] = {}
    variants: tuple[VariantPlan, ...]
    contrasts: tuple[ContrastPlan, ...] = ()
    trials: tuple[Name, ...]
    training: dict[str, Any] = {}
    data: dict[str, Any]
    notes: tuple[str, ...] = ()
    nominal_spacing: bool = False
    pictures: bool = True
    named: tuple[Named, ...] = ()

    @property
    def amended(self) -> tuple[tuple[str | None, tuple[str, ...]], ...]:
        """Days after the first result on which the plan was changed, each with its changes."""
        return tuple((after.date, tuple(before.changes(after))) for before, after in pairwise(self.named))

    @property
    def margin_named(self) -> str | None:
        """Day on which the margin was named, before the first result; None where it was changed or no record says."""
        kept = len({one.margin for one in self.named}) == 1
        return self.named[0].date if kept else None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, background first."""
        return tuple(map(str, self.data.get("class_names") or ("background",)))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the variants, baseline first."""
        return tuple(variant.name for variant in self.variants)


def read_study(folder: Path) -> StudyPlan:
    """Reads the plan of a study: ``study.yaml``, or the ``study.json`` of older studies.

    Raises:
        RunError: The plan is absent, damaged or of a newer version.
    """
    path, old = folder / STUDY_FILE, folder / OLD_STUDY_FILE
    remedy = "give the directory of a study that was started, or start the study again"
    if not is_there(path, folder) and is_there(old, folder):
        path = old
        study = read_json(path, StudyPlan, newest=VERSION, remedy=remedy)
    else:
        study = read_yaml(path, StudyPlan, newest=VERSION, remedy=remedy)
    named = {study.baseline, *(name for pair in study.contrasts for name in (pair.variant, pair.against))}
    rule = "must compare variants of the study"
    if problems := [
        Problem(quoted(str(path)), "variant", rule, repr(name), remedy) for name in sorted(named - set(study.names))
    ]:
        raise RunError(problems)
    return study


def plan_text(study: StudyPlan) -> str:
    """Returns the content of ``study.yaml``."""
    content = {"schema_version": VERSION, **study.model_dump(mode="json")}
    text: str = yaml.dump(content, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True, width=100)
    return text


def write_study_file(study: Study, study_dir: Path, stored: Mapping[str, StoredTrial] = NO_TRIALS) -> StudyPlan:
    """Writes ``study.yaml``: variants with their size and work, and all trials of the grid, also those left out now.

    Margin, folds, seeds and variants are frozen with the first result: what was named before stays in the file, and
    each later change is added with its day.

    Args:
        study: The study.
        study_dir: Study directory.
        stored: Trials that have results, by name.

    Returns:
        What was written.

    Raises:
        DataError: The data set cannot be read: its channels and classes belong to the size of a network.
        RunError: The file cannot be written.
    """
    path = study_dir / STUDY_FILE
    study_data = read_study_data(study)
    plan = describe_study(study, study_data)
    named = _named(plan, study_dir, first=not stored)
    left_out = _left_out(study_data, stored)
    plan = plan.model_copy(update={"named": named, "data": plan.data | {"left_out": left_out}})
    write_text(path, plan_text(plan))
    (study_dir / OLD_STUDY_FILE).unlink(missing_ok=True)
    return plan


def _left_out(dataset: Dataset, stored: Mapping[str, StoredTrial]) -> list[str]:
    """Lists the cases that some trial left out as faulty: it has no digest of their files."""
    known = {case.id for case in dataset.cases}
    return sorted({case for trial in stored.values() if trial.data for case in known - trial.data.keys()})


def _named(plan: StudyPlan, study_dir: Path, *, first: bool) -> Sequence[Named]:
    """Returns the plans of a study in order: the plan before the first result, then every changed plan up to now."""
    now = naming(plan, date=datetime.now(UTC).date().isoformat())
    if first:
        return (now,)
    try:
        before = read_study(study_dir)
    except RunError:  # absent or damaged: nobody knows what was named
        return (now.model_copy(update={"date": None}),)
    named = before.named or (naming(before),)
    same = not list(named[-1].changes(now))
    return named if same else (*named, now)


def same_study(before: StudyPlan, now: StudyPlan) -> bool:
    """Tells whether two plans are of one study, which may have been continued in between.

    Margin, folds, seeds and variants may have changed then, but the plan knows those that it had.
    """
    known = [*now.named, naming(now)]
    return _identity(before) == _identity(now) and any(not list(naming(before).changes(one)) for one in known)


def _identity(plan: StudyPlan) -> tuple[Any, ...]:
    """Returns what a study keeps for good: its name, data and baseline, and what it sets that is not of a machine."""
    changes = {path: value for path, value in plan.set.items() if not f"set.{path}".startswith(OF_A_MACHINE)}
    return plan.name, plan.data.get("name"), plan.baseline, plan.baseline_set, changes


def naming(plan: StudyPlan, date: str | None = None) -> Named:
    """Returns the margin, folds, seeds and variants that a plan names before there are results."""
    variants = {each["name"]: each["changes"] for each in plan.model_dump(mode="json")["variants"]}
    return Named(date=date, margin=plan.margin, folds=plan.folds, seeds=plan.seeds, variants=variants)


def read_study_data(study: Study) -> Dataset:
    """Reads what the data set of a study says of itself; its volumes stay on disk.

    Raises:
        DataError: It cannot be read, or its splits do not hold.
        RunError: It has not all folds of the study, or is scored by regions that overlap.
    """
    dataset, splits = read_folds(study.baseline.config.data)
    if dataset.regions:
        rule, remedy = "must have classes that do not overlap to be compared", "choose such by data.classes"
        raise RunError(Problem(str(dataset.root), "regions", rule, ", ".join(dataset.regions), remedy))
    if unknown := [fold for fold in study.config.folds if fold >= len(splits)]:
        rule, value = f"must be in 0 ... {len(splits) - 1}", ", ".join(map(str, unknown))
        raise RunError(Problem("folds", "range", rule, value, "choose among these"))
    return dataset


def count_costs(study: Study, dataset: Dataset) -> Mapping[str, Complexity]:
    """Counts parameters and multiply-accumulates of each variant, for one image of the patch size, by name."""
    from seg.networks import complexity

    return {
        variant.name: complexity(
            len(dataset.channel_names),
            len(dataset.class_names),
            variant.config.network,
            shape=variant.config.patches.size,
        )
        for variant in study.variants
    }


def describe_study(study: Study, dataset: Dataset) -> StudyPlan:
    """Returns the content of ``study.yaml``."""
    shared = study.baseline.config
    costs = count_costs(study, dataset)
    content = {
        "name": study.config.name,
        "command": study.command,
        "base": study.config.base,
        "set": _published(study.config.set),
        "margin": study.config.margin,
        "folds": list(study.config.folds),
        "seeds": list(study.config.seeds),
        "baseline": study.baseline.name,
        "baseline_set": _published(study.config.baseline.set),
        "variants": [_variant(variant, shared, costs[variant.name]) for variant in study.variants],
        "contrasts": [asdict(contrast) for contrast in study.config.contrasts],
        **said_by_hand(study.config),
        "trials": [trial.id for trial in study.planned],
        "training": {
            "steps": shared.training.steps,
            "batch": shared.patches.batch,
            "accumulate": shared.training.accumulate,
            "patch_size": list(shared.patches.size),
            "validate_every": shared.training.validate_every,
            "train_cases": shared.data.train_cases,
        },
        "data": {
            "name": dataset.name,
            "licence": dataset.licence,
            "attribution": dataset.attribution,
            "num_cases": len(dataset.cases),
            "class_names": list(dataset.class_names),
            "nsd_tolerance_mm": shared.evaluation.nsd_tolerance_mm,
        },
    }
    return StudyPlan.model_validate(content)


def said_by_hand(config: StudyConfig) -> dict[str, Any]:
    """Returns the fields that a report takes from the study's file: notes, nominal spacing and pictures."""
    return {"notes": list(config.notes), "nominal_spacing": config.nominal_spacing, "pictures": config.pictures}


def _published(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {path: published(path, value) for path, value in fields.items()}


def _variant(variant: Variant, baseline: ExperimentConfig, cost: Complexity) -> dict[str, Any]:
    return {
        "name": variant.name,
        "changes": _published(variant.changes),
        "unequal": unequal_fields(variant.config, baseline),
        "parameters": cost.parameters,
        "macs": cost.macs,
        "stages": [{"name": stage.name, "parameters": stage.parameters, "macs": stage.macs} for stage in cost.stages],
    }
