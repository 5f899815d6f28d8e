"""YAML text to values and back, by YAML 1.2's JSON-like rules and within bounds."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from seg.errors import shown

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
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlError(Exception):
    """A text is no YAML that is read here; the message says what must hold and where."""


def read_yaml(file: Path) -> Any:
    """Reads a YAML file.

    Raises:
        YamlError: The file is absent, unreadable, not text or not valid.
    """
    try:
        if file.exists() and not file.is_file():  # reading a pipe would wait for ever
            raise YamlError("must be a file, not a folder, a pipe or a device")
        return parse_yaml(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise YamlError(f"must be a readable file, got '{error.strerror}'") from error
    except UnicodeDecodeError as error:
        raise YamlError(f"must be UTF-8 text, got other bytes at position {error.start}") from error
    except ValueError as error:  # a NUL in the name
        raise YamlError(f"must be the name of a file, got {shown(str(file))}") from error


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
    documents: list[Any] = []
    open_lists: list[tuple[Any, list[Any]]] = []  # each list or mapping still open, and its flat content
    try:
        for event in yaml.parse(text, _Loader):
            if isinstance(event, yaml.AliasEvent):
                raise YamlError(f"must be valid YAML; {_where(event)}aliases are not read, write the value out")
            if isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):
                if event.tag is not None:
                    raise YamlError(f"must be valid YAML; {_where(event)}tags are not read")
                if len(open_lists) == MOST_LEVELS:
                    raise YamlError(f"must be valid YAML; {_where(event)}more than {MOST_LEVELS} levels")
                open_lists.append((event, []))
                continue
            if isinstance(event, yaml.ScalarEvent):
                value: Any = _scalar(event, key=_awaits_key(open_lists))
            elif isinstance(event, yaml.SequenceEndEvent):
                value = open_lists.pop()[1]
            elif isinstance(event, yaml.MappingEndEvent):
                content = open_lists.pop()[1]
                value = dict(zip(content[::2], content[1::2], strict=True))
            else:
                continue
            if open_lists and _awaits_key(open_lists):
                if not isinstance(value, str):
                    raise YamlError(f"must be valid YAML; {_where(event)}a list or mapping stands in a key's place")
                if value in open_lists[-1][1][::2]:
                    raise YamlError(f"must be valid YAML; {_where(event)}{value} is given twice")
            (open_lists[-1][1] if open_lists else documents).append(value)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
        raise YamlError(f"must be valid YAML; {where}{error.problem}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise YamlError(f"must be valid YAML; {str(error).splitlines()[0]}") from error
    if len(documents) > 1:
        raise YamlError(f"must be one YAML document, got {len(documents)}")
    return documents[0] if documents else None


def _awaits_key(open_lists: list[tuple[Any, list[Any]]]) -> bool:
    return (
        bool(open_lists) and isinstance(open_lists[-1][0], yaml.MappingStartEvent) and len(open_lists[-1][1]) % 2 == 0
    )


def _where(event: yaml.Event) -> str:
    mark = event.start_mark
    return "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "


def _scalar(event: yaml.ScalarEvent, *, key: bool) -> Any:
    text: str = event.value
    if event.tag is not None:
        raise YamlError(f"must be valid YAML; {_where(event)}tags are not read")
    if (bad := text_problem(text)) is not None:
        raise YamlError(f"must be valid YAML; {_where(event)}{bad}")
    if key:
        if event.implicit[0] and text == "<<":
            raise YamlError(f"must be valid YAML; {_where(event)}merge keys are not read, write the fields out")
        return text
    if not event.implicit[0]:  # quoted
        return text
    if text in _SPECIAL:
        return _SPECIAL[text]
    if _INTEGER.fullmatch(text):
        if len(text.lstrip("+-0")) > MOST_DIGITS:
            raise YamlError(f"must be valid YAML; {_where(event)}an integer has more than {MOST_DIGITS} digits")
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


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
