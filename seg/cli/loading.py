"""From YAML files and overrides to a configuration, with all problems reported at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from seg.cli.schema import REQUIRED, Leaf, Node, Section, ancestors, experiment, nodes
from seg.cli.values import BadValueError, convert, parse_yaml, read_yaml, shown
from seg.config import SCHEMA_VERSION, ExperimentConfig
from seg.config.rules import problems
from seg.errors import ConfigError

CERTAIN = 0.8  # likeness of two names, of at most 1, from which one is taken for the other mistyped


def load_config(files: Sequence[Path], *overrides: Mapping[str, object]) -> ExperimentConfig:
    """Reads a configuration.

    Args:
        files: YAML files; a later one overlays the earlier ones field by field. Null in the place of an optional
            section takes the section away, a mapping brings it (back) with its defaults.
        overrides: Values by dotted path, applied in order after the files, one mapping after the other. Texts are
            read as if typed on a command line, so both ``"[1, 2]"`` and ``(1, 2)`` are lists.

    Returns:
        The configuration; fields that nobody gives have their defaults.

    Raises:
        ConfigError: A file cannot be read or was written by a newer version, a field is unknown, has the wrong type or
            is missing, or a rule is broken. Holds all problems, not the first one only.
    """
    reader = _Reader()
    for file in files:
        reader.read(file)
    for layer in overrides:
        for path, value in layer.items():
            reader.override(path, value)
    return reader.finish()


def unknown(what: str, name: str, known: Sequence[str]) -> str:
    """Words the problem of a name that does not exist, with the closest one that does."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"unknown {what} {name}; " + (f"did you mean {close[0]}?" if close else "see --help for those there are.")


class _Reader:
    """Collects values and problems from one source after the other.

    Attributes:
        values: Values of leaves by path.
        present: Paths of optional sections that are not null.
        problems: Sentences found so far.
        unread: Paths whose value could not be read; rules that name one are not judged.
    """

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.present: set[str] = set()
        self.problems: list[str] = []
        self.unread: set[str] = set()

    def read(self, file: Path) -> None:
        """Takes over a file's values."""
        try:
            content = read_yaml(file)
        except BadValueError as error:
            self.problems.append(f"{file}: {error}.")
            return
        if content is None:  # a file of comments alone
            return
        if not isinstance(content, dict):
            self.problems.append(f"{file}: must hold fields and their values, got {shown(content)}.")
            return
        version = content.get("schema_version")
        if isinstance(version, int) and version > SCHEMA_VERSION:
            self.problems.append(
                f"{file}: was written by a newer version of seg: schema_version must be at most {SCHEMA_VERSION}, "
                f"got {version}; update seg."
            )
            return
        self._assign_section(experiment(), content, f"{file}: ", typed_in=False)

    def override(self, path: str, value: object) -> None:
        """Takes over one value."""
        if path not in nodes():
            self._report_unknown(path, "")
            return
        self.present.update(section.path for section in ancestors(path) if section.optional)
        self._assign(nodes()[path], value, "", typed_in=True)

    def finish(self) -> ExperimentConfig:
        """Builds the configuration and applies the rules."""
        config: ExperimentConfig = self._build(experiment())
        judged = [problem for problem in problems(config) if not any(names(problem, path) for path in self.unread)]
        if self.problems or judged:
            raise ConfigError(self.problems + judged)
        return config

    def _assign(self, node: Node, value: Any, source: str, *, typed_in: bool) -> None:
        try:
            if isinstance(node, Leaf):
                self.values[node.path] = convert(value, node.type, typed_in=typed_in)
                return
            if typed_in and isinstance(value, str):
                value = parse_yaml(value)
        except BadValueError as error:
            self.unread.add(node.path)
            self.problems.append(f"{source}{node.path} {error}.")
            return
        if value is None and node.optional:
            self._clear(node)
        elif isinstance(value, Mapping):
            if node.optional:
                self.present.add(node.path)
            self._assign_section(node, value, source, typed_in=typed_in)
        else:
            self.unread.add(node.path)
            null = " or null" if node.optional else ""
            how = f"; its fields are set one by one, as {next(iter(node.members.values())).path} is" if typed_in else ""
            self.problems.append(f"{source}{node.path} must be a group of fields{null}, got {shown(value)}{how}.")

    def _assign_section(self, section: Section, content: Mapping[Any, Any], source: str, *, typed_in: bool) -> None:
        for key, value in content.items():
            if key in section.members:
                self._assign(section.members[key], value, source, typed_in=typed_in)
            else:
                self._report_unknown(f"{section.path}.{key}".removeprefix("."), source)

    def _clear(self, section: Section) -> None:
        inside = f"{section.path}."
        self.present.discard(section.path)
        self.values = {path: value for path, value in self.values.items() if not path.startswith(inside)}

    def _report_unknown(self, path: str, source: str) -> None:
        if path in nodes():  # named in one piece in a file
            self.problems.append(f"{source}{path} must be nested, one level per line, got a name with dots.")
            return
        meant, certain = _meant(path)
        self.problems.append(f"{source}unknown field {path}; {meant}")
        # The field that was meant keeps its default here, by which no rule should be judged.
        self.unread.update(certain)

    def _build(self, section: Section) -> Any:
        """Makes the section's dataclass; fields that were not given are left to its defaults."""
        arguments: dict[str, Any] = {}
        for name, member in section.members.items():
            if isinstance(member, Leaf):
                if member.path in self.values:
                    arguments[name] = self.values[member.path]
            elif not member.optional:
                arguments[name] = self._build(member)
            elif member.path in self.present:
                missing = [leaf.path for leaf in self._missing(member)]
                self.problems += [
                    f"{path} must be given where {member.path} is, got none; add it or set {member.path} to null."
                    for path in missing
                    if path not in self.unread
                ]
                if missing:
                    self.unread.add(member.path)
                else:
                    arguments[name] = self._build(member)
        return section.type(**arguments)

    def _missing(self, section: Section) -> Iterator[Leaf]:
        for member in section.members.values():
            if isinstance(member, Leaf) and member.default is REQUIRED and member.path not in self.values:
                yield member


def _meant(path: str) -> tuple[str, list[str]]:
    """Says which field an unknown path may stand for, and which one it stands for beyond doubt, if any."""
    above, _, name = path.rpartition(".")
    section = nodes().get(above) if above else experiment()
    siblings = section.members if isinstance(section, Section) else {}
    if close := difflib.get_close_matches(name, siblings, n=1):
        found = siblings[close[0]].path
        return f"did you mean {found}?", [found] if _ratio(name, close[0]) >= CERTAIN else []
    elsewhere = [
        node.path
        for node in nodes().values()
        if isinstance(node, Leaf) and _ratio(name, node.path.rpartition(".")[2]) >= CERTAIN
    ]
    if elsewhere:
        found = max(elsewhere, key=lambda leaf: _ratio(path, leaf))
        return f"did you mean {found}?", [found]
    if above and siblings:
        return f"the fields of {above} are {', '.join(siblings)}.", []
    return "see --help for those there are.", []


def _ratio(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def names(problem: str, path: str) -> bool:
    """Whether a sentence names a path or a field within it."""
    return re.search(rf"(?<![\w.]){re.escape(path)}(?!\w)", problem) is not None
