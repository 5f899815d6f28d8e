"""YAML text to values and back, by YAML 1.2's JSON-like rules and within bounds."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar

import yaml

from seg.errors import Problem, RunError, SegError
from seg.files import check_content, quoted, read_bytes

MOST_CHARACTERS = 1_000_000
MOST_LEVELS = 20
MOST_DIGITS = 18  # so that every integer fits 64 bits
_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL: dict[str, Any] = dict.fromkeys(("", "~", "null", "Null", "NULL"))
_SPECIAL |= {text: text.lower() == "true" for text in ("true", "True", "TRUE", "false", "False", "FALSE")}
_SPECIAL |= {f"{sign}.{text}": float(f"{sign}inf") for sign in ("", "+", "-") for text in ("inf", "Inf", "INF")}
_SPECIAL |= {f".{text}": math.nan for text in ("nan", "NaN", "NAN")}
_PLAIN = re.compile(r"[A-Za-z_/][\w./-]*", re.ASCII)
T = TypeVar("T")
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlError(Exception):
    """A text is no YAML that is read here; the message, the rule of a problem, says what must hold and where."""


def read_yaml(
    path: Path, schema: type[T], *, newest: int | None = None, remedy: str, error: type[SegError] = RunError
) -> T:
    """Reads a YAML file and checks its content; see :func:`seg.files.read_json` for the arguments.

    Raises:
        SegError: The file is absent, no YAML, of a newer version, or breaks the schema.
    """
    try:
        content = parse_yaml(read_bytes(path, remedy=remedy, error=error).decode())
    except UnicodeDecodeError as fault:
        raise error(Problem(quoted(str(path)), "yaml", "must be text in UTF-8", remedy=remedy)) from fault
    except YamlError as fault:
        raise error(Problem(quoted(str(path)), "yaml", str(fault), remedy=remedy)) from fault
    return check_content(path, content, schema, newest=newest, remedy=remedy, error=error)


def parse_yaml(text: str) -> Any:
    """Reads one YAML value: null, true, false, numbers, texts, lists, mappings with texts as keys.

    Bare words follow YAML 1.2: ``yes`` and ``4:00:00`` are texts, ``010`` is 10. Tags, aliases, merge keys, more than
    20 levels and integers of more than 18 digits are refused, and so is a key given twice.

    Raises:
        YamlError: The text is not valid; says where.
    """
    if len(text) > MOST_CHARACTERS:
        raise YamlError(f"must have at most {MOST_CHARACTERS} characters, got {len(text)}")
    if (bad := text_problem(text)) is not None:
        raise YamlError(f"must be text, got {bad}")
    events = yaml.parse(text, _Loader)
    try:
        documents = [_value(events, event, 0) for event in events if isinstance(event, yaml.NodeEvent)]
    except yaml.MarkedYAMLError as error:
        raise YamlError(f"must be valid YAML; {_where(error.problem_mark)}{error.problem}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise YamlError(f"must be valid YAML; {str(error).splitlines()[0]}") from error
    if len(documents) > 1:
        raise YamlError(f"must be one YAML document, got {len(documents)}")
    return documents[0] if documents else None


def _value(events: Iterator[yaml.Event], event: Any, level: int) -> Any:
    """Reads the value that begins with an event, so many lists and mappings deep."""
    if isinstance(event, yaml.ScalarEvent):
        text = _text(event)
        return _bare(event, text) if event.implicit[0] else text
    _check_untagged(event)
    _check(event, level == MOST_LEVELS, f"more than {MOST_LEVELS} levels")
    if isinstance(event, yaml.SequenceStartEvent):
        inside = takewhile(lambda item: not isinstance(item, yaml.SequenceEndEvent), events)
        return [_value(events, item, level + 1) for item in inside]
    content: dict[str, Any] = {}
    key: Any
    for key in takewhile(lambda item: not isinstance(item, yaml.MappingEndEvent), events):
        _check(key, isinstance(key, yaml.CollectionStartEvent), "a list or mapping stands in a key's place")
        name = _text(key)
        _check(key, key.implicit[0] and name == "<<", "merge keys are not read, write the fields out")
        _check(key, name in content, f"{name} is given twice")
        content[name] = _value(events, next(events), level + 1)
    return content


def _check(event: yaml.Event, refused: bool, reason: str) -> None:
    if refused:
        raise YamlError(f"must be valid YAML; {_where(event.start_mark)}{reason}")


def _check_untagged(event: Any) -> None:
    _check(event, isinstance(event, yaml.AliasEvent), "aliases are not read, write the value out")
    _check(event, event.tag is not None, "tags are not read")


def _text(event: Any) -> str:
    _check_untagged(event)
    bad = text_problem(event.value)
    _check(event, bad is not None, f"{bad}")
    return str(event.value)


def _bare(event: yaml.Event, text: str) -> Any:
    """Reads a word without quotes."""
    if text in _SPECIAL:
        return _SPECIAL[text]
    if _INTEGER.fullmatch(text):
        _check(event, len(text.lstrip("+-0")) > MOST_DIGITS, f"an integer has more than {MOST_DIGITS} digits")
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _where(mark: Any) -> str:
    return "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "


def text_problem(text: str) -> str | None:
    """Says what in a text no file or name can hold; null where there is nothing."""
    if "\0" in text:
        return "a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"the code {ord(text[error.start]):#x}, which is no character"
    return None


def as_yaml(value: Any) -> str:
    """Formats a value as YAML on one line, such that YAML 1.1 readers read the same."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return f"{'-' if value == -math.inf else ''}.{'nan' if math.isnan(value) else 'inf'}"
        digits, mark, exponent = repr(value).partition("e")
        return digits + (".0" if mark and "." not in digits else "") + mark + exponent
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{as_yaml(str(key))}: {as_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(as_yaml, value)) + "]"
    text = str(value)
    if _PLAIN.fullmatch(text) and text.lower() not in ("null", "true", "false", "yes", "no", "on", "off", "y", "n"):
        return text
    if text.isprintable():
        return "'" + text.replace("'", "''") + "'"
    return (
        '"'
        + "".join(char if char.isprintable() and char not in '"\\' else f"\\U{ord(char):08x}" for char in text)
        + '"'
    )
