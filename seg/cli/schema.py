"""The configuration's fields as a tree: path, type, default and explanation of each, read off the dataclasses."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Union

from seg.config import ExperimentConfig

REQUIRED: Any = dataclasses.MISSING


@dataclass(frozen=True, kw_only=True)
class Leaf:
    """A field that holds a value.

    Attributes:
        path: Dotted path from the experiment.
        type: Type of the value.
        default: Value where nothing is given, or REQUIRED.
        doc: Explanation, with unit and range.
    """

    path: str
    type: Any
    default: Any
    doc: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """A field that holds a dataclass, or the experiment itself.

    Attributes:
        path: Dotted path from the experiment, whose own is empty.
        type: The dataclass.
        optional: Whether null may stand in its place; null is then the default.
        doc: Explanation.
        members: Its fields by name, in their order.
    """

    path: str
    type: type
    optional: bool
    doc: str
    members: dict[str, Node]


Node = Leaf | Section


@functools.cache
def experiment() -> Section:
    """The tree of an experiment."""
    return section_of(ExperimentConfig)


@functools.cache
def nodes() -> dict[str, Node]:
    """All fields of an experiment by dotted path, each section before its fields."""
    return {node.path: node for node in _walk(experiment()) if node.path}


def section_of(cls: type, *, path: str = "", optional: bool = False, doc: str = "") -> Section:
    """Reads the tree of a dataclass off its fields and docstring."""
    hints = typing.get_type_hints(cls)
    docs = _attribute_docs(cls)
    members: dict[str, Node] = {}
    for field in dataclasses.fields(cls):
        inner = f"{path}.{field.name}" if path else field.name
        hint, explanation = hints[field.name], docs.get(field.name, "")
        nested = [member for member in members_of(hint) if dataclasses.is_dataclass(member)]
        if nested:
            members[field.name] = section_of(
                typing.cast(type, nested[0]), path=inner, optional=hint is not nested[0], doc=explanation
            )
        else:
            members[field.name] = Leaf(path=inner, type=hint, default=field.default, doc=explanation)
    return Section(path=path, type=cls, optional=optional, doc=doc, members=members)


def ancestors(path: str) -> list[Section]:
    """The sections around a path, outermost first, without the experiment itself."""
    parts = path.split(".")
    above = [nodes()[".".join(parts[:depth])] for depth in range(1, len(parts))]
    return [node for node in above if isinstance(node, Section)]


def members_of(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a union type, or the type alone."""
    return typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)


def in_words(hint: Any, *, plural: bool = False) -> str:
    """Says what a value of a type looks like, as in "a list of 3 numbers"."""
    simple = {
        int: ("an integer", "integers"),
        float: ("a number", "numbers"),
        bool: ("true or false", "values true or false"),
        str: ("text", "texts"),
        types.NoneType: ("null", "nulls"),
    }
    if hint in simple:
        return simple[hint][plural]
    if len(members_of(hint)) > 1:
        return " or ".join(in_words(member, plural=plural) for member in members_of(hint))
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return ("values of " if plural else "one of ") + ", ".join(map(str, arguments))
    count = "" if arguments[-1] is Ellipsis else f"{len(arguments)} "
    return f"{'lists' if plural else 'a list'} of {count}{in_words(arguments[0], plural=True)}"


def _walk(section: Section) -> Iterator[Node]:
    yield section
    for member in section.members.values():
        if isinstance(member, Section):
            yield from _walk(member)
        else:
            yield member


def _attribute_docs(cls: type) -> dict[str, str]:
    """Reads the ``Attributes:`` part of a docstring."""
    docs: dict[str, str] = {}
    name = ""
    for line in inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")[2].splitlines():
        if start := re.fullmatch(r" {4}(\w+): (.*)", line):
            name = start[1]
            docs[name] = start[2]
        elif line.strip():
            docs[name] += " " + line.strip()
    return docs
