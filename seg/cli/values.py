"""Reading and showing single values: YAML text, types, and how a value is quoted in a message."""

from __future__ import annotations

import contextlib
import functools
import sys
import types
from collections.abc import Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from seg.cli.schema import in_words, members_of

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

SHOWN_CHARACTERS = 80


class BadValueError(Exception):
    """A value is not what its field takes; the text says what it takes."""


class _Loader(yaml.SafeLoader):
    """Plain YAML: a key given twice is refused, where PyYAML silently keeps the last, and so are aliases."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):  # an alias to what is around it would be read without end
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases are not read; write the value out", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value} is given twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str) -> Any:
    """Reads YAML text.

    Raises:
        BadValueError: It is not valid YAML; says where.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
        raise BadValueError(f"must be valid YAML; {where}{error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadValueError(f"must be valid YAML; {str(error).splitlines()[0]}") from error


def read_yaml(file: Path) -> Any:
    """Reads a YAML file.

    Raises:
        BadValueError: It is absent, unreadable, not text or not valid YAML.
    """
    try:
        return parse_yaml(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadValueError(f"must be a readable file, got '{error.strerror}'") from error
    except UnicodeDecodeError as error:
        raise BadValueError(f"must be UTF-8 text, got other bytes at position {error.start}") from error


def convert(value: Any, hint: Any, *, typed_in: bool) -> Any:
    """Turns a value into the type of its field: lists become tuples, whole numbers become floats where those are due.

    Args:
        value: From YAML, from Python, or as typed on a command line.
        hint: Type of the field.
        typed_in: Whether a text is what somebody typed, so that ``null`` means null.

    Raises:
        BadValueError: The value does not fit.
    """
    from jsonargparse import ArgumentError  # see _parser

    alternatives = members_of(hint)
    if value is None or (typed_in and value == "null"):
        if types.NoneType in alternatives:
            return None
    elif isinstance(value, str) and str in alternatives:
        return value
    if value is not None:
        with contextlib.suppress(ArgumentError):
            return _parser(hint).parse_object({"value": _as_lists(value)}).value
    raise BadValueError(f"must be {in_words(hint)}, got {shown(value)}")


@functools.cache
def _parser(hint: Any) -> ArgumentParser:
    """A parser of one value alone: a parser of all fields would stop at the first bad one."""
    # Imported here: it takes a fifth of a second, which --help has no use for.
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=hint)
    return parser


def shown(value: Any) -> str:
    """Quotes a value in a message as it would stand in YAML, cut where it is long."""
    if value is None or isinstance(value, bool):
        text = {None: "null", True: "true", False: "false"}[value]
    else:
        text = repr(_as_lists(value))
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + " ..."


def as_yaml(value: Any) -> str:
    """Writes a value as YAML on one line."""
    if isinstance(value, str) and not value.isprintable():  # line breaks and the like are escaped, not folded
        return str(yaml.safe_dump(value, default_style='"', width=sys.maxsize)).rstrip("\n")
    # Within a list no end-of-document mark is written behind a scalar; the brackets are taken off again.
    return str(yaml.safe_dump([_as_lists(value)], default_flow_style=True, width=sys.maxsize, allow_unicode=True))[1:-2]


def _as_lists(value: Any) -> Any:
    """Turns tuples into lists, the form of YAML."""
    return [_as_lists(item) for item in value] if isinstance(value, tuple | list) else value
