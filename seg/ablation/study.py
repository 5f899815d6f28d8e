"""A study from its file to its variants and trials."""

from __future__ import annotations

import difflib
import itertools
import logging
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from seg.config import AxisConfig, ExperimentConfig, StudyConfig, load_config, load_study
from seg.config.fields import fields_of, value_at
from seg.config.study import MIN_RUNS
from seg.errors import ConfigError, Problem, prefixed, shown
from seg.evaluation.differences import run_name
from seg.files import real_path
from seg.words import counted

LOG = logging.getLogger(__name__)


def point_names(axis: AxisConfig) -> tuple[str, ...]:
    """Names the values of an axis: its label, ``_`` and the value, as in ``skip_1-4`` for 0.25.

    1/n reads ``1-n``, null ``none``, a list has ``x`` between its items. Of groups of fields, only those are named
    that differ along the axis.
    """
    return tuple(f"{axis.label}_{_text(_telling(value, axis.values))}" for value in axis.values)


def _telling(value: Any, values: Sequence[Any]) -> Any:
    """Returns the part of a value of an axis that is not alike in all values of the axis."""
    if not isinstance(value, Mapping):
        return value
    groups = [other for other in values if isinstance(other, Mapping)]
    differing = [key for key in value if any(group.get(key) != value[key] for group in groups)]
    return [value[key] for key in differing or value]


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return "x".join(map(_text, value))
    if isinstance(value, Mapping):
        return "x".join(map(_text, value.values()))
    if isinstance(value, float):
        parts = 1 / value if value else 0.0
        if parts > 1.5 and abs(parts - round(parts)) < 1e-9:
            return f"1-{round(parts)}"
        value = f"{value:g}"
    return re.sub(r"[^a-z0-9_.-]", "-", str(value).lower())


EQUAL = ("network.", "loss.", "optimizer.", "inference.", "postprocessing.")
"""Sections that a variant may change and stay paired: none of them moves cases, order, augmentation or steps."""
ALSO_EQUAL = ("training.precision", "training.ema_decay")
FIXED = (
    *("schema_version", "name", "seed", "fold", "evaluation."),
    *("data.root", "data.layout", "data.splits", "data.folds", "data.split_seed", "data.patient_pattern"),
    *("data.on_error", "data.cache", "data.cache_dir", "data.workers"),
    *("training.device", "training.progress", "training.early_stop", "training.score_seen"),
    "training.runs_dir",
)
"""Fields that no variant may change: the cases that are scored, how they are scored, and what decides nothing."""


def _differing(config: ExperimentConfig, baseline: ExperimentConfig) -> Iterator[str]:
    for path, field_ in fields_of(ExperimentConfig).items():
        if field_.section is None and value_at(config, path) != value_at(baseline, path):
            yield path


def pairing_problems(where: str, config: ExperimentConfig, baseline: ExperimentConfig) -> list[Problem]:
    """Lists the fields in which a variant must be as the baseline and is not."""
    return [
        Problem(
            f"{where}: {path}",
            "pairing",
            "must be as in the baseline, or other cases or scores are compared",
            f"{shown(value_at(config, path))} beside {shown(value_at(baseline, path))}",
            "change it for all under set",
        )
        for path in _differing(config, baseline)
        if path in FIXED or path.startswith(tuple(name for name in FIXED if name.endswith(".")))
    ]


def unequal_fields(config: ExperimentConfig, baseline: ExperimentConfig) -> tuple[str, ...]:
    """Returns the fields beside network, loss, optimiser and inference in which a variant is not as the baseline.

    Training cases, their preparation, patches, augmentation, steps and initial weights are among them.
    """
    return tuple(path for path in _differing(config, baseline) if not path.startswith(EQUAL) and path not in ALSO_EQUAL)


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point of a design, its experiment not yet built.

    Attributes:
        name: Name of the variant.
        changes: Values by dotted path, on top of the baseline.
        where: Where the study's file says so, for messages.
        generated: Whether axes made it, or the file lists it.
    """

    name: str
    changes: Mapping[str, Any]
    where: str
    generated: bool


@dataclass(kw_only=True)
class Builder:
    """Builds experiments on one base by the rules that hold for any experiment's file.

    Attributes:
        base: YAML file of the experiment.
        name: Name that the experiments get.
        problems: What was found so far; each problem is added once, where it shows first.
    """

    base: Path
    name: str
    problems: list[Problem]
    _seen: set[Problem] = field(default_factory=set)

    def build(self, where: str, *changes: Mapping[str, Any]) -> ExperimentConfig | None:
        """Builds one experiment from mappings of values by dotted path; None where it breaks a rule."""
        try:
            return replace(load_config([self.base], *changes), name=self.name)
        except ConfigError as error:
            new = [problem for problem in error.problems if problem not in self._seen]
            self._seen.update(new)
            for problem in new:  # a file says where already
                self.problems += [problem] if problem.file else prefixed(where, [problem])
            return None


def designed(study: StudyConfig) -> Iterator[Point]:
    """Yields the points of a study: those of its axes, then those it names."""
    named = [list(zip(point_names(axis), axis.values, strict=True)) for axis in study.axes]
    if study.design == "product":
        for chosen in itertools.product(*named):
            changes = {axis.path: value for axis, (_, value) in zip(study.axes, chosen, strict=True)}
            yield _generated("_".join(name for name, _ in chosen), changes)
    elif study.design == "sweep":
        for axis, chosen_values in zip(study.axes, named, strict=True):
            for name, value in chosen_values:
                yield _generated(name, {axis.path: value})
    for index, point in enumerate(study.points):
        where = f"points[{index}] ({point.name})"
        yield Point(name=point.name, changes=point.set, where=where, generated=False)


def _generated(name: str, changes: Mapping[str, Any]) -> Point:
    return Point(name=name, changes=changes, where=f"variant {name}", generated=True)


NO_OVERRIDES: Mapping[str, object] = {}
OF_A_MACHINE = ("launch.", "set.data.root", "set.data.cache_dir", "set.data.workers", "set.training.runs_dir")
"""Overrides that say where and how a study runs, not what it is."""
PATHS = ("data.root", "data.cache_dir", "data.splits", "training.init_from", "training.runs_dir")
"""Fields that name files and folders of one machine."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One point of the grid.

    Attributes:
        name: Its name.
        changes: Values by dotted path that were set on top of the baseline; none for the baseline itself.
        config: Its experiment, of the study's name; fold and seed have no meaning.
    """

    name: str
    changes: Mapping[str, Any]
    config: ExperimentConfig


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training: a variant on a fold with a seed.

    Attributes:
        variant: The variant.
        fold: Fold that is held out.
        seed: Seed of weights, data order and augmentation.
    """

    variant: Variant
    fold: int
    seed: int

    @property
    def id(self) -> str:
        """Name of the trial, unique in its study."""
        return run_name(self.variant.name, (self.fold, self.seed))

    @property
    def config(self) -> ExperimentConfig:
        """The experiment of this trial; without a progress bar, which would tear the study's own table."""
        config = self.variant.config
        return replace(config, fold=self.fold, seed=self.seed, training=replace(config.training, progress=False))


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study, ready to run.

    Attributes:
        config: What its file says, with overrides.
        command: Command that repeats it, without what is of one machine.
        variants: All variants, the baseline first, then in the order of the file.
        trials: Trials to run: all variants with the first seed on the first fold, then on the next fold, then with the
            next seed, so that a study that is cut short is whole for fewer seeds.
    """

    config: StudyConfig
    command: str
    variants: tuple[Variant, ...]
    trials: tuple[Trial, ...]

    @property
    def baseline(self) -> Variant:
        """The variant to which all others are compared."""
        return self.variants[0]

    @property
    def planned(self) -> tuple[Trial, ...]:
        """All trials of the grid, also where :func:`choose_variants` left some out."""
        return trials_of(self.config, self.variants)

    @property
    def default_directory(self) -> Path:
        """The directory of the study where no option names one."""
        return self.baseline.config.training.runs_root / "ablation" / self.config.name


def plan_study(path: Path, overrides: Mapping[str, object] = NO_OVERRIDES) -> Study:
    """Reads a study's file and makes its variants and trials; reads no data.

    Every variant is the base experiment, changed by the study's ``set``, then by the baseline's, then by its own; for
    each the rules of an experiment hold. All share held-out cases, folds, seeds and scores; where a variant changes
    training cases, patches, augmentation, steps or the like, the report says so.

    Args:
        path: YAML file of a study.
        overrides: Values by dotted path of the study's fields, and of the experiment's after ``set.``.

    Raises:
        ConfigError: The file cannot be read, a field is unknown or breaks a rule, a variant breaks a rule of
            experiments or of pairing, or two are alike. Holds all problems.
    """
    config, problems = load_study(path, overrides)
    if config is None:
        raise ConfigError(problems)
    problems += _overridden(config, overrides)
    builder = Builder(base=path.parent / config.base, name=config.name, problems=problems)
    common, own = config.set, config.baseline.set
    # The base, its changes and each value of an axis are built alone first: a bad one is reported where it stands.
    builder.build("base")
    builder.build("set", common)
    baseline_config = builder.build("baseline", common, own)
    for index, axis in enumerate(config.axes):
        for value in axis.values:
            builder.build(f"axes[{index}]", common, own, {axis.path: value})
    variants = [Variant(name=config.baseline.name, changes={}, config=baseline_config)] if baseline_config else []
    names = [config.baseline.name]
    for point in designed(config):
        experiment = builder.build(point.where, common, own, point.changes)
        if experiment is not None and experiment == baseline_config and point.generated:
            continue  # a grid that goes through the baseline meets it again
        names.append(point.name)
        if experiment is None or baseline_config is None:
            continue
        problems += pairing_problems(point.where, experiment, baseline_config)
        problems += _twins(point.where, point.name, experiment, variants)
        variants.append(Variant(name=point.name, changes=point.changes, config=experiment))
    problems += _contrast_problems(config, names)
    if baseline_config is not None and baseline_config.training.early_stop is not None:
        rule = "must be null in a study, whose variants would differ in their steps"
        value = str(baseline_config.training.early_stop)
        problems.append(Problem("training.early_stop", "conflict", rule, value, "set it to null under set"))
    if baseline_config is not None and baseline_config.training.score_seen:
        rule = "must be false in a study, which would compare scores of cases that the initial weights were trained on"
        problems.append(Problem("training.score_seen", "conflict", rule, "true", "set it to false under set"))
    if problems:
        raise ConfigError(problems)
    if (runs := len(config.folds) * len(config.seeds)) < MIN_RUNS:
        LOG.warning(
            "%s of each variant: fewer than %d never show that a variant is not inferior; give more seeds or folds",
            counted(runs, "run"),
            MIN_RUNS,
        )
    return Study(
        config=config,
        command=_command(path, overrides),
        variants=tuple(variants),
        trials=trials_of(config, variants),
    )


def choose_variants(study: Study, names: Sequence[str]) -> Study:
    """Leaves the trials of some variants alone, or of all where none is named; the grid stays whole for the report.

    Raises:
        ConfigError: The study has no variant of a name.
    """
    known = [variant.name for variant in study.variants]
    if problems := [problem for name in names for problem in _unknown("--only", name, known)]:
        raise ConfigError(problems)
    chosen = set(names or known)
    return replace(study, trials=tuple(trial for trial in study.trials if trial.variant.name in chosen))


def trials_of(config: StudyConfig, variants: Sequence[Variant]) -> tuple[Trial, ...]:
    """Returns every variant on every fold with every seed, seeds outermost."""
    return tuple(
        Trial(variant=variant, fold=fold, seed=seed)
        for seed in config.seeds
        for fold in config.folds
        for variant in variants
    )


def _overridden(config: StudyConfig, overrides: Mapping[str, object]) -> list[Problem]:
    """Finds changes for all variants that the baseline undoes; warns of those that axes or points undo for some."""
    problems = []
    for path in [name.removeprefix("set.") for name in overrides if name.startswith("set.")]:
        if _gives(config.baseline.set, path):
            remedy = "change it in the study's file"
            problems.append(Problem(f"set.{path}", "conflict", "is given by the study's baseline", "", remedy))
            continue
        axes = [
            (f"axes[{index}]", {axis.path: value}) for index, axis in enumerate(config.axes) for value in axis.values
        ]
        points = [(f"points[{index}] ({point.name})", point.set) for index, point in enumerate(config.points)]
        places = dict.fromkeys(where for where, changes in (*axes, *points) if _gives(changes, path))
        if places:
            LOG.warning("set.%s does not change the variants of %s, which give it too", path, ", ".join(places))
    return problems


def _gives(changes: Mapping[str, Any], path: str) -> bool:
    """Tells whether changes set the field or part of the section at a dotted path, or remove a section around it."""
    for own, value in changes.items():
        if f"{own}.".startswith(f"{path}."):
            return True
        if path.startswith(f"{own}."):
            within = path.removeprefix(f"{own}.")
            if not isinstance(value, Mapping) or _gives(value, within):
                return True
    return False


def _contrast_problems(config: StudyConfig, known: Sequence[str]) -> list[Problem]:
    problems = []
    for index, one in enumerate(config.contrasts):
        problems += _unknown(f"contrasts[{index}].variant", one.variant, known)
        problems += _unknown(f"contrasts[{index}].against", one.against, known)
        if one.variant == one.against:
            rule, value = "must compare two variants", f"{one.variant} twice"
            problems.append(Problem(f"contrasts[{index}]", "repeated", rule, value, "remove it"))
    return problems


def _unknown(field: str, name: str, known: Sequence[str]) -> list[Problem]:
    if name in known:
        return []
    close = difflib.get_close_matches(name, known, n=1)
    remedy = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
    return [Problem(field, "unknown", "must name a variant of the study", name, remedy)]


def _twins(where: str, name: str, config: ExperimentConfig, variants: Sequence[Variant]) -> list[Problem]:
    problems = []
    for variant in variants:
        if variant.config == config:
            rule = f"must differ from {variant.name}"
            problems.append(Problem(where, "twin", rule, "an equal configuration", "remove one"))
        elif variant.name == name:
            rule = "must have a name of its own"
            problems.append(Problem(where, "repeated", rule, f"{name!r} again", "rename one of the two"))
    return problems


def published(path: str, value: Any) -> Any:
    """Leaves folders of this machine out of what may be shown to others; the last name stays."""
    return Path(value).name if path in PATHS and value else value


def _command(path: Path, overrides: Mapping[str, object]) -> str:
    try:
        path = real_path(path).relative_to(Path.cwd())
    except ValueError:
        path = Path(path.name)
    words = ["seg", "ablate", "--config", path.as_posix()]
    for name, value in overrides.items():
        if name.startswith(OF_A_MACHINE):
            continue
        if name.startswith("set."):
            own = name.removeprefix("set.")
            words += ["--set", f"{own}={published(own, value)}"]
        else:
            words += [f"--{name}", str(value)]
    return shlex.join(words)
