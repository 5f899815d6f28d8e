"""From a study's YAML file and overrides to its configuration, with all problems found in one pass."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seg.cli.loading import names, unknown
from seg.cli.schema import REQUIRED, Leaf, Section, section_of
from seg.cli.values import BadValueError, convert, parse_yaml, read_yaml, shown
from seg.config import StudyConfig
from seg.config.study_rules import STUDY_VERSION, study_problems

COMMON = "set."
"""What stands before the path of an experiment's field, to change it for all variants."""


def read_study_config(file: Path, overrides: Mapping[str, object]) -> tuple[StudyConfig | None, list[str]]:
    """Reads a study's file; the values of its changes are left as they are, for the rules of experiments.

    Args:
        file: YAML file of a study.
        overrides: Values by dotted path of the study's fields, such as ``launch.backend``, and of the experiment's
            after ``set.``, such as ``set.data.root``. Texts are read as if typed on a command line.

    Returns:
        The study, None where it cannot be made, and a sentence for each problem.
    """
    reader = _Reader()
    study = reader.read(file, overrides)
    if study is not None:
        judged = study_problems(study)
        reader.problems += [one for one in judged if not any(names(one, path) for path in reader.unread)]
    return study, reader.problems


def study_leaves() -> dict[str, Leaf]:
    """Returns the fields of a study that a command line may give, by dotted path: how it runs, not what it compares."""
    found: dict[str, Leaf] = {}
    sections = [section_of(StudyConfig)]
    while sections:
        section = sections.pop()
        for member in section.members.values():
            if isinstance(member, Section):
                sections.append(member)
            elif section.path in ("launch", "launch.slurm", "speed") or member.path in ("folds", "seeds", "reuse"):
                found[member.path] = member
    return found


class _Reader:
    """Collects problems while the dataclasses of a study are made.

    Attributes:
        problems: Sentences found so far.
        unread: Paths whose value could not be read; rules that name one are not judged.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.unread: list[str] = []

    def read(self, file: Path, overrides: Mapping[str, object]) -> StudyConfig | None:
        try:
            content = read_yaml(file)
        except BadValueError as error:
            self.problems.append(f"{file}: {error}.")
            return None
        if not isinstance(content, dict):
            self.problems.append(f"{file}: must hold the fields of a study and their values, got {shown(content)}.")
            return None
        version = content.get("schema_version")
        if isinstance(version, int) and version > STUDY_VERSION:
            self.problems.append(
                f"{file}: was written by a newer version of seg: schema_version must be at most {STUDY_VERSION}, got "
                f"{version}; update seg."
            )
            return None
        for path, value in overrides.items():
            self._override(content, path, value)
        study: StudyConfig | None = self._dataclass(StudyConfig, content, "")
        return study

    def _override(self, content: dict[str, Any], path: str, value: object) -> None:
        leaves = study_leaves()
        try:
            if path.startswith(COMMON):
                common = content.setdefault("set", {})
                if isinstance(common, dict):  # else it is reported where it is read
                    field = path.removeprefix(COMMON)
                    common.pop(field, None)  # what is said last is also applied last
                    common[field] = parse_yaml(value) if isinstance(value, str) else value
                return
            if path not in leaves:
                self.problems.append(unknown("field", path, [*leaves, "set.data.root"]))
                return
            typed = convert(value, leaves[path].type, typed_in=True)
        except BadValueError as error:
            self._bad(path, str(error))
            return
        *sections, name = path.split(".")
        for section in sections:
            content = content.setdefault(section, {})
            if not isinstance(content, dict):
                return
        content[name] = typed

    def _dataclass(self, cls: type, content: Any, path: str) -> Any:
        """Makes a dataclass from a mapping; None where a field that must be given is not, or not of its type."""
        if not isinstance(content, Mapping):
            self._bad(path, f"must be a group of fields, got {shown(content)}")
            return None
        inside = f"{path}." if path else ""
        hints = typing.get_type_hints(cls)
        for key in content:
            if key not in hints:
                self.problems.append(unknown("field", f"{inside}{key}", [inside + name for name in hints]))
        arguments: dict[str, Any] = {}
        whole = True
        for field in dataclasses.fields(cls):
            required = field.default is REQUIRED and field.default_factory is REQUIRED
            if field.name in content:
                before = len(self.problems)
                value = self._value(hints[field.name], content[field.name], inside + field.name)
                # A list or section of which a part could be read goes on, for the sake of what is wrong with the rest.
                if value is not None or len(self.problems) == before:
                    arguments[field.name] = value
                    continue
            elif required:
                self._bad(inside + field.name, "must be given, got none")
            whole = whole and not required
        return cls(**arguments) if whole else None

    def _value(self, hint: Any, content: Any, path: str) -> Any:
        if dataclasses.is_dataclass(hint):
            return self._dataclass(typing.cast(type, hint), content, path)
        origin, items = typing.get_origin(hint), typing.get_args(hint)
        if origin is Mapping:
            return self._changes(content, path)
        if origin is tuple and items[0] is Any:
            return self._list(content, path)
        if origin is tuple and dataclasses.is_dataclass(items[0]):
            kind = typing.cast(type, items[0])
            made = [
                self._dataclass(kind, entry, f"{path}[{index}]")
                for index, entry in enumerate(self._list(content, path) or ())
            ]
            if None in made:
                self.unread.append(path)
            return tuple(one for one in made if one is not None)
        try:
            return convert(content, hint, typed_in=False)
        except BadValueError as error:
            self._bad(path, str(error))
            return None

    def _list(self, content: Any, path: str) -> tuple[Any, ...] | None:
        if isinstance(content, list | tuple):
            return tuple(content)
        self._bad(path, f"must be a list, got {shown(content)}")
        return None

    def _changes(self, content: Any, path: str) -> dict[str, Any] | None:
        if not isinstance(content, Mapping):
            self._bad(path, f"must give values by dotted path, as in training.steps: 700, got {shown(content)}")
            return None
        for key in content:
            if not isinstance(key, str):
                self._bad(path, f"must have dotted paths before its values, got {shown(key)}")
        return {str(key): value for key, value in content.items()}

    def _bad(self, path: str, what: str) -> None:
        self.unread.append(path)
        self.problems.append(f"{path} {what}.")
