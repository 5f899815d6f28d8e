"""From YAML files and values by dotted path to a configuration, and back to YAML."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import logging
import os
import textwrap
import types
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from seg.config.experiment import CONFIG_VERSION, DataConfig, ExperimentConfig
from seg.config.fields import (
    ConfigField,
    Rules,
    alternatives,
    direct_fields,
    fields_of,
    is_path,
    item_of,
    overlaps,
    range_in_words,
    type_in_words,
)
from seg.config.rules import RULES
from seg.config.study import STUDY_RULES, STUDY_VERSION, StudyConfig
from seg.config.text import YamlError, as_yaml, parse_yaml, read_yaml, text_problem
from seg.errors import ConfigError, Problem, shown
from seg.files import check_version, quoted

LOG = logging.getLogger(__name__)
REMOVED_FIELDS: Mapping[type, Sequence[str]] = {StudyConfig: ("reuse",), ExperimentConfig: ("network.name",)}
"""Fields of older files that mean nothing any more, by dotted path."""
_ANNOUNCED: set[str] = set()  # removed fields that this process has named: a study reads hundreds of older files
_ADAPTERS: dict[type, TypeAdapter[Any]] = {}  # making one takes a tenth of a second
CERTAIN = 0.8  # likeness of two names, of at most 1, from which a name counts as a misspelling of the other
COMMENT_WIDTH = 100
INDENT = "  "
Config = TypeVar("Config")
RANGE_ERRORS = ("greater_than_equal", "greater_than", "less_than_equal", "less_than", "finite_number")


def load_config(files: Sequence[Path], *overrides: Mapping[str, object]) -> ExperimentConfig:
    """Reads a configuration.

    Args:
        files: YAML files; a later file overlays the earlier ones field by field. Null in the place of an optional
            section removes the section, a mapping brings it (back) with its defaults. A relative path is relative to
            the file that gives it; in files of the package and of a run, and in overrides, to the working directory.
        overrides: Values by dotted path, applied in order after the files, one mapping after the other. Texts are
            read as if typed on a command line, so both ``"[1, 2]"`` and ``(1, 2)`` are lists.

    Returns:
        The configuration; fields that nobody gives have their defaults.

    Raises:
        ConfigError: A file cannot be read or was written by a newer version, a field is unknown, has the wrong type or
            is missing, or a rule is broken. Holds all problems, not the first alone.
    """
    config, found = _read(ExperimentConfig, CONFIG_VERSION, files, overrides, RULES)
    if found or config is None:
        raise ConfigError(found)
    return config


def config_from(content: Mapping[str, Any], file: Path) -> ExperimentConfig:
    """Makes a configuration of fields that a file of another kind holds; its paths are left as they are.

    Args:
        content: Values by field, sections as mappings.
        file: The file, to be named.

    Raises:
        ConfigError: As for :func:`load_config`.
    """
    fields, found = dict(content), list[Problem]()
    if isinstance(written := fields.get("schema_version"), int):
        check_version(file, written, CONFIG_VERSION, error=ConfigError)
    drop_removed_fields(ExperimentConfig, fields)
    config, unread = _build(ExperimentConfig, fields, found)
    found += RULES.broken(config, unread) if config is not None else []
    if found or config is None:
        raise ConfigError([replace(problem, file=str(file)) for problem in found])
    return config


def load_study(file: Path, overrides: Mapping[str, object]) -> tuple[StudyConfig | None, list[Problem]]:
    """Reads a study's file; the values of its changes are left as they are, for the rules of experiments.

    Args:
        file: YAML file of a study.
        overrides: Values by dotted path of the study's fields, such as ``launch.workers``, and of the experiment's
            after ``set.``, such as ``set.data.root``. Texts are read as if typed on a command line.

    Returns:
        The study, None where it cannot be made, and all problems.
    """
    return _read(StudyConfig, STUDY_VERSION, [file], [overrides], STUDY_RULES)


def unknown(path: str, what: str, known: Sequence[str]) -> Problem:
    """Returns the problem of a dotted name that does not exist, with the closest one that does, or those beside it."""
    above, _, name = path.rpartition(".")
    beside = [other.removeprefix(f"{above}.") for other in known if other.rpartition(".")[0] == above]
    if above and beside:
        close = [f"{above}.{other}" for other in difflib.get_close_matches(name, beside, n=1)]
        remedy = f"{above} has {', '.join(beside)}"
    else:
        close, remedy = difflib.get_close_matches(path, known, n=1), "see --help"
    remedy = f"did you mean {close[0]}?" if close else remedy
    return Problem(path, "unknown", f"is no {what}", remedy=remedy)


def _read(
    cls: type[Config], version: int, files: Sequence[Path], overrides: Sequence[Mapping[str, object]], rules: Rules
) -> tuple[Config | None, list[Problem]]:
    found: list[Problem] = []
    contents: dict[Path, dict[str, Any]] = {}
    merged: dict[str, Any] = {}
    for file in files:
        try:
            contents[file] = _content(cls, version, file)
        except ConfigError as error:
            found += error.problems
        else:
            _overlay(merged, contents[file])
    if found and cls is StudyConfig:  # without its file a study lacks what must be given
        return None, found
    for layer in overrides:
        for field, given in layer.items():
            _override(cls, merged, field, given, found)
    misread: list[Problem] = []
    config, unread = _build(cls, merged, misread)
    if cls is ExperimentConfig:
        misread = [_with_file(problem, contents, overrides) for problem in misread]
    found += misread
    if config is not None:
        broken = rules.broken(config, unread)
        sole = next(iter(contents)) if cls is ExperimentConfig and len(files) == 1 and contents else None
        found += broken if sole is None or any(overrides) else [replace(one, file=str(sole)) for one in broken]
    return config, found


def _content(cls: type[Any], version: int, file: Path) -> dict[str, Any]:
    """Reads the fields that a file gives."""
    where = quoted(str(file))
    content: Any = read_yaml(file, Any, remedy="correct the file, or give another", error=ConfigError)
    if not isinstance(content, dict):
        raise ConfigError(Problem(where, "type", "must hold fields and their values", shown(content)))
    sections = {name for name, field in fields_of(ExperimentConfig).items() if field.section is not None}
    of_studies = direct_fields(StudyConfig).keys() - direct_fields(ExperimentConfig).keys()
    if cls is ExperimentConfig and "base" in content and not sections & content.keys():
        rule, remedy = "must be the file of an experiment", "run it by `seg ablate --config`"
        raise ConfigError(Problem(where, "kind", rule, "that of a study", remedy))
    if cls is StudyConfig and sections & content.keys() and not of_studies & content.keys():
        rule, remedy = "must be the file of a study", "train it by `seg train --config`"
        raise ConfigError(Problem(where, "kind", rule, "that of an experiment", remedy))
    written = content.get("schema_version")
    if isinstance(written, int):
        check_version(file, written, version, error=ConfigError)
    for path in drop_removed_fields(cls, content):
        if path not in _ANNOUNCED:
            LOG.warning("%s: %s is no longer a field and is ignored; it can be removed", file, path)
        _ANNOUNCED.add(path)
    if not _from_where_the_user_stands(file):
        _from_file(content, cls, file)
    launch = content.get("launch") if cls is StudyConfig else None
    if isinstance(launch, dict) and launch.get("backend") == "process":  # of older files
        launch |= {"backend": "workers", "workers": 1, "gpus_per_trial": 0.0}
    return content


def _from_where_the_user_stands(file: Path) -> bool:
    """Tells whether relative paths in a file start from the working directory, not from the file.

    They do in files that come with the package, which know nothing of where they lie, and in a run's own record, which
    says what the run was told.
    """
    beside = (file.with_name(name) for name in ("environment.json", "model.json"))
    return any(map(os.path.isfile, beside)) or _configs_folder() in Path(os.path.realpath(file)).parents


def path_in_file(path: Path, file: Path) -> str:
    """Returns how a configuration file names a path, which is relative to the working directory or absolute."""
    if path.is_absolute() or _from_where_the_user_stands(file):
        return str(path)
    relative = os.path.relpath(path, file.parent)
    # Where a folder on the way is a link, `..` may lead elsewhere.
    leads_there = (file.parent / relative).resolve() == path.resolve()
    return relative if leads_there else str(path.absolute())


def _from_file(content: dict[str, Any], cls: type, file: Path) -> None:
    """Makes the relative paths that a user's file gives start from its folder, in place."""
    known = {path for path, field in fields_of(ExperimentConfig).items() if is_path(field.hint)}
    if cls is ExperimentConfig:
        _move_paths(content, known, file)
        return
    # The base is found beside the study's file already.
    points = [content.get("baseline"), *(_items(content, "points"))]
    for changes in [content, *points]:
        if isinstance(changes, dict):
            _move_paths(changes.get("set"), known, file)
    for axis in _items(content, "axes"):
        if isinstance(axis, dict) and axis.get("path") in known and isinstance(axis.get("values"), list):
            axis["values"] = [_moved(value, file) for value in axis["values"]]


def _items(content: Mapping[str, Any], name: str) -> list[Any]:
    found = content.get(name)
    return found if isinstance(found, list) else []


def _move_paths(content: object, known: Collection[str], file: Path, above: str = "") -> None:
    if not isinstance(content, dict):  # reported where the value is read
        return
    for name, value in content.items():
        path = _join(above, name)
        if path in known:
            content[name] = _moved(value, file)
        else:
            _move_paths(value, known, file, path)


def _moved(value: object, file: Path) -> object:
    if not isinstance(value, str) or not value or os.path.isabs(os.path.expanduser(value)):
        return value
    moved = os.path.join(os.path.dirname(file), value)
    if not os.path.lexists(moved) and os.path.lexists(value):
        LOG.warning(
            "%s: %s is relative to this file and is not there; what lies where you stand is %s",
            file,
            value,
            os.path.relpath(value, file.parent),
        )
    return moved


def _with_file(
    problem: Problem, contents: Mapping[Path, Mapping[str, Any]], overrides: Sequence[Mapping[str, object]]
) -> Problem:
    """Names the file that gives the field of a problem: the last of several, none where an override gives it."""
    path = problem.path.partition("[")[0]
    if any(overlaps(path, given) for layer in overrides for given in layer):
        return problem
    files = [
        file for file, content in contents.items() if len(contents) == 1 or _is_given(content, tuple(path.split(".")))
    ]
    return replace(problem, file=str(files[-1])) if files else problem


def drop_removed_fields(cls: type[Any], content: Mapping[str, Any]) -> list[str]:
    """Takes the fields of earlier versions out of the content of a file, in place, and returns their dotted paths."""
    found = []
    for path in REMOVED_FIELDS.get(cls, ()):
        *sections, name = path.split(".")
        around = _value_within(content, sections)
        if isinstance(around, dict) and name in around:
            del around[name]
            found.append(path)
    return found


def _overlay(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    for name, value in above.items():
        if not isinstance(value, dict):
            below[name] = value
            continue
        if not isinstance(below.get(name), dict):
            below[name] = {}
        _overlay(below[name], value)


def _override(cls: type, merged: dict[str, Any], path: str, value: object, found: list[Problem]) -> None:
    known = fields_of(cls)
    parts = path.split(".")
    depth = next((end for end in range(len(parts), 0, -1) if ".".join(parts[:end]) in known), 0)
    target = known.get(".".join(parts[:depth]))
    of_mapping = target is not None and depth < len(parts) and dict in map(_origin, alternatives(target.hint))
    if target is None or (depth < len(parts) and not of_mapping):
        found.append(_unknown(cls, path))
        return
    changed = fields_of(ExperimentConfig).get(".".join(parts[depth:])) if of_mapping else target
    try:
        value = typed_in(value, Any if changed is None else changed.hint)
    except YamlError as error:
        found.append(Problem(path, "yaml", str(error), shown(value)))
        return
    *sections, name = [*parts[:depth], *([".".join(parts[depth:])] if of_mapping else [])]
    for section in sections:
        if merged.get(section) is None:
            merged[section] = {}
        merged = merged[section]
        if not isinstance(merged, dict):  # reported where the section is read
            return
    if of_mapping:
        merged.pop(name, None)  # changes apply in their order: the last given comes last
    _overlay(merged, {name: value})


def typed_in(value: object, hint: Any) -> object:
    """Reads a text as if typed on a command line: as it is where the type takes texts, else as YAML.

    Raises:
        YamlError: The text is not valid.
    """
    if not isinstance(value, str):
        return value
    kinds = alternatives(hint)
    if (value == "null" and types.NoneType in kinds) or not {str, Path} & {_origin(kind) for kind in kinds}:
        return parse_yaml(value)
    if (bad := text_problem(value)) is not None:
        raise YamlError(f"must be text without {bad}")
    return value


def read_options(
    cls: type[Config], values: Mapping[str, object], found: list[Problem]
) -> tuple[Config | None, list[str]]:
    """Makes a section from texts typed on a command line, a list as the list of its items; adds to the problems found.

    Returns:
        The section, None where a field without default is missing, and the fields that could not be read.
    """
    merged: dict[str, Any] = {}
    bad = []
    for name, value in values.items():
        hint = fields_of(cls)[name].hint
        item = item_of(hint)
        try:
            many = isinstance(value, list) and item is not None
            merged[name] = [typed_in(text, item[0]) for text in value] if many else typed_in(value, hint)  # type: ignore[index,attr-defined]
        except YamlError as error:
            found.append(Problem(name, "yaml", str(error), shown(value)))
            bad.append(name)
    before = len(found)
    made, unread = _build(cls, merged, found)
    found[before:] = [problem for problem in found[before:] if problem.path not in bad]  # named already
    return made, [*bad, *unread]


def find_config(given: Path, *, study: bool = False) -> Path:
    """Returns a file as it is, or the file of that name that comes with the package, as ``phantom``.

    A folder of that name, such as a data set in the working directory, does not hide it.

    Raises:
        ConfigError: The name is neither that of a file nor of a configuration of the package.
    """
    if given.suffix or len(given.parts) != 1 or (os.path.exists(given) and not os.path.isdir(given)):
        return given
    folder = _configs_folder() / ("ablation" if study else "")
    known = {file.stem: file for file in sorted(folder.glob("*.yaml"))}
    if str(given) not in known:
        close = difflib.get_close_matches(str(given), known, n=1)
        remedy = f"did you mean {close[0]}?" if close else "give the path of another with its ending"
        rule = f"is no file and none of {', '.join(known)}"
        raise ConfigError(Problem(f"--config {given}", "unknown", rule, remedy=remedy))
    return known[str(given)]


def own_config(run_dir: Path) -> tuple[Path, bool]:
    """Returns the file of a run's own configuration, and whether it is that of its first fold, for all its folds."""
    own = run_dir / "config.yaml"
    of_folds = sorted(run_dir.glob("fold_*/config.yaml"))
    if of_folds and not os.path.lexists(own):  # they differ in their fold alone
        return of_folds[0], True
    return own, False


def _configs_folder() -> Path:
    """Returns the folder of the configurations that come with the package."""
    package = Path(os.path.realpath(__file__)).parents[1]
    above = package if (package / "configs").is_dir() else package.parent  # installed, or in a checkout
    return above / "configs"


def _build(cls: type[Config], merged: dict[str, Any], found: list[Problem]) -> tuple[Config | None, list[str]]:
    """Makes the configuration; values that cannot be read are reported and left to their defaults.

    Returns:
        The configuration, None where a field without default is missing, and the paths of what could not be read.
    """
    unread: list[str] = []
    for _ in range(20):  # a section that goes because of a missing field can uncover a further fault above it
        try:
            made: Config = _adapter(cls).validate_python(merged)
            return made, unread
        except ValidationError as error:
            errors = error.errors(include_url=False)
        places: dict[str, tuple[_Location, list[Any]]] = {}
        for entry in errors:
            place = _place(cls, entry["loc"])
            places.setdefault(place.field, (place, []))[1].append(entry)
        for place, entries in places.values():
            if place.field not in unread:
                found.extend(_problems(cls, place, entries, merged))
            unread += [place.field, *place.meant]
        removed = [_removable(merged, place.keys) for place, _ in places.values()]
        if () in removed:
            break
        for *above, name in removed:
            _value_within(merged, above).pop(name, None)
    return None, unread


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Location:
    """Where a value stands."""

    field: str
    """Dotted path of the field."""
    keys: tuple[Any, ...]
    """The same as keys of nested mappings and lists."""
    hint: Any
    """Type of the field; None where there is no such field."""
    optional: str = ""
    """Path of the closest optional section around the field, if any."""
    meant: tuple[str, ...] = ()
    """Path of the field that an unknown field stands for beyond doubt, if any."""


def _place(cls: type, location: Sequence[Any]) -> _Location:
    """Finds the field that an error of pydantic is about."""
    hint: Any = cls
    keys: list[Any] = []
    path = optional = ""
    for part in location:
        inner = _section_of(hint)
        if inner is not None:
            keys.append(part)
            if part not in direct_fields(inner):
                path = _join(path, part)
                close = _closest(cls, path)
                return _Location(field=path, keys=tuple(keys), hint=None, meant=close[:1] if close and close[1] else ())
            if types.NoneType in alternatives(hint):
                optional = path
            hint = fields_of(inner)[part].hint
            path = _join(path, part)
        else:
            item = next((kind for kind in alternatives(hint) if _origin(kind) is tuple), None)
            inner = _section_of(typing.get_args(item)[0]) if item is not None else None
            if inner is None or not isinstance(part, int):
                break  # within a value
            keys.append(part)
            path, hint = f"{path}[{part}]", typing.get_args(item)[0]
    return _Location(field=path, keys=tuple(keys), hint=hint, optional=optional)


def _problems(cls: type, place: _Location, entries: list[Any], merged: dict[str, Any]) -> Iterator[Problem]:
    """Turns what pydantic says about one field into problems."""
    kinds = {entry["type"] for entry in entries}
    if place.hint is None:
        yield _unknown(cls, place.field)
        return
    several = len([kind for kind in alternatives(place.hint) if kind is not types.NoneType]) > 1
    out_of_range = [entry for entry in entries if entry["type"] in RANGE_ERRORS]
    if kinds == {"missing"} and not _is_given(merged, place.keys):
        remedy = f"add it or set {place.optional} to null" if place.optional else ""
        yield Problem(place.field, "missing", "must be given", "none", remedy)
    elif out_of_range and (several or kinds <= set(RANGE_ERRORS)):
        rule = f"must be {range_in_words(place.hint) or 'finite'}"
        for entry in out_of_range:
            indices = "".join(f"[{part}]" for part in entry["loc"][len(place.keys) :] if isinstance(part, int))
            yield Problem(place.field + indices, "range", rule, f"{entry['input']:.15g}")
    elif (named := next((entry for entry in entries if entry["type"] == "value_error"), None)) is not None:
        yield Problem(place.field, "name", str(named["ctx"]["error"]), shown(str(named["input"])))
    else:
        null = " or null" if types.NoneType in alternatives(place.hint) else ""
        words = f"a group of fields{null}" if _section_of(place.hint) else type_in_words(place.hint)
        value = shown(_value_within(merged, place.keys))
        yield Problem(place.field, "type", f"must be {words}", value)


def _unknown(cls: type, path: str) -> Problem:
    if path in fields_of(cls):  # named in one piece in a file
        return Problem(path, "unknown", "must be nested, one level per line", "a name with dots")
    close = _closest(cls, path)
    above = path.rpartition(".")[0]
    siblings = [field.name for field in fields_of(cls).values() if field.above == above]
    remedy = "see --help"
    if close is not None:
        remedy = f"did you mean {close[0]}?"
    elif above and siblings:
        remedy = f"the fields of {above} are {', '.join(siblings)}"
    return Problem(path, "unknown", "is no field", remedy=remedy)


def _closest(cls: type, path: str) -> tuple[str, bool] | None:
    """Finds the field that an unknown path may stand for, and whether beyond doubt."""
    above, _, name = path.rpartition(".")
    siblings = {known.name: known.path for known in fields_of(cls).values() if known.above == above}
    if close := difflib.get_close_matches(name, siblings, n=1):
        return siblings[close[0]], _likeness(name, close[0]) >= CERTAIN
    elsewhere = [
        known.path
        for known in fields_of(cls).values()
        if known.section is None and _likeness(name, known.name) >= CERTAIN
    ]
    return (max(elsewhere, key=lambda found: _likeness(path, found)), True) if elsewhere else None


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def _removable(merged: dict[str, Any], keys: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns the keys of a value, or of the list or section around it; none where nothing is there to remove."""
    end = next((index for index, key in enumerate(keys) if isinstance(key, int)), len(keys))
    while end and not _is_given(merged, keys[:end]):
        end -= 1
    return keys[:end]


def _is_given(content: Any, keys: tuple[Any, ...]) -> bool:
    for key in keys:
        known = content if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
        if key not in known:
            return False
        content = content[key]
    return True


def _value_within(content: Any, keys: Sequence[Any]) -> Any:
    for key in keys:
        content = content.get(key, {}) if isinstance(content, dict) else content[key]
    return content


def _adapter(cls: type) -> TypeAdapter[Any]:
    if cls not in _ADAPTERS:
        _ADAPTERS[cls] = TypeAdapter(cls)
    return _ADAPTERS[cls]


def _section_of(hint: Any) -> type | None:
    return next((kind for kind in alternatives(hint) if dataclasses.is_dataclass(kind)), None)  # type: ignore[return-value]


def _origin(kind: Any) -> Any:
    origin = typing.get_origin(kind) or kind
    return dict if origin in (Mapping, dict) else str if origin is Literal else origin


def _join(above: str, name: object) -> str:
    return f"{above}.{name}" if above else str(name)


def dump_config(config: ExperimentConfig, *, comments: bool = False, header: str = "") -> str:
    """Formats a configuration as YAML, every field of it, so that reading it gives the same configuration.

    Args:
        config: The configuration.
        comments: Whether each field's explanation stands above it.
        header: Text that opens the file, as comments.
    """
    lines = [f"# {line}".rstrip() for line in header.splitlines()]
    if lines:
        lines.append("")
    values: dict[str, Any] = {"": config}
    for field in fields_of(ExperimentConfig).values():
        above, _, name = field.path.rpartition(".")
        if values.get(above) is None:
            continue  # within a section that is null
        value = values[field.path] = getattr(values[above], name)
        indent = INDENT * field.path.count(".")
        if comments:
            if not above and field.section is not None:
                lines.append("")
            lines += textwrap.wrap(
                explanation(field), COMMENT_WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
            )
        is_section = field.section is not None and value is not None
        lines.append(f"{indent}{name}:" if is_section else f"{indent}{name}: {as_yaml(value)}")
    return "\n".join(lines) + "\n"


def explanation(field: ConfigField) -> str:
    """Says what a field means and which values it takes."""
    limits = "" if field.section is not None else range_in_words(field.hint)
    return f"{field.description.removesuffix('.')}, {limits}." if limits else field.description


UNDECISIVE = (
    *("data.root", "data.cache", "data.cache_dir", "data.workers"),
    *("training.progress", "training.init_from", "training.runs_dir"),
)
"""Fields that may change between training and prediction: folders, and how a run is computed and shown."""


def comparable(config: ExperimentConfig) -> ExperimentConfig:
    """Leaves out what changes neither weights nor their scores; of initial weights stays whether there are any."""
    defaults = DataConfig()
    data = replace(config.data, root="", cache=defaults.cache, cache_dir=None, workers=defaults.workers)
    source = None if config.training.init_from is None else "given"
    training = replace(config.training, progress=False, init_from=source, score_seen=False, runs_dir=None)
    largest = config.postprocessing.largest_component or ()
    postprocessing = replace(config.postprocessing, largest_component=largest)
    return replace(config, data=data, training=training, postprocessing=postprocessing)


def config_digest(text: str) -> str:
    """Returns the SHA-256 of the fields that a YAML text gives, but for those that change no weights or predictions.

    Fields that the text does not give are left out, so that a later version with more fields finds the same digest.
    """
    content = parse_yaml(text)
    for path in UNDECISIVE:
        section, name = path.split(".")
        content.get(section, {}).pop(name, None)
    return content_digest(content)


def content_digest(content: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of fields and their values, in whatever order."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def differences(one: ExperimentConfig, other: ExperimentConfig) -> list[str]:
    """Lists the dotted paths at which two configurations differ."""
    return list(_differing(dataclasses.asdict(one), dataclasses.asdict(other), ""))


def _differing(one: object, other: object, path: str) -> Iterator[str]:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in one:
            yield from _differing(one[key], other[key], _join(path, key))
    elif one != other:
        yield path
