"""What the fields of a section take: the types that sections are made of, and the fields read back off a section."""

from __future__ import annotations

import dataclasses
import os
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union

from pydantic import BeforeValidator, ConfigDict, Field, StrictFloat, StrictInt, StrictStr
from pydantic.fields import FieldInfo

from seg.errors import Problem
from seg.files import MOST_NAME_BYTES

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
REQUIRED: Any = dataclasses.MISSING
Check = TypeVar("Check", bound=Callable[..., Iterator[Problem]])
Axis = Annotated[StrictInt, Field(ge=0, le=2)]
Probability = Annotated[StrictFloat, Field(ge=0, le=1)]
Positive = Annotated[StrictFloat, Field(gt=0)]
NotNegative = Annotated[StrictFloat, Field(ge=0)]
AtLeastOne = Annotated[StrictInt, Field(ge=1)]


def setting(default: Any, description: str, **limits: Any) -> Any:
    """Returns a field with its default, its meaning and unit, and its limits by pydantic's names (ge, gt, le, lt)."""
    return Field(default=default, description=description, **limits)


def _checked_name(value: Any) -> Any:
    if isinstance(value, str | Path):
        value = type(value)(os.path.expanduser(value))
        longest = max((len(os.fsencode(part)) for part in Path(value).parts), default=0)
        if "\0" in str(value) or longest > MOST_NAME_BYTES:
            raise ValueError(f"must be a path without NUL, of names of at most {MOST_NAME_BYTES} bytes")
    return value


def _named(value: Any) -> Any:
    if value == "":  # which would stand for the working directory
        raise ValueError("must be a path, not an empty text")
    return _checked_name(value)


def _of_file(value: Any) -> Any:
    if isinstance(value, str) and value.endswith("/"):  # which Path would drop
        raise ValueError("must be the name of a file, not of a folder")
    return _named(value)


NewFile = Annotated[Path, BeforeValidator(_of_file)]
FilePath = Annotated[Path, BeforeValidator(_named)]
PathText = Annotated[StrictStr, BeforeValidator(_checked_name)]
"""A path that a configuration keeps as it was written, but for ``~``."""


@dataclass(frozen=True, kw_only=True)
class ConfigField:
    """A field of a section, or of a section within it.

    Attributes:
        path: Dotted path from the outermost section.
        hint: Type of the value, with its range.
        default: Value where nothing is given; REQUIRED where something must be.
        description: What the field means, and its unit.
        section: The class of a field that holds a section; null for a value.
        optional: Whether null is allowed.
    """

    path: str
    hint: Any
    default: Any
    description: str
    section: type | None
    optional: bool

    @property
    def above(self) -> str:
        """Path of the section around the field; empty in the outermost."""
        return self.path.rpartition(".")[0]

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]


_KNOWN: dict[type, Mapping[str, ConfigField]] = {}  # reading the fields of an experiment takes milliseconds


def fields_of(cls: type) -> Mapping[str, ConfigField]:
    """Lists the fields of a section by dotted path, each section before its own fields."""
    if cls not in _KNOWN:
        _KNOWN[cls] = {field.path: field for field in _fields(cls, "")}
    return _KNOWN[cls]


def _fields(cls: type, above: str) -> Iterator[ConfigField]:
    for name, info in direct_fields(cls).items():
        hint = Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation
        kinds = [kind for kind in alternatives(info.annotation) if dataclasses.is_dataclass(kind)]
        inner = typing.cast(type, kinds[0]) if kinds else None
        path = f"{above}.{name}" if above else name
        required = info.is_required()
        yield ConfigField(
            path=path,
            hint=hint,
            default=REQUIRED if required else info.get_default(call_default_factory=True, validated_data={}),
            description=info.description or "",
            section=inner,
            optional=types.NoneType in alternatives(info.annotation),
        )
        if inner is not None:
            yield from _fields(inner, path)


def direct_fields(cls: type) -> dict[str, FieldInfo]:
    """Lists the fields of a section alone, by name."""
    found: dict[str, FieldInfo] = cls.__pydantic_fields__  # type: ignore[attr-defined]
    return found


def value_at(config: object, path: str) -> Any:
    """Returns the value at a dotted path; None within a section that is null."""
    for name in path.split("."):
        config = None if config is None else getattr(config, name)
    return config


def alternatives(hint: Any) -> tuple[Any, ...]:
    """Returns the members of a union without their ranges, or the type alone."""
    bare = _bare(hint)
    if typing.get_origin(bare) in (Union, types.UnionType):
        return tuple(inner for member in typing.get_args(bare) for inner in alternatives(member))
    return (bare,)


SIMPLE: dict[Any, tuple[str, str, str]] = {
    int: ("INT", "an integer", "integers"),
    float: ("NUMBER", "a number", "numbers"),
    bool: ("true|false", "true or false", "values true or false"),
    str: ("TEXT", "text", "texts"),
    Path: ("PATH", "a path", "paths"),
    types.NoneType: ("null", "null", "nulls"),
}
"""What a type is called in a usage text, and in words: one value, several values."""


def type_in_words(hint: Any, *, plural: bool = False) -> str:
    """Says what a value of a type looks like, as in "a list of 3 numbers"."""
    members = alternatives(hint)
    if len(members) > 1:
        return " or ".join(type_in_words(member, plural=plural) for member in members)
    if members[0] in SIMPLE:
        return SIMPLE[members[0]][1 + plural]
    if members[0] is Any or dataclasses.is_dataclass(members[0]):
        return "values" if plural else "a group of fields" if members[0] is not Any else "a value"
    origin, arguments = typing.get_origin(members[0]), typing.get_args(members[0])
    if origin is Literal:
        return ("values of " if plural else "one of ") + ", ".join(map(str, arguments))
    if origin is not tuple:
        return "values by dotted path, as in training.steps: 700"
    count = "" if arguments[-1] is Ellipsis else f"{len(arguments)} "
    return f"{'lists' if plural else 'a list'} of {count}{type_in_words(arguments[0], plural=True)}"


def is_path(hint: Any) -> bool:
    """Tells whether a type is that of a path."""
    if isinstance(hint, FieldInfo):
        return any(map(is_path, hint.metadata))
    if isinstance(hint, BeforeValidator):
        return hint.func is _checked_name
    return any(map(is_path, typing.get_args(hint)))


def item_of(hint: Any) -> tuple[Any, int | None] | None:
    """Returns the type of a list's items and their number, None where it is free; None where the type is no list."""
    kind = next((kind for kind in alternatives(hint) if typing.get_origin(kind) is tuple), None)
    items = typing.get_args(kind)
    return None if kind is None else (items[0], None if items[-1] is Ellipsis else len(items))


def form(hint: Any) -> str:
    """Formats the form of a value for a usage text, as in ``[INT,INT,INT]|null``."""
    members = alternatives(hint)
    if len(members) > 1:
        return "|".join(map(form, members))
    arguments = typing.get_args(members[0])
    if typing.get_origin(members[0]) is Literal:
        return "|".join(map(str, arguments))
    if typing.get_origin(members[0]) is tuple:
        return "[" + ",".join("..." if item is Ellipsis else form(item) for item in arguments) + "]"
    return SIMPLE.get(members[0], ("VALUE",))[0]


def range_in_words(hint: Any) -> str:
    """Formats the range of the numbers in a type, as in "in (0, 4]" or ">= 1"; empty where there is none."""
    bounds = _bounds(hint)
    low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    if low is not None and high is not None:
        return f"in {'[' if 'ge' in bounds else '('}{low}, {high}{']' if 'le' in bounds else ')'}"
    if low is not None:
        return f"{'>=' if 'ge' in bounds else '>'} {low}"
    return "" if high is None else f"{'<=' if 'le' in bounds else '<'} {high}"


def _bounds(hint: Any) -> dict[str, float]:
    """Collects the bounds of the numbers in a type, by pydantic's names of them."""
    found: dict[str, float] = {}
    if typing.get_origin(hint) is Annotated:
        for item in typing.get_args(hint)[1:]:
            for constraint in item.metadata if isinstance(item, FieldInfo) else [item]:
                found |= {
                    name: getattr(constraint, name) for name in ("ge", "gt", "le", "lt") if hasattr(constraint, name)
                }
    for inner in typing.get_args(hint):
        if inner is not Ellipsis and not isinstance(inner, str):
            found |= _bounds(inner)
    return found


def _bare(hint: Any) -> Any:
    return _bare(typing.get_args(hint)[0]) if typing.get_origin(hint) is Annotated else hint


class Rules:
    """Rules between fields; each names the fields that it is about."""

    def __init__(self) -> None:
        self._rules: list[tuple[tuple[str, ...], Callable[[Any], Iterator[Problem]]]] = []

    def rule(self, *paths: str) -> Callable[[Check], Check]:
        """Adds a function that yields problems of a configuration, made of the fields that it reads."""

        def add(check: Check) -> Check:
            self._rules.append((paths, check))
            return check

        return add

    def broken(self, config: object, unread: Sequence[str] = ()) -> list[Problem]:
        """Lists the problems of a configuration; ``unread`` are paths of fields whose rules are left out."""
        return [
            problem
            for paths, check in self._rules
            if not any(overlaps(path, other) for path in paths for other in unread)
            for problem in check(config)
        ]


def overlaps(one: str, other: str) -> bool:
    """Tells whether two dotted paths name the same field, or one a part of the other."""
    shorter, longer = sorted((one, other), key=len)
    return longer == shorter or longer.startswith((f"{shorter}.", f"{shorter}["))
