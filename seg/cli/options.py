"""One command-line option for every field of the configuration, explained."""

from __future__ import annotations

import argparse
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from seg.cli.schema import REQUIRED, Leaf, Node, Section, ancestors, experiment, members_of
from seg.cli.values import as_yaml

METAVARS = {int: "INT", float: "NUMBER", bool: "true|false", str: "TEXT", types.NoneType: "null"}


def add_fields(parser: argparse.ArgumentParser, metavars: Mapping[str, str]) -> None:
    """Gives a parser an option for every field, also for those within sections that are null by default.

    The texts given are collected unread in ``overrides``, a list of pairs of path and text in their order: argparse
    would stop at the first bad value.

    Args:
        parser: The parser to extend.
        metavars: Forms of a value by path, where they differ from what the field's type says.
    """
    parser.set_defaults(overrides=[])
    _add_section(parser, experiment(), metavars)


def _add_section(parser: argparse.ArgumentParser, section: Section, metavars: Mapping[str, str]) -> None:
    group = parser.add_argument_group(section.path or "experiment", section.doc or None)
    nested = [member for member in section.members.values() if isinstance(member, Section)]
    for member in section.members.values():
        if isinstance(member, Leaf) or member.optional:
            form = metavars.get(member.path, _metavar_of(member))
            add_override(group, f"--{member.path}", member.path, form, _help(member))
    for member in nested:
        _add_section(parser, member, metavars)


def add_override(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup, option: str, path: str, form: str, text: str
) -> None:
    """Gives a parser an option whose text is collected unread in ``overrides``, with the path of its field."""

    def pair(value: str) -> tuple[str, str]:
        return path, value

    parser.add_argument(
        option, dest="overrides", action="append", type=pair, metavar=form, help=text.replace("%", "%%")
    )


def _help(member: Node) -> str:
    if isinstance(member, Section):
        return f"{member.doc} (default: null)"
    within = [section.path for section in ancestors(member.path) if section.optional]
    if member.default is REQUIRED:
        return f"{member.doc} (to be given where {within[-1]} is)"
    condition = f" once {within[-1]} is given" if within else ""
    return f"{member.doc} (default{condition}: {as_yaml(member.default)})"


def _metavar_of(member: Node) -> str:
    return metavar(member.type) if isinstance(member, Leaf) else "null|{FIELD: VALUE, ...}"


def metavar(hint: Any) -> str:
    """The form of a value, as in ``[INT,INT,INT]|null``."""
    if hint in METAVARS:
        return METAVARS[hint]
    if len(members_of(hint)) > 1:
        return "|".join(map(metavar, members_of(hint)))
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return "|".join(map(str, arguments))
    items = ["..." if item is Ellipsis else metavar(item) for item in arguments]
    return f"[{','.join(items)}]"
