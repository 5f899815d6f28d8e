"""From a configuration to YAML."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from seg.cli.schema import Leaf, Section, experiment
from seg.cli.values import as_yaml
from seg.config import ExperimentConfig

COMMENT_WIDTH = 100
INDENT = "  "


def dump_config(config: ExperimentConfig, *, comments: bool = False, header: str = "") -> str:
    """Writes a configuration as YAML, every field of it, so that reading it gives the same configuration.

    Args:
        config: The configuration.
        comments: Whether each field's explanation stands above it.
        header: Text that opens the file, as comments.

    Returns:
        YAML text that ends in a line break.
    """
    opening = [f"# {line}".rstrip() for line in header.splitlines()]
    if opening:
        opening.append("")
    return "\n".join([*opening, *_lines(experiment(), config, "", comments)]) + "\n"


def _lines(section: Section, values: object, indent: str, comments: bool) -> Iterator[str]:
    for name, member in section.members.items():
        value = getattr(values, name)
        if comments:
            if not indent and isinstance(member, Section):
                yield ""
            yield from textwrap.wrap(
                member.doc, COMMENT_WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
            )
        if isinstance(member, Leaf) or value is None:
            yield f"{indent}{name}: {as_yaml(value)}"
        else:
            yield f"{indent}{name}:"
            yield from _lines(member, value, indent + INDENT, comments)
