"""One command-line option for every field of the configuration, explained."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from seg.config import ExperimentConfig
from seg.config.fields import REQUIRED, ConfigField, fields_of, form
from seg.config.loading import explanation
from seg.config.text import as_yaml


def add_fields(parser: argparse.ArgumentParser, metavars: Mapping[str, str]) -> None:
    """Gives a parser an option for every field, also for those within sections that are null by default.

    The texts given are collected unread in ``overrides``, a list of pairs of path and text in their order: argparse
    would stop at the first bad value.

    Args:
        parser: The parser to extend.
        metavars: Forms of a value by path, where they differ from what the field's type says.
    """
    parser.set_defaults(overrides=[])
    fields = fields_of(ExperimentConfig)
    groups: dict[str, argparse._ArgumentGroup] = {"": parser.add_argument_group("experiment")}
    groups |= {
        path: parser.add_argument_group(path, field.description)
        for path, field in fields.items()
        if field.section is not None
    }
    for path, field in fields.items():
        if field.section is None or field.optional:
            add_override(groups[path.rpartition(".")[0]], path, field, metavars.get(path), fields)


def add_override(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup,
    path: str,
    field: ConfigField,
    metavar: str | None = None,
    fields: Mapping[str, ConfigField] | None = None,
) -> None:
    """Gives a parser an option whose text is collected unread in ``overrides``, with the path of its field."""
    above = (fields or {}).get(path.rpartition(".")[0])
    within = above.path if above is not None and above.optional else ""
    if field.default is REQUIRED:
        default = f"to be given where {within} is" if within else "of the study"
    else:
        value = "null" if field.section is not None else as_yaml(field.default)
        default = f"default once {within} is given: {value}" if within else f"default: {value}"
    metavar = metavar or ("null|{FIELD: VALUE, ...}" if field.section is not None else form(field.hint))
    add_text(parser, f"--{path}", path, metavar, f"{explanation(field)} ({default})")


def add_text(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup, option: str, path: str, metavar: str, text: str
) -> None:
    """Gives a parser an option whose text is collected unread in ``overrides``, under a path."""

    def pair(value: str) -> tuple[str, str]:
        return path, value

    parser.add_argument(
        option, dest="overrides", action="append", type=pair, metavar=metavar, help=text.replace("%", "%%")
    )
