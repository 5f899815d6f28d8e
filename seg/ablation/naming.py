"""Names of the variants that axes make."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from seg.config import AxisConfig


def point_names(axis: AxisConfig) -> tuple[str, ...]:
    """Names the values of an axis: its label, ``_`` and the value, as in ``skip_1-4`` for 0.25.

    1/n reads ``1-n``, null ``none``, a list has ``x`` between its items. Of groups of fields, only those are named
    that differ along the axis.
    """
    return tuple(f"{axis.label}_{_text(_telling(value, axis.values))}" for value in axis.values)


def _telling(value: Any, values: Sequence[Any]) -> Any:
    """What tells a value from the others."""
    if not isinstance(value, Mapping):
        return value
    groups = [other for other in values if isinstance(other, Mapping)]
    differing = [key for key in value if any(group.get(key) != value[key] for group in groups)]
    return [value[key] for key in differing or value]


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return "x".join(map(_text, value))
    if isinstance(value, Mapping):
        return "x".join(map(_text, value.values()))
    if isinstance(value, float):
        parts = 1 / value if value else 0.0
        if parts > 1.5 and abs(parts - round(parts)) < 1e-9:
            return f"1-{round(parts)}"
        value = f"{value:g}"
    return re.sub(r"[^a-z0-9_.-]", "-", str(value).lower())
